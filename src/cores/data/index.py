"""What a source's annotation files hold, image by image, as an Arrow table on disk, mapped into memory.

It is built once and keyed by the content of the files: changed files make another. To find out whether they changed,
what the file system knows of them (size, times, and the inode and change time, which no copy can take along) and
blocks of their content are compared with those noted when they were last read; only then are they read again. Tables
lie in $CORES_CACHE, else ~/.cache/cores, and may be deleted at any time.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock
from numpy.typing import NDArray

from cores.cache import cache_folder
from cores.data.formats.json_files import opened
from cores.errors import DataError
from cores.whole import whole_file

log = logging.getLogger(__name__)
VERSION = 3  # of the tables; another one makes all of them anew
SCHEMA = pa.schema([("image", pa.string()), ("split", pa.string()), ("record", pa.binary())])
BATCH = 1024  # rows
SAMPLES, BLOCK = 5, 1 << 14  # places of a file that are looked at, and bytes at each
UNSETTLED = 2.0  # seconds in which a file may change again without its time telling


class Row(NamedTuple):
    """One image: its name as the annotations have it, its split, and a record of plain JSON values."""

    image: str
    split: str
    record: Any


class Index:
    """A table of rows, read from disk when asked for. Travels to other processes as its path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()

    def __reduce__(self) -> tuple[type["Index"], tuple[Path]]:
        return Index, (self.path,)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, i: int) -> Row:
        image, split, record = (self.table.column(name)[i].as_py() for name in SCHEMA.names)
        return Row(image, split, json.loads(record))

    def image(self, i: int) -> str:
        """The name of row i's image, as the annotations have it."""
        return str(self.table.column("image")[i].as_py())

    def split(self, i: int) -> str:
        """The split of row i."""
        return str(self.table.column("split")[i].as_py())

    def splits(self) -> list[str]:
        """The splits of all rows, each once, sorted."""
        return sorted(pc.unique(self.table.column("split")).to_pylist())

    def where(self, wanted: Callable[[str], bool]) -> NDArray[np.int64]:
        """The numbers (rows,) of the rows whose split is wanted, in order."""
        splits = pa.array([split for split in self.splits() if wanted(split)], pa.string())
        return np.flatnonzero(pc.is_in(self.table.column("split"), splits).to_numpy())


def open_index(kind: str, inputs: Sequence[Path], build: Callable[[], Iterable[Row]]) -> Index:
    """The index of these files or folders; built when there is none of their content. Args as `cached`.

    Raises DataError as `cached`, and when an image's name is no UTF-8.
    """
    return Index(cached(kind, inputs, lambda path: _write(path, build())))


def cached(kind: str, inputs: Sequence[Path], write: Callable[[Path], None]) -> Path:
    """The Arrow file of these files or folders; written when there is none of their content.

    Args: `kind`: who reads them, and all that changes what is read; `inputs`: files, by content, and folders, by the
    names in them. Raises DataError when an input is missing, no regular file or cannot be read, or the cache cannot be
    written; and what `write` raises.
    """
    missing = [str(path) for path in inputs if not path.exists()]
    if missing:
        raise DataError(f"{kind}: there is no {' and no '.join(missing)}")
    for path in inputs:
        if not path.is_dir():
            with opened(path):
                pass  # a pipe or device is refused before anything waits for it
    home = cache_folder("index")
    names = json.dumps([VERSION, kind, [str(path.resolve()) for path in inputs]])
    note = home / f"{hashlib.sha256(names.encode()).hexdigest()[:32]}.json"
    states = [_state(path) for path in inputs]
    noted = _read_note(note)
    if noted.get("states") == states and _whole(home / noted["table"]):
        return home / str(noted["table"])
    digest = hashlib.sha256(json.dumps([VERSION, kind]).encode())
    for path in inputs:
        digest.update(_content(path))
    table = home / f"{digest.hexdigest()[:32]}.arrow"
    with FileLock(table.with_suffix(".lock")):
        if not _whole(table):
            log.info("%s: reading %s, once", kind, ", ".join(map(str, inputs)))
            with whole_file(table) as part:
                write(part)
    if max(max(path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in inputs) < (time.time() - UNSETTLED) * 1e9:
        with whole_file(note) as part:
            part.write_text(json.dumps({"states": states, "table": table.name}), "utf-8")
    return table


def _read_note(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("table"), str) else {}


def _whole(path: Path) -> bool:
    """Is there an Arrow file, written to its end?"""
    try:
        pa.ipc.open_file(pa.memory_map(str(path)))
    except FileNotFoundError:
        return False
    except (pa.ArrowInvalid, OSError):
        log.warning("%s: is damaged and is made anew", path)
        return False
    return True


def _state(path: Path) -> list[Any]:
    """What is cheap to know of a file or folder, and changes with its content. Raises DataError."""
    try:
        state = path.stat()
        found = [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino, state.st_dev]
        if path.is_dir():
            return found
        digest = hashlib.sha256()
        with path.open("rb") as file:
            for number in range(SAMPLES):
                file.seek(max(0, state.st_size - BLOCK) * number // (SAMPLES - 1))
                digest.update(file.read(BLOCK))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return [*found, digest.hexdigest()]


def _content(path: Path) -> bytes:
    """A digest of a file, or of the names in a folder. Raises DataError."""
    try:
        if path.is_file():
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
        names = sorted(entry.name for entry in os.scandir(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).digest()


def _write(path: Path, rows: Iterable[Row]) -> None:
    with pa.ipc.new_file(str(path), SCHEMA) as writer:
        for batch in _batches(rows):
            images, splits, records = zip(*batch, strict=True)
            dumped = [json.dumps(record, separators=(",", ":")).encode() for record in records]
            try:
                columns = [pa.array(images), pa.array(splits), pa.array(dumped)]
            except UnicodeEncodeError as error:  # a file's name may be any bytes
                raise DataError(f"{error.object!r}: is no name in UTF-8: rename the file") from None
            writer.write_batch(pa.record_batch(columns, schema=SCHEMA))


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    batch = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
