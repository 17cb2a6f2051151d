"""Flags that every verb with a model has, and folders that are written whole or not at all."""

import argparse
import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cores.checkpoints.folder import FULL
from cores.errors import UserError

DTYPES = ("float32", "bfloat16", "float16")
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


def model_options(parser: argparse.ArgumentParser) -> None:
    """Add `--device --dtype --seed --quiet`."""
    parser.add_argument("--device", help="where the model runs: cpu, cuda, cuda:1 (default: cuda where there is one)")
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights (default: the checkpoint's; float32 on a CPU)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same numbers (default: 0)")
    parser.add_argument("--quiet", action="store_true", help="no progress, only results and errors")


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


def check_device(name: str | None) -> None:
    """Raise UserError when there is no such device. Imports torch."""
    import torch

    try:
        torch.empty(0, device=name or "cpu")
    except (RuntimeError, AssertionError) as error:  # torch's ways of saying so
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name}: cannot be used here: {reason}") from None


def check_out(out: Path, overwrite: bool) -> None:
    """Raise UserError when the folder may not be written to: it is there (without `overwrite`), or it is a file."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file, expected a folder: take another")
    if out.exists() and not overwrite:
        raise UserError(f"--out {out}: exists already: take another, or add --overwrite to replace what it holds")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder to write into; when the block ends well, what it holds goes to `out` in one move.

    When it ends otherwise (error, full disk, Ctrl-C), `out` is as it was and nothing is left behind. In a folder that
    is already there, files of the same names are replaced and others stay. Raises UserError when it cannot be written.
    """
    out = out.resolve()
    made = [folder for folder in out.parents if not folder.exists()]  # from the innermost outwards
    part = out.parent / f".{out.name}.part-{os.getpid()}"
    try:
        part.mkdir(parents=True)
        yield part
        if not out.exists():
            part.rename(out)
        else:
            for file in part.iterdir():
                file.replace(out / file.name)
    except OSError as error:
        if error.errno in FULL:
            raise UserError(f"--out {out}: the disk is full; nothing was written, free some space") from error
        if error.errno in FORBIDDEN:
            raise UserError(f"--out {out}: cannot be written ({error.strerror}): take another folder") from error
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if not out.exists():
            with suppress(OSError):  # the rest of them does not exist either, or is somebody's by now
                for folder in made:
                    folder.rmdir()
