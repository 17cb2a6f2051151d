"""`cores eval MODEL --on SOURCE...`: score a model, print tables, write results.json and an HTML report."""

import argparse
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cores.cli.eval_results import SHIPPED, write_results
from cores.cli.options import asked_model_options, check_device, places_of, taken_folder
from cores.errors import DataError, UserError
from cores.training.ranks import is_first, leave, together

if TYPE_CHECKING:
    from cores.asking.answerer import Answerer
    from cores.evaluation.journal import Place
    from cores.evaluation.part import Part
    from cores.evaluation.sample_asker import Mode

ANSWERS: dict[str, tuple["Mode", ...]] = {
    "generated": ("generated",),
    "teacher-forced": ("teacher-forced",),
    "both": ("generated", "teacher-forced"),
}
PICTURES = 8  # asked together


def main(argv: list[str]) -> int:
    """Run `cores eval`. Gives the exit code.

    Raises UserError for flags that cannot be used and a folder that is there, DataError for sources, CheckpointError
    for a model.
    """
    if argv[:1] == ["compare"]:
        from cores.cli.eval_compare import main as compare

        return int(compare(argv[1:]))
    args = _parser().parse_args(argv)
    for name in ("limit", "max_new_tokens", "pictures"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: expected at least 1")
    if args.against is not None:
        from cores.cli.eval_predictions import score

        return int(score(args))
    if not args.on:
        raise UserError("which sources? Say --on SOURCE..., such as ReasonSeg|val or scenes|test")
    if args.protocol == "published" and (args.answers or "teacher-forced") != "teacher-forced":
        raise UserError("--protocol published: its answers are given: take --answers teacher-forced, or leave it out")
    from cores.evaluation.journal import FOLDER, held

    _join()
    with ExitStack() as stack:
        out: Path = args.out
        with together():
            if is_first():
                out = stack.enter_context(taken_folder(out, args.overwrite or (out / FOLDER).is_dir()))
                stack.enter_context(held(out))
        code = _run(args, out / FOLDER)
        leave()
        return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cores eval",
        description="Score a model on sources of questions with known masks.",
        epilog="--out gets results.json (every figure), answers.jsonl (every question, its answer and its masks) and "
        "report.html (tables and pictures in one file). Killed and started again by the same command, it goes on. "
        "cores eval compare A B: what differs between two such folders. cores eval PREDICTIONS --against SOURCE: "
        "score the masks of any other program.",
    )
    parser.add_argument(
        "model", nargs="?", help="model folder, run folder or hub id; words:... (default: what comes with cores)"
    )
    parser.add_argument("--on", nargs="+", metavar="SOURCE", help="such as ReasonSeg|val, scenes|test")
    parser.add_argument("--against", metavar="SOURCE", help="score predictions (JSON lines or a folder of PNGs)")
    parser.add_argument("--data", type=Path, help="the data directory; scenes need none")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--answers", choices=ANSWERS, help="who writes the answer (default: both, where it can be)")
    parser.add_argument(
        "--protocol",
        choices=("ours", "published"),
        default="ours",
        help="published: the sums and the given answers of the published programs, a picture at a time",
    )
    parser.add_argument(
        "--texts", choices=("first", "all"), default="first", help="of a ReasonSeg picture (default: first)"
    )
    parser.add_argument("--limit", type=int, help="only the first so many pictures of each source")
    parser.add_argument("--pictures", type=int, help=f"asked together (default: {PICTURES})")
    parser.add_argument(
        "--no-sanity", action="store_true", help="leave out the swap test and the one without location"
    )
    parser.add_argument(
        "--similarity", action="store_true", help="show which of the picture's patches each grounding token is like"
    )
    parser.add_argument(
        "--fit-confidence",
        action="store_true",
        help="write confidence.json, too: put into the model's folder it makes answers' confidence the IoU that is to "
        "be expected (docs/confidence.md)",
    )
    parser.add_argument("--max-new-tokens", type=int, help="most tokens of an answer (default: the checkpoint's)")
    parser.add_argument(
        "--think", type=int, default=0, help="most tokens of free reasoning before an answer (0: none)"
    )
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that is already there")
    asked_model_options(parser)
    return parser


def _run(args: argparse.Namespace, home: Path) -> int:
    from cores.checkpoints.runs.origin import moved
    from cores.data.sources import open_source
    from cores.evaluation import evaluator
    from cores.evaluation.journal import Journal, begin, found_in
    from cores.evaluation.part import Numbered, Part

    rank, world = _rank(), _world()
    with together():
        args.device = _own_device(args.device)
        check_device(args)
        first = args.texts == "first"
        parts = {name: Part(open_source(name, args.data, evaluation=first), args.limit) for name in args.on}
        published = args.protocol == "published"
        pictures = args.pictures or (1 if published else PICTURES)
        with moved(places_of(args.base)):
            asker = _asker(args, pictures)
        default = "teacher-forced" if published else "both" if asker.has_tokens else "generated"
        answers = ANSWERS[args.answers or default]
        evaluator.check_answers(asker, answers)
        if args.fit_confidence and asker.confidence is None:
            raise UserError("--fit-confidence: a chain in words has no signals to fit: leave it out")
        if args.similarity and not asker.has_tokens:
            raise UserError("--similarity: a chain in words has no grounding tokens: leave it out")
        settings = _settings(args, answers, pictures, {name: len(part) for name, part in parts.items()})
        if is_first():
            begin(home, settings, args.overwrite)
            try:
                _check_same(parts, found_in(home))
            except DataError:
                if not args.overwrite:
                    raise
                begin(home, settings, args.overwrite, go_on=False)
    with together():  # before anyone writes: what is left must be the same for all
        places = found_in(home)
    with together(), Journal(home, rank) as journal:
        loud = not args.quiet and is_first()
        for name, part in parts.items():
            done = {number for source, number in places if source == name}
            if loud:
                sys.stderr.write(f"{name}: {len(part)} pictures{f', {len(done)} of them done' if done else ''}\n")
            numbers = part.share(done, pictures, rank, world)
            journal.source = name
            evaluator.evaluate_asker(
                asker,
                Numbered(part, numbers),
                answers,
                progress=loud,
                sanity=not args.no_sanity,
                records=True,
                pictures=pictures,
                similarity=args.similarity,
                numbers=numbers,
                keep=journal.write,
            )
    if is_first():
        write_results(args, _about(args, answers, settings), home, parts, answers)
    return 0


def _check_same(parts: "dict[str, Part]", places: "dict[tuple[str, int], Place]") -> None:
    """Raises DataError when a sample that was asked before is another now."""
    for name, part in parts.items():
        part.check_same({number: place for (source, number), place in places.items() if source == name})


def _about(args: argparse.Namespace, answers: "tuple[Mode, ...]", settings: dict[str, Any]) -> dict[str, str]:
    """Facts of the whole evaluation, for its files."""
    import torch
    import transformers

    about = {
        "model": args.model or SHIPPED,
        "answers": "both" if len(answers) > 1 else answers[0],
        "seed": str(args.seed),
        "cores": settings["cores"],
        "protocol": args.protocol,
        "texts": args.texts,
        "weights": settings["weights"] or "not known",
        "pictures": str(settings["pictures"]),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    if args.limit:
        about["limit"] = f"the first {args.limit} pictures of each source"
    if args.quantize:
        about["quantize"] = args.quantize
    return about


def _settings(
    args: argparse.Namespace, answers: "tuple[Mode, ...]", pictures: int, sources: dict[str, int]
) -> dict[str, Any]:
    """All that an answer depends on: an unfinished evaluation goes on where they are the same."""
    from cores import __version__
    from cores.checkpoints.find import find
    from cores.checkpoints.load import as_device
    from cores.checkpoints.runs.fingerprint import fingerprint, settings_fingerprint
    from cores.words.load import is_words

    words = is_words(args.model)
    weights = None if words else fingerprint(find(args.model))
    return {
        "cores": __version__,
        "model": None if weights else args.model,
        "weights": weights,
        "model's settings": None if words else settings_fingerprint(find(args.model)),
        "sources": sources,
        "answers": list(answers),
        "protocol": args.protocol,
        "texts": args.texts,
        "pictures": pictures,
        "sanity": not args.no_sanity,
        "similarity": args.similarity,
        "max_new_tokens": args.max_new_tokens,
        "think": args.think,
        "seed": args.seed,
        "dtype": args.dtype,
        "quantize": args.quantize,
        "device": as_device(args.device).type,
    }


def _asker(args: argparse.Namespace, pictures: int) -> "Answerer[Any]":
    """Who answers about so many pictures together: a model, checked first, or a chain in words."""
    from cores.asking.asker import Asker
    from cores.asking.confidence import Confidence
    from cores.asking.prefixes import Prefixes
    from cores.checkpoints.checking import check_static
    from cores.checkpoints.find import find
    from cores.checkpoints.load import load
    from cores.words.load import is_words, load_words

    if is_words(args.model):
        if args.think:
            raise UserError("--think: a chain in words says what it says: leave it out")
        chain = load_words(args.model, args.device, args.dtype, args.seed, args.quantize)
        return chain if args.max_new_tokens is None else chain.saying(args.max_new_tokens)
    check_static(args.model)
    model, processor = load(args.model, args.device, args.dtype, quantize=args.quantize)
    kept = Prefixes(pictures)  # a picture's prefix is read once for both ways of answering
    confidence = Confidence.load(find(args.model))
    how: dict[str, Any] = {"prefixes": kept, "confidence": confidence, "think": args.think}
    return Asker(model, processor, args.seed, args.max_new_tokens, **how)


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _world() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _join() -> None:
    """Join the other processes of a launcher: they only wait for each other, however long that takes."""
    if _world() > 1:
        from datetime import timedelta

        import torch

        torch.distributed.init_process_group("gloo", timeout=timedelta(days=7))


def _own_device(device: str | None) -> str | None:
    """Of several processes on one machine each takes a device of its own."""
    import torch

    if _world() > 1 and device in (None, "cuda") and torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return device
