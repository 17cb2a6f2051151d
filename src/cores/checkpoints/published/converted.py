"""A published checkpoint wherever a model is named: converted once, into the cache, and taken from there.

What the cache holds of a source that changed or is gone stays until somebody deletes it: another process may use it.
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cores.cache import cache_folder
from cores.checkpoints.configs import CONFIG, read_json
from cores.checkpoints.published.recognising import chain_of, way_in
from cores.errors import CheckpointError
from cores.hub import fetch

VERSION = 1  # of what a conversion writes: another one is made anew
TOWERS = ("mm_vision_tower", "vision_tower")  # fields of a published config that name its CLIP


def as_ours(folder: Path) -> Path:
    """The folder itself, or, of a CoReS or LISA as its program wrote it, that of the model which it was made into.

    The first time it is converted, which takes minutes for billions of weights and is said on stderr; a second process
    waits for the first. It is made anew when a file has changed. Raises CheckpointError when its CLIP cannot be had or
    it cannot be converted; UserError when the cache cannot be written.
    """
    if not (folder / CONFIG).is_file():
        return folder
    stored = read_json(folder / CONFIG, "a model's config")
    kind = chain_of(folder, stored)
    if kind is None:
        return folder
    home = cache_folder("converted")
    name = name_of(folder)
    tower = next((str(stored[field]) for field in TOWERS if stored.get(field)), None)
    place = home / f"{name.replace('/', '--')}-{state_of(folder, tower)[:16]}"
    lock = FileLock(f"{place}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        _say(f"{name}: waits for another process that converts it")
        lock.acquire()
    try:
        if not place.is_dir():
            _convert(kind, name, folder, tower, stored, place)
    finally:
        lock.release()
    return place


def name_of(folder: Path) -> str:
    """A folder's own name; of a snapshot in the hub's cache, the repository's: owner/name."""
    if not _is_snapshot(folder):
        return folder.name
    return folder.parent.parent.name.removeprefix("models--").replace("--", "/")


def state_of(folder: Path, tower: str | None = None) -> str:
    """A digest that changes when a file of the folder or its CLIP does: by the revision of a hub's snapshot; else by
    name, size and times."""
    said: list[Any] = [VERSION]
    if _is_snapshot(folder):
        said += [name_of(folder), folder.name]
    else:
        said += _files(folder)
    if tower is not None:
        said += _files(Path(tower)) if Path(tower).is_dir() else [tower]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _files(folder: Path) -> list[Any]:
    """What changes with a folder's files. A copy may keep the time of writing, never that of its last change."""
    states = [(file.name, file.stat()) for file in sorted(folder.iterdir()) if file.is_file()]
    return [str(folder.resolve()), *((name, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for name, s in states)]


def _is_snapshot(folder: Path) -> bool:
    return folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--")


def _convert(kind: str, name: str, folder: Path, tower: str | None, stored: Mapping[str, Any], place: Path) -> None:
    from cores.checkpoints.published.conversion import convert  # which loads models, and so needs this module

    try:
        if tower is None:
            raise CheckpointError("its config names none")
        clip = fetch(tower)
    except CheckpointError as error:
        told = f"{name}: is a published {kind} checkpoint, and its CLIP cannot be had ({error})"
        raise CheckpointError(f"{told}: {way_in(folder, stored)}") from None
    _say(f"{name}: is a published {kind} checkpoint; it is converted, once, into {place}")
    convert(kind, folder, clip, place, quiet=not sys.stderr.isatty())


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
