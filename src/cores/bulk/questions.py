"""What is asked, read from folders, manifests and Parquet files, with all questions about a picture together.

A row in is a picture and one query. Rows are counted through all inputs, in their order, from 0; a row out says which
row in it answers.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cores.data.formats.arrow_tables import table_errors
from cores.data.formats.json_files import check, decode, opened, parse, take, texts
from cores.data.formats.said_form import said_form
from cores.data.sample import Form
from cores.data.sources.base import named_file
from cores.errors import DataError, UserError

MANIFEST, TABLE = ".jsonl", ".parquet"
COLUMNS = ("query", "queries", "form")  # besides the image
ROWS = 4096  # of a table that are unpacked together


@dataclass(slots=True)
class Picture:
    """A picture and all that is asked about it.

    `image`: its name as the input says it; `file`: where it is; `place`: of a picture inside of a Parquet file, its
    row there; `queries`, and for each its `forms` (None: the input does not say) and the number of its row in.
    """

    image: str
    file: str
    place: int | None = None
    queries: list[str] = field(default_factory=list)
    forms: list[Form | None] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)

    @property
    def path(self) -> Path:
        """What files that are made of this picture are called after."""
        if self.place is None:
            return Path(self.file)
        table = Path(self.file)
        return Path(f"{table.stem}-{self.place:06}" if self.image == _unnamed(table, self.place) else self.image)


def is_list(path: str | Path) -> bool:
    """Is this a file or folder that lists pictures: a manifest, a Parquet file, a folder of Parquet files?"""
    path = Path(path)
    return (is_list_name(path) and path.is_file()) or bool(_tables(path))


def is_list_name(path: str | Path) -> bool:
    """Is a file of this name meant as a list of pictures?"""
    return Path(path).suffix.lower() in (MANIFEST, TABLE)


def read_pictures(named: Sequence[str | Path], queries: Sequence[str]) -> list[Picture]:
    """The pictures of all inputs, in the order of their first rows, each once.

    Args:
        named: pictures, manifests (JSON lines), Parquet files and folders of them. Relative names in a manifest or
            table are looked for beside it.
        queries: what is asked about pictures whose input says nothing of its own.

    Raises DataError that names the line or row which cannot be used; UserError when nothing is asked.
    """
    found: dict[str | tuple[str, int], Picture] = {}
    count = 0
    for listed, asked, form in _rows(named, queries):
        key = listed.file if listed.place is None else (listed.file, listed.place)
        picture = found.setdefault(key, listed)
        picture.queries += asked
        picture.forms += [form] * len(asked)
        picture.rows += range(count, count + len(asked))
        count += len(asked)
    if not found:
        raise UserError("there is nothing to ask: the inputs hold no picture")
    return list(found.values())


def _rows(named: Sequence[str | Path], queries: Sequence[str]) -> Iterator[tuple[Picture, Sequence[str], Form | None]]:
    """Of each line, row or picture: its picture, the queries, and the form that it says."""
    for path in map(Path, named):
        if not is_list(path):
            if not queries:
                raise UserError(f"{path}: what is asked about it? Say it in words, with --query or --queries")
            yield _in_file(check(str(path), str, "a picture's name"), Path()), queries, None
            continue
        for where, picture, entry in _listed(path):
            asked = _queries(entry, where) or queries
            if not asked:
                raise DataError(f"{where}: has neither query nor queries, and there is no --query for all")
            yield picture, asked, said_form(entry, where)


def _listed(path: Path) -> Iterator[tuple[str, Picture, dict[str, Any]]]:
    """Of each line or row: where it stands, its picture, and what else it says."""
    if path.suffix == MANIFEST:
        with opened(path) as file:
            for number, content in enumerate(file, 1):
                if content.strip():
                    where = f"{path}: line {number}"
                    entry = parse(decode(content, where), where)
                    yield where, _in_file(take(entry, "image", str, where), path.parent), entry
        return
    for table in _tables(path) or [path]:
        for number, (inside, entry) in enumerate(_read_table(table)):
            where = f"{table}: row {number}"
            if inside:
                name = (entry.get("image") or {}).get("path") or _unnamed(table, number)
                yield where, Picture(name, os.path.abspath(table), number), entry
            else:
                yield where, _in_file(take(entry, "image", str, where), table.parent), entry


def _in_file(image: str, folder: Path) -> Picture:
    """A picture in a file that is named from a folder."""
    return Picture(image, os.path.abspath(named_file(folder, image)))


def _unnamed(table: Path, number: int) -> str:
    """What a picture is called that is inside of a table and has no name; so does a source of Hugging Face's form."""
    return f"{table.name}: row {number}"


def _queries(entry: dict[str, Any], where: str) -> list[str]:
    """The queries of a line's own."""
    asked = entry.get("queries")
    found = [] if asked is None else texts(asked, f"{where}: queries")
    if entry.get("query") is not None:
        found = [*texts([entry["query"]], f"{where}: query"), *found]
    return found


def _tables(path: Path) -> list[Path]:
    """The Parquet files of a folder that holds such, by name."""
    return sorted(path.glob(f"[!.]*{TABLE}")) if path.is_dir() else []


def _read_table(path: Path) -> Iterator[tuple[bool, dict[str, Any]]]:
    """Each row, without the bytes of a picture, and whether its picture is inside of the table."""
    with table_errors(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        schema = file.schema_arrow
        if "image" not in schema.names:
            raise DataError(f"{path}: has no column image; there are {', '.join(schema.names)}")
        image = schema.field("image").type
        struct = pa.types.is_struct(image)  # Hugging Face's, of bytes and path
        inside = struct or pa.types.is_binary(image) or pa.types.is_large_binary(image)
        wanted = [name for name in COLUMNS if name in schema.names]
        if not inside:
            wanted.append("image")
        elif struct and "path" in {field.name for field in image if pa.types.is_string(field.type)}:
            wanted.append("image.path")
        if not wanted:
            yield from ((inside, {}) for _ in range(file.metadata.num_rows))
            return
        for batch in file.iter_batches(ROWS, columns=wanted):
            batch.validate(full=True)
            yield from ((inside, entry) for entry in batch.to_pylist())
