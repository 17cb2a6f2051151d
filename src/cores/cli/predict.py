"""`cores predict IMAGE... QUERY`: ask for something in words, get overlays, masks, and files for other programs."""

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cores.cli.asking import Asked, answers, asking_parser, drawing_options, parsed, say_what_is_shipped
from cores.cli.label import check_labels, write_labels
from cores.cli.options import taken_folder
from cores.cli.terminal import printable
from cores.plain_json import dumps
from cores.whole import whole_file, whole_files

if TYPE_CHECKING:
    from cores.inference.exports import CocoFile
    from cores.inference.segmentation import Segmentation

DEFAULT_OUT = "prediction"
# What is written, in the order in which a line says where. {name} is the picture's, {own} of one answer about it.
FORMATS = {
    "overlay": "{own}.overlay.png",
    "json": "{own}.json",
    "labelme": "labelme/{name}.json",
    "coco": "coco/instances.json",
    "mask": "{own}.*.png",
}
USUAL = ["overlay", "mask", "json"]


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
        "lengths) and for each target N and level NAME.N.LEVEL.png; of several queries, NAME.qK has those of query K. "
        "`labelme` writes the folder labelme/ as `cores label` does, `coco` the file coco/instances.json of all "
        "pictures.",
    )
    parser.add_argument(
        "--out", type=Path, help=f"folder to write (default: {DEFAULT_OUT}, or {DEFAULT_OUT}-2 if it is there, ...)"
    )
    parser.add_argument(
        "--format",
        action="extend",
        type=_formats,
        metavar="FORMAT",
        help=f"what to write, of {', '.join(FORMATS)}; several with commas (default: {','.join(USUAL)})",
    )
    drawing_options(parser)
    parser.add_argument(
        "--engine", choices=("ray",), help="for very many pictures: `cores predict --engine ray --help`"
    )
    args, to_ask = parsed(parser, argv)
    formats = [one for one in FORMATS if one in (args.format or USUAL)]
    if "labelme" in formats:
        check_labels(to_ask)
    written: set[str] = set()
    with taken_folder(args.out or Path(DEFAULT_OUT), args.overwrite, not (args.out or args.overwrite)) as out:
        from cores.inference.exports import CocoFile

        coco = CocoFile()
        try:
            for asked in answers(args, to_ask):
                lines = _write(asked, out, formats, written, coco)
                asked.bar.write("\n".join(lines), file=sys.stdout)
        finally:  # an interruption leaves the file of what was asked until then
            if coco.images:
                _write_coco(coco, out)
    say_what_is_shipped(args)
    return 0


def _formats(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in FORMATS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(FORMATS)}")
    return names


def _write(asked: Asked, out: Path, formats: list[str], written: set[str], coco: "CocoFile") -> list[str]:
    """A picture's files; gives the line of each answer. `written` gets their names, `coco` the answers."""
    name, results, lines = asked.name, asked.results, []
    with whole_files(out) as part:
        for number, found in enumerate(results, 1):
            own = name if len(results) == 1 else f"{name}.q{number}"
            agreed = None if asked.agreed is None else asked.agreed[number - 1]
            about = {"image": asked.path.name, **({} if agreed is None else {"agreement": agreed})}
            found.save(part, own, asked.picture, about, formats)
            place = out / FORMATS[formats[0]].format(name=name, own=own)
            lines.append(_line(asked.path, found, place, len(results) > 1, agreed))
        written |= {file.name for file in part.iterdir()}
    _remove_stale(out, name, written)
    if "labelme" in formats:
        (out / "labelme").mkdir(exist_ok=True)
        write_labels(asked, out / "labelme")
    if "coco" in formats:
        coco.add(asked.path.as_posix(), results)
    return lines


def _write_coco(coco: "CocoFile", out: Path) -> None:
    file = out / FORMATS["coco"]
    file.parent.mkdir(exist_ok=True)
    with whole_file(file) as part:
        part.write_text(dumps(coco.to_dict(), ensure_ascii=False), encoding="utf-8")


def _line(path: Path, found: "Segmentation", place: Path, say_query: bool, agreed: float | None) -> str:
    query = f" {found.query!r}:" if say_query else ""
    cut = f" [cut after {found.tokens} tokens: --max-new-tokens allows more]" if found.cut else ""
    share = "" if agreed is None else f" [{agreed:.0%} agree]"
    return printable(f"{path}:{query} {found.status}: {found.answer}{cut}{share}  -> {place}")


def _remove_stale(out: Path, name: str, written: set[str]) -> None:
    """Results of earlier answers about a picture of this name that these ones do not have."""
    result = re.compile(rf"{re.escape(name)}(\.q\d+)?(\.\d+\.(location|part|target)\.png|\.overlay\.png|\.json)")
    for old in list(out.iterdir()):
        if result.fullmatch(old.name) and old.name not in written:
            old.unlink()
