"""The catalogue of data sets that can be downloaded: addresses, checksums, licences, and where the files belong."""

import json
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from cores.data.formats.json_files import check, maybe, read_json, short, take
from cores.errors import DataError
from cores.typed_yaml import nearest


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file to fetch. `into`: its path below the data directory; or, of an archive, {a member's beginning: the
    beginning it gets there}, members that begin otherwise being left out. `md5`, `sha256`, `size` in bytes: None when
    unknown. `gigabytes`: about how large it is, to be shown.
    """

    url: str
    into: str | dict[str, str]
    md5: str | None = None
    sha256: str | None = None
    size: int | None = None
    gigabytes: float | None = None

    @property
    def name(self) -> str:
        """What the file is called: the last part of its address."""
        return self.url.rstrip("/").rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Entry:
    """A data set. `by_hand`: what a person has to do, where no program may."""

    name: str
    title: str
    license: str
    files: tuple[RemoteFile, ...]
    by_hand: str | None = None


def read_catalog(path: Path | None = None) -> dict[str, Entry]:
    """The catalogue by name; the one that comes with cores unless another is given.

    Raises DataError when it cannot be read, or a field is missing, unknown or of another type.
    """
    if path is None:
        content: Any = json.loads((resources.files("cores.data.fetch") / "catalog.json").read_text("utf-8"))
    else:
        content = read_json(path)
    where = str(path or "catalog.json")
    found = {}
    for name, value in check(content, dict, where).items():
        if name != "about":
            found[name] = _entry(name, value, f"{where}: {name}")
    return found


def _entry(name: str, value: Any, where: str) -> Entry:
    files = [_remote(one, f"{where}: files: {number}") for number, one in enumerate(take(value, "files", list, where))]
    texts = {key: take(value, key, str, where) for key in ("title", "license")}
    _only(value, {"files", "by_hand", *texts}, where)
    return Entry(name, files=tuple(files), by_hand=maybe(value, "by_hand", str, where), **texts)


def _remote(value: Any, where: str) -> RemoteFile:
    url, into = take(value, "url", str, where), take(value, "into", object, where)
    _only(value, {field.name for field in fields(RemoteFile)}, where)
    if isinstance(into, dict):
        for begin, place in into.items():
            check(place, str, f"{where}: into: {begin}")
    elif not isinstance(into, str):
        raise DataError(f"{where}: into: found {short(into)}, expected a path, or an object of beginnings")
    file = RemoteFile(
        url,
        into,
        md5=maybe(value, "md5", str, where),
        sha256=maybe(value, "sha256", str, where),
        size=maybe(value, "size", int, where),
        gigabytes=maybe(value, "gigabytes", float, where),
    )
    if not file.name.strip("."):
        raise DataError(f"{where}: url: found {short(url)}, which names no file")
    return file


def _only(value: dict[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(set(value) - known)
    if unknown:
        raise DataError(f"{where}: there is no field {', '.join(unknown)}; there are {', '.join(sorted(known))}")


def entries(names: list[str], catalog: dict[str, Entry]) -> list[Entry]:
    """The entries of these names. Raises DataError for one that is not there."""
    for name in names:
        if name not in catalog:
            raise DataError(f"{name}: is not in the catalogue{nearest(name, catalog)}")
    return [catalog[name] for name in dict.fromkeys(names)]
