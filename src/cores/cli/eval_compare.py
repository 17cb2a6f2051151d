"""`cores eval compare A B`: what differs between two evaluations of the same questions."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cores.cli.options import taken_folder
from cores.errors import DataError
from cores.whole import whole_files

if TYPE_CHECKING:
    from PIL.Image import Image


def main(argv: list[str]) -> int:
    """Run `cores eval compare`. Gives the exit code. Raises UserError and DataError as `compare` does."""
    parser = argparse.ArgumentParser(
        prog="cores eval compare",
        description="The paired differences of two evaluations with their intervals, and the questions that only one "
        "of them got right.",
    )
    parser.add_argument("first", type=Path, help="a folder that cores eval wrote")
    parser.add_argument("second", type=Path, help="another, of the same questions")
    parser.add_argument("--out", type=Path, help="folder for compare.json and compare.html (default: only tables)")
    parser.add_argument("--data", type=Path, help="the data directory, for the pictures; scenes need none")
    parser.add_argument("--seed", type=int, default=0, help="of the intervals (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that is already there")
    args = parser.parse_args(argv)

    from cores.evaluation.compare import compare, results_of
    from cores.evaluation.compare_report import as_json, render, table
    from cores.plain_json import dumps

    found = compare(args.first, args.second, args.seed)
    for one in found:
        sys.stdout.write(f"{table(one)}\n\n")
    if args.out is None:
        return 0
    about = {"first": str(args.first), "second": str(args.second)}
    texts = results_of(args.first)["about"].get("texts", "first")
    pictures = _pictures([one.source for one in found], args.data, texts == "first")
    with taken_folder(args.out, args.overwrite) as out, whole_files(out) as folder:
        text = dumps({"about": about, "differences": [as_json(one) for one in found]}, indent=1, ensure_ascii=False)
        (folder / "compare.json").write_text(text + "\n", encoding="utf-8")
        (folder / "compare.html").write_text(render(about, found, pictures), encoding="utf-8")
    sys.stdout.write(f"report: {args.out / 'compare.html'}\n")
    return 0


def _pictures(names: list[str], data: Path | None, first: bool) -> "dict[str, Callable[[int], Image]]":
    """How to get the pictures of each source; those that cannot be opened are said and left out."""
    from cores.data.sources import open_source
    from cores.evaluation.part import Part

    found: dict[str, Callable[[int], Image]] = {}
    for name in dict.fromkeys(names):
        try:
            found[name] = Part(open_source(name, data, evaluation=first)).picture
        except DataError as error:
            sys.stderr.write(f"without pictures: {error}\n")
    return found
