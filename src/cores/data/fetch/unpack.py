"""Archives unpacked into their places, and never anywhere else."""

import bz2
import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, cast

from cores.data.formats.json_files import short
from cores.errors import CoresError, DataError
from cores.regular_files import open_regular
from cores.whole import FULL

BLOCK = 1 << 20
HEADER = 1 << 24  # bytes; no header of a member is longer
COMPRESSED: dict[bytes, Callable[[BufferedReader], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}


class Member(NamedTuple):
    """A file in an archive: its name there, its size in bytes, and how to read it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, home: Path, into: dict[str, str], progress: Callable[[int], object]) -> int:
    """Unpack a zip or tar file below `home`; gives how many files were written.

    Args: `into`: {a member's beginning: the beginning it gets}; `progress` is told the bytes of every file.
    Raises DataError when a member would be written outside of `home` or is a link or a device, when nothing in the
    archive belongs anywhere, and when there is no room for it, before anything is written; and when it is damaged.
    """
    try:
        with _opened(archive) as members:
            return _unpack(list(members), archive, home, into, progress)
    except CoresError:
        raise
    except Exception as error:  # zipfile, tarfile and what they decompress with raise whatever Python has
        if isinstance(error, OSError) and (error.errno in FULL or isinstance(error, PermissionError)):
            raise
        what = str(error)[:200] or type(error).__name__
        raise DataError(f"{archive}: is damaged or no archive that can be read ({what}): fetch it again") from None


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
            raise DataError(f"{archive}: {short(member.name)} would be written to {place}, outside of {home}: refused")
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
                shutil.copyfileobj(source, target, BLOCK)
            part.replace(place)
        finally:
            part.unlink(missing_ok=True)
        progress(member.size)
    return len(places)


def _check_name(name: str, archive: Path) -> None:
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in "".join(parts.parts[:1]):
        raise DataError(f"{archive}: {short(name)} would be written outside of its folder: refused")


@contextmanager
def _opened(path: Path) -> Iterator[Iterator[Member]]:
    """The files of an archive. Raises DataError for links and devices."""
    with open_regular(path) as file:
        begin = file.read(8)
        file.seek(0)
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as zipped:
                yield _in_zip(zipped, path)
            return
        file.seek(0)
        opener = next((opener for magic, opener in COMPRESSED.items() if begin.startswith(magic)), None)
        content = file if opener is None else opener(file)
        with content, tarfile.open(fileobj=cast(IO[bytes], _Bounded(content)), mode="r:") as tar:
            yield _in_tar(tar, path)


class _Bounded:
    """An unpacked tar file of which no more is read at once than a block: a header may say that it is as long as the
    disk."""

    def __init__(self, file: IO[bytes]) -> None:
        self.tell, self.seek, self._read = file.tell, file.seek, file.read

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= HEADER:
            raise DataError(f"a header says that it is {size} bytes long: it is no archive that can be read")
        return self._read(size)


def _in_zip(file: zipfile.ZipFile, path: Path) -> Iterator[Member]:
    for info in file.infolist():
        if stat.S_ISLNK(info.external_attr >> 16):
            raise DataError(f"{path}: {short(info.filename)} is a link: refused")
        if not info.is_dir():
            yield Member(info.filename, info.file_size, partial(file.open, info))


def _in_tar(file: tarfile.TarFile, path: Path) -> Iterator[Member]:
    """The members, and then the rest of the stream: a compressed one says at its very end whether it was whole."""
    for info in file:
        if info.size < 0:
            raise DataError(f"{path}: {short(info.name)} is {info.size} bytes long: refused")
        if not (info.isfile() or info.isdir()):
            raise DataError(f"{path}: {short(info.name)} is a link or a device: refused")
        if info.isfile():
            yield Member(info.name, info.size, partial(_extract, file, info))
    stream: Any = file.fileobj
    stream.seek(file.offset)
    if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile takes a damaged header for the end
        raise tarfile.ReadError("a member has a damaged header")
    while stream.read(BLOCK):
        pass


def _extract(file: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    found = file.extractfile(info)
    assert found is not None, "it is a file"
    return found
