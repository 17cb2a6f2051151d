"""Archives unpacked into their places, and never anywhere else."""

import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from cores.errors import DataError


class Member(NamedTuple):
    """A file in an archive: its name there, its size in bytes, and how to read it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, home: Path, into: dict[str, str], progress: Callable[[int], object]) -> int:
    """Unpack a zip or tar file below `home`; gives how many files were written.

    Args: `into`: {a member's beginning: the beginning it gets}; `progress` is told the bytes of every file.
    Raises DataError when a member would be written outside of `home` or is a link or a device, before anything is
    written; and when nothing in the archive belongs anywhere.
    """
    try:
        with _opened(archive) as members:
            return _unpack(list(members), archive, home, into, progress)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{archive}: is damaged or no archive that can be read ({error})") from None


def _unpack(
    members: list[Member], archive: Path, home: Path, into: dict[str, str], progress: Callable[[int], object]
) -> int:
    home = home.resolve()
    places = []
    for member in members:
        _check_name(member.name, archive)
        begin = next((begin for begin in into if member.name.startswith(begin)), None)
        if begin is None:
            continue
        place = (home / f"{into[begin]}{member.name[len(begin) :]}").resolve()
        if not place.is_relative_to(home):  # by way of a link that is there already
            raise DataError(f"{archive}: {member.name} would be written to {place}, outside of {home}: refused")
        places.append((member, place))
    if not places:
        raise DataError(f"{archive}: nothing in it begins with {', '.join(into)}: it is not what the catalogue says")
    need, free = sum(member.size for member, _ in places), shutil.disk_usage(home).free
    if need > free:
        raise DataError(f"{home}: {need / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free")
    for member, place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f".{place.name}.part")
        try:
            with member.open() as source, part.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            part.replace(place)
        finally:
            part.unlink(missing_ok=True)
        progress(member.size)
    return len(places)


def _check_name(name: str, archive: Path) -> None:
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in "".join(parts.parts[:1]):
        raise DataError(f"{archive}: {name} would be written outside of its folder: refused")


@contextmanager
def _opened(path: Path) -> Iterator[Iterator[Member]]:
    """The files of an archive. Raises DataError for links and devices."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            yield _in_zip(file, path)
    else:
        with tarfile.open(path) as tar:
            yield _in_tar(tar, path)


def _in_zip(file: zipfile.ZipFile, path: Path) -> Iterator[Member]:
    for info in file.infolist():
        if stat.S_ISLNK(info.external_attr >> 16):
            raise DataError(f"{path}: {info.filename} is a link: refused")
        if not info.is_dir():
            yield Member(info.filename, info.file_size, partial(file.open, info))


def _in_tar(file: tarfile.TarFile, path: Path) -> Iterator[Member]:
    for info in file:
        if not (info.isfile() or info.isdir()):
            raise DataError(f"{path}: {info.name} is a link or a device: refused")
        if info.isfile():
            yield Member(info.name, info.size, partial(_extract, file, info))


def _extract(file: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    found = file.extractfile(info)
    assert found is not None, "it is a file"
    return found
