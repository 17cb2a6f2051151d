"""Folders that are written whole or not at all."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cores.errors import CheckpointError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FULL_WORDS = ("No space left", "File too large", "PytorchStreamWriter failed", "Disk quota")  # safetensors', torch's


@contextmanager
def new_folder(folder: Path, replace: bool = False) -> Iterator[Path]:
    """A folder to write into; when the block ends well it becomes `folder` in one move, else nothing is left of it.

    Raises CheckpointError when `folder` is there and `replace` is False, and when the disk is full.
    """
    folder = folder.resolve()
    if folder.exists() and not replace:
        raise CheckpointError(f"{folder} exists already: take another name, or say that it may be replaced")
    part = folder.with_name(f".{folder.name}.part-{os.getpid()}")
    try:
        part.mkdir(parents=True)
        yield part
        open_to_others(part)
        settle(part, folder)
    except Exception as error:
        if is_full(error):
            raise CheckpointError(f"{folder}: the disk is full; nothing was kept of it: free some space") from error
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def open_to_others(folder: Path) -> None:
    """Give a folder's files the mode that any new file has here: safetensors writes its own for the owner alone."""
    usual = os.umask(0)
    os.umask(usual)
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(0o666 & ~usual)


def settle(part: Path, folder: Path) -> None:
    """Move a finished folder to its place, over what is there."""
    old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def is_full(error: BaseException) -> bool:
    """Does an error mean that there is no room left? safetensors and torch raise errors of their own for it."""
    if isinstance(error, OSError):
        return error.errno in FULL
    return any(words in str(error) for words in FULL_WORDS)
