"""`cores predict --engine ray INPUT... [QUERY]`: a row out for every row in, by many workers, through any kill."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from math import ceil
from os.path import exists
from pathlib import Path
from typing import TYPE_CHECKING

from cores import __version__
from cores.cli.asking import asking_parser, say_what_is_shipped
from cores.cli.inputs import find_pictures, read_queries
from cores.cli.options import check_device, places_of
from cores.cli.terminal import printable
from cores.errors import UserError
from cores.prompts.forms import refuse_half_characters

if TYPE_CHECKING:
    from tqdm import tqdm

    from cores.bulk.plan import Part, Settings
    from cores.bulk.questions import Picture
    from cores.bulk.worker import Loading

BATCH = 8
PART, PARTS = 256, 64  # pictures a part at most, and how many parts there are of few pictures


def main(argv: list[str]) -> int:
    """Run `cores predict --engine ray`. Gives the exit code.

    Raises UserError for flags and inputs that cannot be used, CheckpointError for a model.
    """
    args, named, queries = _parsed(argv)
    from cores.bulk.engine import run, share, started
    from cores.bulk.plan import held, left_to_do, part_file, prepare
    from cores.bulk.rows import tally

    pictures = _pictures(named, queries)
    loading, settings = _loading(args), _settings(args, pictures)
    with held(args.out) as home:
        parts = prepare(home, pictures, settings, args.overwrite)
        del pictures  # there may be millions
        todo = left_to_do(home, parts, settings)
        with _bar(args, parts, todo) as bar:
            if todo:
                errors = 0
                with started(args.address):
                    for done in run(todo, share(args.workers, args.device), home, settings, loading):
                        bar.update(parts[done.number].pictures)
                        errors += done.errors
                        bar.set_postfix(errors=errors, refresh=False)
        found = sum((tally(part_file(home, part.number, settings)) for part in parts), Counter[str]())
    what = ", ".join(f"{count} {status}" for status, count in sorted(found.items()))
    sys.stdout.write(printable(f"{found.total()} rows in {args.out}: {what}") + "\n")
    say_what_is_shipped(args)
    return 0


def _bar(args: argparse.Namespace, parts: "Sequence[Part]", todo: "Sequence[Part]") -> "tqdm[int]":
    """Progress in pictures, with the time left; those of an earlier run do not count for the pace."""
    from tqdm import tqdm

    total = sum(part.pictures for part in parts)
    done = total - sum(part.pictures for part in todo)
    return tqdm(total=total, initial=done, desc="asking", unit="img", disable=args.quiet, smoothing=0.05)


def _parsed(argv: list[str]) -> tuple[argparse.Namespace, list[str], list[str]]:
    """The flags, the inputs and the queries. Raises UserError, and SystemExit as argparse does."""
    parser = asking_parser(
        "predict --engine ray",
        description="Ask about very many pictures: by several workers, on one machine or a cluster.",
        epilog="INPUT is a picture, a folder of pictures, a pattern, or a list: a manifest (JSON lines of image and "
        "query or queries), a Parquet file with such columns, a folder of Parquet files. --out gets a row for every "
        "picture and query: part-000000.jsonl, ... Killed and started again by the same command, it goes on. A "
        "picture that cannot be read has a row that says so (--skip-bad is always on).",
    )
    parser.usage = (
        "cores predict --engine ray INPUT... [QUERY] --out FOLDER [options]\n"
        "       cores predict --engine ray INPUT... [--query QUERY]... [--queries FILE] --out FOLDER [options]"
    )
    parser.add_argument("--engine", choices=("ray",), required=True, help="Ray Data: pip install 'cores[ray]'")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; all machines must see it")
    parser.add_argument("--format", choices=("jsonl", "parquet"), default="jsonl", help="of the rows (default: jsonl)")
    parser.add_argument("--address", help="of a Ray cluster, such as 10.0.0.1:6379 (default: this machine alone)")
    parser.add_argument(
        "--workers",
        type=int,
        help="models that answer at a time (default: one a GPU; without any, one a machine)",
    )
    parser.add_argument("--batch", type=int, default=BATCH, help=f"pictures asked together (default: {BATCH})")
    parser.add_argument("--part", type=int, help=f"pictures a file (default: {PART}, of few pictures less)")
    from cores.bulk.questions import is_list, is_list_name

    args = parser.parse_intermixed_args(argv)
    for flag in ("workers", "batch", "part", "max_new_tokens"):
        if getattr(args, flag) is not None and getattr(args, flag) < 1:
            raise UserError(f"--{flag.replace('_', '-')} {getattr(args, flag)}: expected a number from 1")
    named, queries = list(args.images), list(args.query)
    if args.queries is not None and is_list(args.queries):
        named.append(str(args.queries))
    elif args.queries is not None:
        queries += read_queries(args.queries)
    if not named:
        parser.error("INPUT is missing: name pictures, a folder, a manifest or a Parquet file")
    for name in named:
        if is_list_name(name) and not Path(name).exists():
            raise UserError(f"{name}: there is no such file")
    if not queries and len(named) > 1 and not exists(named[-1]):  # a long query can be no name
        queries = [named.pop()]
    if args.device not in (None, "cpu", "cuda"):
        raise UserError(f"--device {args.device}: expected cpu or cuda; which GPU a worker has is for Ray to say")
    if args.quantize and (args.device == "cpu" or args.address is None):  # of a cluster its workers know
        check_device(args)
    for query in queries:
        refuse_half_characters(query)
    if any(not query.strip() for query in queries):
        raise UserError('QUERY is empty: ask for something in words, such as "the handle of the cup"')
    return args, named, queries


def _pictures(named: Sequence[str], queries: Sequence[str]) -> "list[Picture]":
    from cores.bulk.questions import is_list, read_pictures

    inputs: list[str | Path] = []
    for name in named:
        inputs += [name] if is_list(name) else find_pictures([name])
    return read_pictures(inputs, queries)


def _loading(args: argparse.Namespace) -> "Loading":
    """What the workers load, checked first. Raises CheckpointError and UserError."""
    from cores.bulk.worker import Loading
    from cores.checkpoints.checking import check_static
    from cores.checkpoints.find import find
    from cores.checkpoints.runs.origin import moved
    from cores.words.load import is_words

    places, model = places_of(args.base), args.model
    if not is_words(model):
        with moved(places):
            check_static(model)
        if model is not None and Path(model).exists():
            model = str(find(model).resolve())  # of a run that trains on, its best checkpoint may change meanwhile
    return Loading(model, args.device, places)


def _settings(args: argparse.Namespace, pictures: "Sequence[Picture]") -> "Settings":
    from cores.bulk.plan import Settings, digest
    from cores.checkpoints.find import find
    from cores.checkpoints.runs.fingerprint import fingerprint
    from cores.words.load import is_words

    words = is_words(args.model)
    part = min(PART, ceil(len(pictures) / PARTS))
    return Settings(
        cores=__version__,
        questions=digest(pictures),
        model=args.model if words else None,
        weights=None if words else fingerprint(find(args.model)),
        format=args.format,
        batch=args.batch,
        part=args.part or ceil(part / args.batch) * args.batch,
        dtype=args.dtype,
        seed=args.seed,
        form=args.form,
        max_new_tokens=args.max_new_tokens,
        quantize=args.quantize,
    )
