"""`cores eval MODEL --on SOURCE...`: score a model, print a table, write results.json and an HTML report."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cores.cli.options import base_option, check_device, model_options, places_of, taken_folder
from cores.errors import UserError
from cores.whole import whole_files

if TYPE_CHECKING:
    from PIL.Image import Image

    from cores.asking.answerer import Answerer
    from cores.data.sample import Sample
    from cores.data.sources import Source
    from cores.evaluation.sample_asker import Mode

SHIPPED = "cores-tiny (comes with cores)"
ANSWERS: dict[str, tuple["Mode", ...]] = {
    "generated": ("generated",),
    "teacher-forced": ("teacher-forced",),
    "both": ("generated", "teacher-forced"),
}


def main(argv: list[str]) -> int:
    """Run `cores eval`. Gives the exit code.

    Raises UserError for flags that cannot be used and a folder that is there, DataError for sources, CheckpointError
    for a model.
    """
    parser = argparse.ArgumentParser(
        prog="cores eval",
        description="Score a model on sources of questions with known masks.",
        epilog="--out gets results.json (every figure), answers.jsonl (every question, its answer and its masks) and "
        "report.html (tables and pictures in one file).",
    )
    parser.add_argument(
        "model", nargs="?", help="model folder, run folder or hub id; words:... (default: what comes with cores)"
    )
    parser.add_argument("--on", nargs="+", required=True, metavar="SOURCE", help="such as ReasonSeg|val, scenes|test")
    parser.add_argument("--data", type=Path, help="the data directory; scenes need none")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--answers", choices=ANSWERS, help="who writes the answer (default: both, where it can be)")
    parser.add_argument("--limit", type=int, help="only the first so many pictures of each source")
    parser.add_argument(
        "--no-sanity", action="store_true", help="leave out the swap test and the one without location"
    )
    parser.add_argument("--max-new-tokens", type=int, help="most tokens of an answer (default: the checkpoint's)")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that is already there")
    base_option(parser, "of a run: ")
    model_options(parser)
    args = parser.parse_args(argv)
    for name in ("limit", "max_new_tokens"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: expected at least 1")
    with taken_folder(args.out, args.overwrite) as out:
        return _run(args, out)


class Pictures:
    """The first `count` samples of a source, and the picture of each."""

    def __init__(self, source: "Source", count: int | None) -> None:
        self.source = source
        self.count = len(source) if count is None else min(count, len(source))

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator["Sample"]:
        return (self.source[i] for i in range(self.count))

    def picture(self, i: int) -> "Image":
        """The picture of sample i, after EXIF rotation. Raises DataError when it cannot be read."""
        from cores.processing.pixels import open_picture

        return open_picture(self.source[i].image)


def _run(args: argparse.Namespace, out: Path) -> int:
    from cores import __version__
    from cores.checkpoints.runs.origin import moved
    from cores.data.sources import open_source
    from cores.evaluation import result_files as files
    from cores.evaluation import tables
    from cores.evaluation.evaluator import evaluate_asker
    from cores.evaluation.report import Chapter

    check_device(args.device)
    parts = {name: Pictures(open_source(name, args.data, evaluation=True), args.limit) for name in args.on}
    with moved(places_of(args.base)):
        asker = _asker(args)
    answers = ANSWERS[args.answers or ("both" if asker.has_tokens else "generated")]
    chapters = []
    for name, part in parts.items():
        if not args.quiet:
            sys.stderr.write(f"{name}: {len(part)} pictures\n")
        result = evaluate_asker(asker, part, answers, progress=not args.quiet, sanity=not args.no_sanity, records=True)
        chapters.append(Chapter(name, result, part.picture, getattr(part.source, "note", "")))
    about = {
        "model": args.model or SHIPPED,
        "answers": "both" if len(answers) > 1 else answers[0],
        "seed": str(args.seed),
        "cores": __version__,
    }
    if args.limit:
        about["limit"] = f"the first {args.limit} pictures of each source"
    with whole_files(out) as folder:
        files.write(folder, about, chapters, args.seed)
    sys.stdout.write(f"{tables.summary({c.name: c.result for c in chapters})}\n")
    for chapter in chapters:
        mode, score = next(iter(chapter.result.scores.items()))  # the report has those of the other mode, too
        table = tables.sanity(score)
        if table.rows:
            sys.stdout.write(f"\n{chapter.name}, {mode}. {table}\n")
    sys.stdout.write(f"\nreport: {args.out / 'report.html'}\n")
    return 0


def _asker(args: argparse.Namespace) -> "Answerer[Any]":
    """Who answers: a model, checked first, or a chain in words."""
    from cores.asking.asker import Asker
    from cores.checkpoints.checking import check_static
    from cores.checkpoints.load import load
    from cores.words.load import is_words, load_words

    if is_words(args.model):
        chain = load_words(args.model, args.device, args.dtype, args.seed)
        return chain if args.max_new_tokens is None else chain.saying(args.max_new_tokens)
    check_static(args.model)
    return Asker(*load(args.model, args.device, args.dtype), args.seed, args.max_new_tokens)
