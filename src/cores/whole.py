"""Files and folders that appear whole or not at all, whatever ends the program that writes them.

Everything is written under a hidden name beside its place and moved there when it is done. What is left of a program
that was killed begins with a dot, says `.part-` and the number of its process, and is taken away by the next one.
"""

import errno
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cores.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FULL_WORDS = ("No space left", "File too large", "PytorchStreamWriter failed", "Disk quota")  # safetensors', torch's
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


def is_full(error: BaseException) -> bool:
    """Does an error mean that there is no room left? safetensors and torch raise errors of their own for it."""
    if isinstance(error, OSError):
        return error.errno in FULL
    return any(words in str(error) for words in FULL_WORDS)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file to write to; when the block ends well it takes its place at `path`, over what was there.

    The folder above must exist. When the block ends otherwise, `path` is as it was. Errors come out as they are;
    inside `writing` a full disk is a UserError.
    """
    part = _part_of(path)
    sweep(path)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path, replace: bool = False) -> Iterator[Path]:
    """A folder to write into; when the block ends well it takes its place at `folder` in one move.

    When it ends otherwise (error, full disk, Ctrl-C), `folder` is as it was and nothing is left behind. Raises
    UserError when it is there (without `replace`), cannot be written, or the disk is full.
    """
    folder = folder.resolve()
    sweep(folder)
    if folder.exists() and not replace:
        raise UserError(f"{folder} exists already: take another name, or say that it may be replaced")
    part = _part_of(folder)
    try:
        with writing(folder):
            part.mkdir(parents=True)
            yield part
            settle(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def whole_files(folder: Path) -> Iterator[Path]:
    """A folder to write files into; when the block ends well, they go to the existing `folder`, each of them whole.

    Files of the same names are replaced and others stay. When it ends otherwise, nothing of them is left behind.
    Raises UserError when they cannot be written.
    """
    part = folder / f".part-{os.getpid()}"
    _sweep_parts(folder)
    try:
        with writing(folder):
            part.mkdir()
            yield part
            for file in sorted(part.iterdir()):
                file.replace(folder / file.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Inside, `place` is written.

    Raises UserError, with its name, when the disk is full or the place may not be written; other errors pass.
    """
    try:
        yield
    except Exception as error:
        if is_full(error):
            raise UserError(f"{place}: the disk is full: free some space; nothing of it is half written") from error
        if isinstance(error, OSError) and error.errno in FORBIDDEN:
            raise UserError(f"{place}: cannot be written ({error.strerror}): take another place") from error
        raise


def open_to_others(folder: Path) -> None:
    """Give a folder's files the mode of any new file: safetensors writes its own for the owner alone."""
    usual = os.umask(0)
    os.umask(usual)
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(0o666 & ~usual)


def settle(part: Path, folder: Path) -> None:
    """Move a finished folder to its place, over what is there; its files get the mode of any new file."""
    open_to_others(part)
    old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def sweep(path: Path) -> None:
    """Clear up beside `path` after programs that are no longer there.

    What they were writing goes. What they had moved away comes back where they ended before the new was in its place.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.*-*"):
        kind, _, number = left.name.removeprefix(f".{path.name}.").removesuffix(path.suffix).rpartition("-")
        if kind not in ("part", "old") or not number.isdecimal() or _runs(int(number)):
            continue
        if kind == "old" and not path.exists():
            left.rename(path)
        elif left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink(missing_ok=True)


def _sweep_parts(folder: Path) -> None:
    """Clear up inside `folder` after programs that were writing files into it and are no longer there."""
    for left in folder.glob(".part-*"):
        number = left.name.rpartition("-")[2]
        mine = number == str(os.getpid())  # a program before this one had its number, as in a container
        if number.isdecimal() and (mine or not _runs(int(number))):
            shutil.rmtree(left, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _part_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.part-{os.getpid()}{path.suffix}")
