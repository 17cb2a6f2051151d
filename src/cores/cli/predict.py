"""`cores predict IMAGE... QUERY`: ask for something in words, get an overlay, the masks of every level and a JSON."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cores.cli.asking import answers, asking_parser, parsed, say_what_is_shipped
from cores.cli.options import taken_folder
from cores.cli.terminal import printable
from cores.whole import whole_files

if TYPE_CHECKING:
    from cores.inference.segmentation import Segmentation

DEFAULT_OUT = "prediction"


def main(argv: list[str]) -> int:
    """Run `cores predict`. Gives the exit code.

    Raises UserError for flags, queries and pictures that cannot be used, CheckpointError for a model.
    """
    if any(flag.partition("=")[0] == "--engine" for flag in argv):
        from cores.cli.predict_bulk import main as bulk

        return bulk(argv)
    parser = asking_parser(
        "predict",
        description="Segment what a query asks for.",
        epilog="For each picture, --out gets NAME.overlay.png, NAME.json (answer, status, scores, masks as COCO run "
        "lengths) and for each target N and level NAME.N.LEVEL.png; of several queries, NAME.qK has those of query K.",
    )
    parser.add_argument(
        "--out", type=Path, help=f"folder to write (default: {DEFAULT_OUT}, or {DEFAULT_OUT}-2 if it is there, ...)"
    )
    parser.add_argument(
        "--engine", choices=("ray",), help="for very many pictures: `cores predict --engine ray --help`"
    )
    args, asked = parsed(parser, argv)
    written: set[str] = set()
    with taken_folder(args.out or Path(DEFAULT_OUT), args.overwrite, not (args.out or args.overwrite)) as out:
        for path, name, picture, results, bar in answers(args, asked):
            lines = []
            with whole_files(out) as part:
                for number, found in enumerate(results, 1):
                    own = name if len(results) == 1 else f"{name}.q{number}"
                    found.save(part, own, picture, {"image": path.name})
                    lines.append(_line(path, found, out / f"{own}.overlay.png", len(results) > 1))
                written |= {file.name for file in part.iterdir()}
            _remove_stale(out, name, written)
            bar.write("\n".join(lines), file=sys.stdout)
    say_what_is_shipped(args)
    return 0


def _line(path: Path, found: "Segmentation", overlay: Path, say_query: bool) -> str:
    query = f" {found.query!r}:" if say_query else ""
    cut = f" [cut after {found.tokens} tokens: --max-new-tokens allows more]" if found.cut else ""
    return printable(f"{path}:{query} {found.status}: {found.answer}{cut}  -> {overlay}")


def _remove_stale(out: Path, name: str, written: set[str]) -> None:
    """Results of earlier answers about a picture of this name that these ones do not have."""
    result = re.compile(rf"{re.escape(name)}(\.q\d+)?(\.\d+\.(location|part|target)\.png|\.overlay\.png|\.json)")
    for old in list(out.iterdir()):
        if result.fullmatch(old.name) and old.name not in written:
            old.unlink()
