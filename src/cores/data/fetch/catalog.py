"""The catalogue of data sets that can be downloaded: addresses, checksums, licences, and where the files belong."""

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from cores.data.formats.json_files import read_json, take
from cores.errors import DataError
from cores.typed_yaml import nearest


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file to fetch. `into`: its path below the data directory; or, of an archive, {a member's beginning: the
    beginning it gets there}, members that begin otherwise being left out. `md5`, `sha256`, `size`: None when unknown.
    """

    url: str
    into: str | dict[str, str]
    md5: str | None = None
    sha256: str | None = None
    size: int | None = None
    gigabytes: float | None = None

    @property
    def name(self) -> str:
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
    """The catalogue by name; the one that comes with cores unless another is given. Raises DataError."""
    if path is None:
        content: Any = json.loads((resources.files("cores.data.fetch") / "catalog.json").read_text("utf-8"))
    else:
        content = read_json(path)
    found = {}
    for name, value in content.items():
        if name == "about":
            continue
        where = f"{path or 'catalog.json'}: {name}"
        try:
            files = tuple(RemoteFile(**one) for one in take(value, "files", list, where))
            found[name] = Entry(name, files=files, **{k: v for k, v in value.items() if k != "files"})
        except TypeError as error:
            raise DataError(f"{where}: {error}") from None
    return found


def entries(names: list[str], catalog: dict[str, Entry]) -> list[Entry]:
    """The entries of these names. Raises DataError for one that is not there."""
    for name in names:
        if name not in catalog:
            raise DataError(f"{name}: is not in the catalogue{nearest(name, catalog)}")
    return [catalog[name] for name in dict.fromkeys(names)]
