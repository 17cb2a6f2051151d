"""What is asked, read from folders, manifests and Parquet files, with all questions about a picture together.

A row in is a picture and one query. Rows are counted through all inputs, in their order, from 0; a row out says which
row in it answers.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from cores.data.formats.arrow_tables import table_errors
from cores.data.formats.json_files import check, decode, opened, parse, take, texts
from cores.data.sources.base import named_file
from cores.errors import DataError, UserError

MANIFEST, TABLE = ".jsonl", ".parquet"
COLUMNS = ("image", "query", "queries")
ROWS = 4096  # of a table that are unpacked together


@dataclass(slots=True)
class Picture:
    """A picture and all that is asked about it.

    `image`: its name as the input says it; `file`: where it is; `queries`, and for each the number of its row in.
    """

    image: str
    file: str
    queries: list[str] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)


def is_list(path: str | Path) -> bool:
    """Is this a file or folder that lists pictures: a manifest, a Parquet file, a folder of Parquet files?"""
    path = Path(path)
    return (is_list_name(path) and path.is_file()) or bool(_tables(path))


def is_list_name(path: str | Path) -> bool:
    """Is a file of this name meant as a list of pictures?"""
    return Path(path).suffix in (MANIFEST, TABLE)


def read_pictures(named: Sequence[str | Path], queries: Sequence[str]) -> list[Picture]:
    """The pictures of all inputs, in the order of their first rows, each once.

    Args:
        named: pictures, manifests (JSON lines), Parquet files and folders of them. Relative names in a manifest or
            table are looked for beside it.
        queries: what is asked about pictures whose input says nothing of its own.

    Raises DataError that names the line or row which cannot be used; UserError when nothing is asked.
    """
    found: dict[str, Picture] = {}
    count = 0
    for image, file, asked in _rows(named, queries):
        picture = found.setdefault(file, Picture(image, file))
        picture.queries += asked
        picture.rows += range(count, count + len(asked))
        count += len(asked)
    if not found:
        raise UserError("there is nothing to ask: the inputs hold no picture")
    return list(found.values())


def _rows(named: Sequence[str | Path], queries: Sequence[str]) -> Iterator[tuple[str, str, Sequence[str]]]:
    """Of each line, row or picture: its image's name, where that is, and its queries."""
    for path in map(Path, named):
        if not is_list(path):
            if not queries:
                raise UserError(f"{path}: what is asked about it? Say it in words, with --query or --queries")
            yield check(str(path), str, "a picture's name"), os.path.abspath(path), queries
            continue
        for where, image, own in _listed(path):
            asked = own if own else queries
            if not asked:
                raise DataError(f"{where}: has neither query nor queries, and there is no --query for all")
            folder = path if path.is_dir() else path.parent
            yield image, os.path.abspath(named_file(folder, image)), asked


def _listed(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Of each line or row: where it stands, the image's name, and the queries of its own."""
    if path.suffix == MANIFEST:
        with opened(path) as file:
            for number, content in enumerate(file, 1):
                if content.strip():
                    where = f"{path}: line {number}"
                    yield where, *_entry(parse(decode(content, where), where), where)
    else:
        for table in _tables(path) or [path]:
            for number, entry in enumerate(_read_table(table)):
                where = f"{table}: row {number}"
                yield where, *_entry(entry, where)


def _entry(entry: Any, where: str) -> tuple[str, list[str]]:
    image = take(entry, "image", str, where)
    asked = entry.get("queries")
    found = [] if asked is None else texts(asked, f"{where}: queries")
    if entry.get("query") is not None:
        found = [*texts([entry["query"]], f"{where}: query"), *found]
    return image, found


def _tables(path: Path) -> list[Path]:
    """The Parquet files of a folder that holds such, by name."""
    return sorted(path.glob(f"[!.]*{TABLE}")) if path.is_dir() else []


def _read_table(path: Path) -> Iterator[dict[str, Any]]:
    with table_errors(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        names = [name for name in COLUMNS if name in file.schema_arrow.names]
        if "image" not in names:
            raise DataError(f"{path}: has no column image; there are {', '.join(file.schema_arrow.names)}")
        for batch in file.iter_batches(ROWS, columns=names):
            batch.validate(full=True)
            yield from batch.to_pylist()
