"""`cores reproduce [TABLE]`: the paper's tables: what each row needs, and its figures beside ours."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cores.errors import CheckFailed

if TYPE_CHECKING:
    from cores.evaluation.reproduction import PaperTable, Places, Row


def main(argv: list[str]) -> int:
    """Run `cores reproduce`. Gives the exit code.

    Raises UserError for a table that is not there, CheckFailed when `--run` leaves rows without figures.
    """
    parser = argparse.ArgumentParser(
        prog="cores reproduce",
        description="The paper's tables: for each row the commands, the weights and what is missing; --run scores the "
        "rows of which all is there.",
    )
    parser.add_argument("table", nargs="?", help="a table's name (default: list them)")
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder of models (default: models)")
    parser.add_argument("--data", type=Path, default=Path("dataset"), help="the data directory (default: dataset)")
    parser.add_argument("--out", type=Path, default=Path("reproduced"), help="for results (default: reproduced)")
    parser.add_argument("--run", action="store_true", help="score what is there; figures of these weights are kept")
    args = parser.parse_args(argv)

    from cores.evaluation.reproduction import Places, paper_table, paper_tables

    if args.table is None:
        for name, table in paper_tables().items():
            sys.stdout.write(f"{name:10} {table.title}: {len(table.rows)} rows\n")
        return 0
    table, places = paper_table(args.table), Places(args.models, args.data, args.out)
    without = [row.name for row in table.rows if not _row(row, places, args.run)]
    if args.run:
        sys.stdout.write(f"\n{_figures(table, places)}\n")
        if without:
            raise CheckFailed(f"no figures for {', '.join(without)}: see what is missing above")
    return 0


def _row(row: "Row", places: "Places", run: bool) -> bool:
    """Say what a row needs, and score it where that is wanted and can be. Is nothing missing?"""
    from cores.cli import main as cores
    from cores.evaluation.reproduction import (
        missing_parts,
        model_fingerprint,
        scored_sources,
        scoring_command,
        shell,
        training_commands,
    )

    paper = "; ".join(
        f"{source} " + ", ".join(f"{name} {value}" for name, value in found.items())
        for source, found in row.figures.items()
    )
    missing = missing_parts(row, places)
    sys.stdout.write(f"\n{row.name}\n  paper:   {paper}\n")
    sys.stdout.write(f"  weights: {model_fingerprint(row, places) or 'none'}\n")
    for words in training_commands(row, places):
        sys.stdout.write(f"  {'merge' if 'merge' in words else 'train'}:   {shell(words)}\n")
    sys.stdout.write(f"  eval:    {shell(scoring_command(row, places))}\n")
    for line in missing:
        sys.stdout.write(f"  missing: {line}\n")
    sys.stdout.flush()
    if run and not missing and not scored_sources(row, places):
        return cores([*scoring_command(row, places)[1:], "--overwrite"]) == 0  # over figures of other weights
    return not missing


def _figures(table: "PaperTable", places: "Places") -> str:
    """Our figures beside the paper's, of all rows that were scored."""
    from cores.evaluation.reproduction import ANSWERS, scored_sources
    from cores.evaluation.tables import NOTHING, Table

    rows = []
    for row in table.rows:
        found = scored_sources(row, places)
        for source, figures in row.figures.items():
            for name, paper in figures.items():
                ours = found.get(source, {}).get(ANSWERS, {}).get(name)
                cells = (NOTHING, NOTHING) if ours is None else (f"{100 * ours:.1f}", f"{100 * ours - paper:+.1f}")
                rows.append((row.name, source, name, f"{paper:.1f}", *cells))
    return str(Table(table.title, ("row", "source", "figure", "paper", "ours", "difference"), tuple(rows)))
