"""Flags that every verb with a model has, and result folders: taken at once, their files whole or not there."""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cores.errors import UserError
from cores.whole import writing

DTYPES = ("float32", "bfloat16", "float16")
BITS = ("8bit", "4bit")  # as `cores.load` takes them


def model_options(parser: argparse.ArgumentParser) -> None:
    """Add `--device --dtype --seed --quiet`."""
    parser.add_argument("--device", help="where the model runs: cpu, cuda, cuda:1 (default: cuda where there is one)")
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights (default: the checkpoint's; float32 on a CPU)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same numbers (default: 0)")
    parser.add_argument("--quiet", action="store_true", help="no progress, only results and errors")


def asked_model_options(parser: argparse.ArgumentParser) -> None:
    """Add what a verb has that asks a model: `--base --quantize` and those of `model_options`."""
    base_option(parser, "of a run: ")
    parser.add_argument(
        "--quantize", choices=BITS, help="the language model's layers in so few bits, on CUDA (cores[qlora])"
    )
    model_options(parser)


ROLES = ("start", "bases", "mllm", "segmenter")


def base_option(parser: argparse.ArgumentParser, when: str = "") -> None:
    """Add `--base ROLE=PATH`, as often as wanted; `places_of` reads it."""
    parser.add_argument(
        "--base",
        action="append",
        default=[],
        metavar="ROLE=PATH",
        help=f"{when}where a run's base is now ({', '.join(ROLES)}); its weights must be the same",
    )


def places_of(given: Sequence[str]) -> dict[str, str]:
    """Paths by role of ROLE=PATH. Raises UserError for what is none."""
    places = {}
    for text in given:
        role, _, path = text.partition("=")
        if role not in ROLES or not path:
            raise UserError(f"--base {text}: expected ROLE=PATH, where ROLE is one of {', '.join(ROLES)}")
        places[role] = path
    return places


def check_device(args: argparse.Namespace) -> None:
    """Raise UserError when there is no device as `--device` says, or none for `--quantize`. Imports torch."""
    from cores.checkpoints.load import as_device
    from cores.modeling.quantizing import refuse_bits

    refuse_bits(args.quantize, as_device(args.device))


def check_out(out: Path, overwrite: bool) -> None:
    """Raise UserError when the folder may not be written to: it is there (without `overwrite`), or it is a file."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file, expected a folder: take another")
    if out.exists() and not overwrite:
        raise UserError(f"--out {out}: exists already: take another, or add --overwrite to replace what it holds")


@contextmanager
def taken_folder(out: Path, overwrite: bool, numbered: bool = False) -> Iterator[Path]:
    """`--out`, taken from here on: another command that wants it without `overwrite` is refused. Gives its path.

    `numbered`: OUT-2, OUT-3, ... where it is there. When the block ends with nothing in a folder that was made here,
    it is gone again, with the parents made for it. Raises UserError when it may not or cannot be written.
    """
    name, made = out.name, [folder for folder in (out, *out.parents) if not folder.exists()]  # innermost first
    for number in itertools.count(2):
        if not numbered:
            check_out(out, overwrite)
        try:
            with writing(out):
                out.mkdir(parents=True, exist_ok=overwrite)
            break
        except FileExistsError:  # without `numbered` another command made it since the check, which now says so
            if dead := next(
                (folder for folder in (out, *out.parents) if folder.is_symlink() and not folder.exists()), None
            ):
                raise UserError(f"--out {out}: {dead} is a link to what is not there: take another") from None
            if numbered:
                out = out.with_name(f"{name}-{number}")
                made = [out]
    try:
        yield out
    finally:
        with suppress(OSError):  # not empty, or somebody's by now: the rest of them exists then, too
            for folder in made:
                folder.rmdir()
