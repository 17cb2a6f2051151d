"""`cores predict IMAGE... QUERY`: ask for something in words, get an overlay, the masks of every level and a JSON."""

import argparse
import glob
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from cores.cli.options import check_device, check_out, model_options, whole_folder
from cores.errors import UserError

if TYPE_CHECKING:
    from cores.inference.segmentation import Segmentation

SHIPPED = (
    "cores-tiny, the model that comes with cores: it knows drawn scenes, not photographs. "
    "One that knows photographs: `cores train cores-7b --data DIR --out RUN`, then --model RUN "
    "(`cores recipes show cores-7b` says what it needs)"
)


def main(argv: list[str]) -> int:
    """Run `cores predict`. Gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="cores predict",
        description="Segment what a query asks for.",
        epilog="For each picture, --out gets NAME.overlay.png, NAME.json (answer, status, scores, masks as COCO run "
        "lengths) and for each target N and level NAME.N.LEVEL.png.",
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="a picture, or several")
    parser.add_argument("query", metavar="QUERY", help="what to segment, in words and quotes; the last of all")
    parser.add_argument("--model", help="model folder, run folder or hub id (default: the one that comes with cores)")
    parser.add_argument("--out", type=Path, default=Path("prediction"), help="folder to write (default: prediction)")
    parser.add_argument(
        "--form",
        choices=("phrase", "sentence", "explain", "raw"),
        help="phrase: a name; sentence: a whole question; explain: it wants the reason, too; raw: text as it is "
        "(default: phrase or sentence, by the query's words)",
    )
    parser.add_argument("--max-new-tokens", type=int, default=128, help="most tokens of an answer (default: 128)")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that is already there")
    model_options(parser)
    args = parser.parse_args(argv)

    names = _check(args)
    check_device(args.device)
    from cores.checkpoints.checking import check_static
    from cores.inference.facade import load
    from cores.processing.pixels import open_picture
    from cores.processing.unknown_words import find_unknown_words

    if args.model is None and not args.quiet:
        sys.stderr.write(f"{SHIPPED}\n")
    check_static(args.model)
    cores = load(args.model, args.device, args.dtype, args.seed)
    unknown = find_unknown_words(cores.processor.tokenizer, [args.query])
    if unknown:
        sys.stderr.write(f"warning: {unknown}\n")

    from tqdm import tqdm

    lines = []
    with whole_folder(args.out) as folder:
        hidden = args.quiet or len(args.images) == 1
        for path, name in zip(tqdm(args.images, desc="predict", unit="img", disable=hidden), names, strict=True):
            picture = open_picture(path)
            (found,) = cores.segment(picture, [args.query], args.form, args.max_new_tokens)
            _write(folder, name, path, picture, found)
            lines.append(f"{path}: {found.status}: {found.answer}  -> {args.out / name}.overlay.png\n")
        _remove_stale(args.out, folder, names)
    sys.stdout.write("".join(lines))
    return 0


def _check(args: argparse.Namespace) -> list[str]:
    """Everything that can be known to be wrong without a model, all pictures at once. Gives a name for each."""
    if not args.query.strip():
        raise UserError('QUERY is empty: ask for something in words, such as "the handle of the cup"')
    if Path(args.query).suffix and Path(args.query).is_file():
        raise UserError(
            f"the last argument is the query, but {args.query} is a file: put the query after the pictures"
        )
    if args.max_new_tokens < 1:
        raise UserError(f"--max-new-tokens {args.max_new_tokens}: an answer has at least one token")
    check_out(args.out, args.overwrite)
    from cores.processing.pixels import open_picture  # torch comes with it: after everything that needs none

    wrong = []
    for path in args.images:
        try:
            open_picture(path)
        except UserError as error:
            wrong.append(str(error))
    if wrong:
        raise UserError("; ".join(wrong))
    seen: Counter[str] = Counter()
    names = []
    for path in args.images:
        seen[path.stem] += 1
        names.append(path.stem if seen[path.stem] == 1 else f"{path.stem}-{seen[path.stem]}")
    return names


def _write(folder: Path, name: str, path: Path, picture: Image.Image, found: "Segmentation") -> None:
    found.overlay(picture).save(folder / f"{name}.overlay.png")
    for number, target in enumerate(found.targets, 1):
        for level in target.levels:
            Image.fromarray(level.mask).save(folder / f"{name}.{number}.{level.name}.png")
    record = {"image": path.name, "size": [picture.height, picture.width], **found.to_dict()}
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _remove_stale(out: Path, folder: Path, names: list[str]) -> None:
    """Masks of an earlier answer about the same pictures that this one does not have."""
    for name in names:
        for old in out.glob(f"{glob.escape(name)}.[0-9]*.*.png"):
            if not (folder / old.name).exists():
                old.unlink()
