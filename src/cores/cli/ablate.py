"""`cores ablate ABLATION --out DIR`: train and score every row of an ablation with every seed, print its tables."""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cores.errors import CheckFailed, UserError

if TYPE_CHECKING:
    from cores.evaluation.ablation import Ablation


def main(argv: list[str]) -> int:
    """Run `cores ablate`. Gives the exit code.

    Raises UserError for an ablation that cannot be used, RecipeError for a row that no recipe can be, CheckFailed
    when a run ends in an error.
    """
    parser = argparse.ArgumentParser(
        prog="cores ablate",
        description="Train and score every row of an ablation with every seed. Started again, it goes on.",
        epilog="--out gets a folder a row with its runs and their figures, and ablation.md.",
    )
    parser.add_argument("ablation", help="tiny, which comes with cores, or a YAML file of the same form")
    parser.add_argument("--out", type=Path, required=True, help="folder to write, or to go on in")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="only these (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="instead of the ablation's own")
    parser.add_argument("--tables", action="store_true", help="only print the tables of what is there")
    parser.add_argument("settings", nargs="*", metavar="section.key=value", help="settings over those of every row")
    args = parser.parse_intermixed_args(argv)

    from dataclasses import replace

    from cores.evaluation.ablation import ablation_tables, markdown, read_ablation
    from cores.recipe import load_recipe
    from cores.typed_yaml import nearest

    behind = [row for row in args.rows or [] if "=" in row]  # settings that stand behind --rows
    args.rows = [row for row in args.rows or [] if row not in behind]
    ablation = read_ablation(args.ablation)
    ablation = replace(ablation, settings=(*ablation.settings, *args.settings, *behind))
    if args.seeds:
        ablation = replace(ablation, seeds=tuple(args.seeds))
    for row in args.rows:
        if row not in ablation.rows:
            raise UserError(f"--rows {row}: there is no such row{nearest(row, ablation.rows)}")
    rows = args.rows or list(ablation.rows)
    for row in rows:  # all of them before the first trains
        load_recipe(ablation.base, [*ablation.rows[row], *ablation.settings])
    if not args.tables:
        for seed in ablation.seeds:  # a seed of every row first: tables are whole early
            for row in rows:
                _run(ablation, row, seed, args.out)
                (args.out / "ablation.md").write_text(markdown(ablation_tables(ablation, args.out)), "utf-8")
    sys.stdout.write("\n\n".join(map(str, ablation_tables(ablation, args.out))) + "\n")
    return 0


def _run(ablation: "Ablation", row: str, seed: int, out: Path) -> None:
    """Train and score one row with one seed, or what is left of that.

    Raises UserError when what is there was trained with other settings.
    """
    from cores.evaluation.ablation import is_scored, run_folder, scored_folder
    from cores.recipe import load_recipe
    from cores.training.folder import RECIPE

    run, scored = run_folder(out, row, seed), scored_folder(out, row, seed)
    settings = [*ablation.rows[row], *ablation.settings, f"trainer.seed={seed}"]
    began = run / RECIPE
    if began.exists() and load_recipe(began).to_dict() != load_recipe(ablation.base, settings).to_dict():
        raise UserError(f"{run}: was trained with other settings: take another --out, or remove {run} and {scored}")
    if is_scored(ablation, row, seed, out):
        return
    again = ["--resume"] if began.exists() else []  # a run that was killed at once has a folder and no more
    _cores(["train", ablation.base, "--out", str(run), *again, *settings])
    how = ["--answers", ablation.answers, "--limit", str(ablation.limit), "--no-sanity"]
    _cores(["eval", str(run), "--on", *ablation.sources, *how, "--out", str(scored), "--overwrite"])


def _cores(words: list[str]) -> None:
    """One command in a process of its own: a run begins as from the shell, with nothing of the last one's."""
    sys.stderr.write(f"cores {' '.join(words)}\n")
    code = subprocess.run([sys.executable, "-m", "cores", *words], check=False).returncode
    if code:
        raise CheckFailed(f"cores {words[0]} ended with {code}: see above; started again, the ablation goes on here")
