"""`cores label IMAGE... --queries FILE --out FOLDER`: answers as labelme files, to be corrected and trained on."""

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cores.cli.asking import Asked, answers, asking_parser, drawing_options, parsed, say_what_is_shipped
from cores.cli.inputs import ToAsk
from cores.cli.options import taken_folder
from cores.cli.terminal import printable
from cores.errors import UserError
from cores.plain_json import dumps
from cores.whole import whole_files

TOLERANCE = 1.0  # pixels


def main(argv: list[str]) -> int:
    """Run `cores label`. Gives the exit code.

    Raises UserError for flags, queries and pictures that cannot be used, CheckpointError for a model.
    """
    if any(flag.partition("=")[0] == "--from" for flag in argv):
        from cores.cli.label_rows import main as of_rows

        return of_rows(argv)
    parser = asking_parser(
        "label",
        description="Label pictures with what queries find in them, as labelme files.",
        epilog="--out gets a copy of each picture and a JSON file of labelme's beside it: each target is a group of "
        "outlines whose label is the query. What is absent is a flag of the picture, `absent: QUERY`, to be ticked "
        "where that is so. Open the folder with `labelme FOLDER`, correct "
        'it, then train: cores train tiny-own --data . "data.sources={own: [labelme:FOLDER]}" --out RUN.',
    )
    drawing_options(parser)
    label_options(parser)
    parser.add_argument(
        "--from", metavar="ROWS", help="of cores predict --engine ray, in place of pictures and queries"
    )
    args, to_ask = parsed(parser, argv)
    check_tolerance(args.tolerance)
    check_labels(to_ask)
    with taken_folder(args.out, args.overwrite) as out:
        for asked in answers(args, to_ask):
            write_labels(asked, out, args.tolerance)
            said = ", ".join(f"{result.query!r} {result.status}" for result in asked.results)
            asked.bar.write(printable(f"{asked.path}: {said}"), file=sys.stdout)
    say_what_is_shipped(args)
    return 0


def label_options(parser: argparse.ArgumentParser) -> None:
    """Add `--out --tolerance`."""
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        metavar="PIXELS",
        help="how far an outline may leave the mask's border, so that few points have to be moved (default: "
        "%(default)g; 0: every mask exactly)",
    )


def check_tolerance(tolerance: float) -> None:
    """Raise UserError for what is no tolerance."""
    if not 0 <= tolerance < float("inf"):
        raise UserError(f"--tolerance {tolerance}: expected a number of pixels from 0")


def check_labels(to_ask: Sequence[ToAsk]) -> None:
    """Raise UserError for queries that are no labels, and for two of one picture that are one."""
    from cores.inference.exports import check_queries

    for one in to_ask:
        check_queries(one.queries)


def write_labels(asked: Asked, out: Path, tolerance: float = TOLERANCE) -> None:
    """The picture as it is, byte for byte, and its JSON, into a folder that is there."""
    from cores.inference.exports import to_labelme

    write_beside(asked.path, asked.name, lambda copy: to_labelme(asked.results, copy, tolerance), out)


def write_beside(
    path: Path, name: str, content: Callable[[str], dict[str, Any]], out: Path, inside: bytes | None = None
) -> None:
    """A copy of a picture and its JSON, both called `name`. `content`: takes the copy's name.

    `inside`: the picture's bytes, where it has no file; then `path` gives its suffix alone.
    """
    copy = f"{name}{path.suffix}"
    with whole_files(out) as part:
        if inside is not None:
            (part / copy).write_bytes(inside)
        elif not ((out / copy).exists() and path.samefile(out / copy)):
            shutil.copyfile(path, part / copy)
        text = dumps(content(copy), indent=2, ensure_ascii=False)
        (part / f"{name}.json").write_text(text + "\n", encoding="utf-8")
