"""Folders of pictures with a `metadata.jsonl`, as `datasets` reads them ("imagefolder"), as a table of names.

A line is an object: `file_name`, a text, and `mask_file_name`, the name of a picture, or `mask_file_names`, a list of
them; null where the thing is not there.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from cores.data.bad import Faults
from cores.data.formats.json_files import check, maybe, parse, short, take, texts
from cores.data.index import cached
from cores.errors import DataError
from cores.regular_files import open_regular

MASKS = ("mask_file_name", "mask_file_names", "masks_file_name", "masks_file_names", "mask", "masks")
SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("text", pa.list_(pa.string())),
        ("mask", pa.list_(pa.string())),
        ("is_sentence", pa.bool_()),
    ]
)


def read_metadata(path: Path, text_names: tuple[str, ...]) -> pa.Table:
    """The table (image, text, mask, is_sentence) of the lines. Raises DataError that names the line."""
    table = cached("picture folder", [path], partial(_write, path, text_names))
    return pa.ipc.open_file(pa.memory_map(str(table))).read_all()


def _write(path: Path, text_names: tuple[str, ...], table: Path) -> None:
    rows = pa.Table.from_pylist(list(_rows(path, text_names)), SCHEMA)
    with pa.ipc.new_file(str(table), SCHEMA) as writer:
        writer.write_table(rows)


def _rows(path: Path, text_names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    faults = Faults()
    with open_regular(path) as file:
        for number, content in enumerate(file, start=1):
            if content.strip():
                with faults.gathered():
                    yield _row(content, text_names, f"{path}: line {number}")
    faults.tell()


def _row(content: bytes, text_names: tuple[str, ...], where: str) -> dict[str, Any]:
    line = check(parse(content, where), dict, where)
    return {
        "image": take(line, "file_name", str, where),
        "text": _text(line, text_names, where),
        "mask": _mask(line, where),
        "is_sentence": maybe(line, "is_sentence", bool, where),
    }


def _text(line: dict[str, Any], names: tuple[str, ...], where: str) -> list[str]:
    name = next((name for name in names if name in line), None)
    if name is None:
        raise DataError(f"{where}: has none of the fields {', '.join(names)}; there are {', '.join(line)}")
    return texts([line[name]] if isinstance(line[name], str) else line[name], f"{where}: {name}")


def _mask(line: dict[str, Any], where: str) -> list[str] | None:
    names = [name for name in MASKS if name in line]
    if len(names) != 1:
        raise DataError(f"{where}: expected one of the fields {', '.join(MASKS)}; there are {', '.join(line)}")
    value = line[names[0]]
    if value is None:
        return None
    if not value:
        raise DataError(f"{where}: {names[0]}: found {short(value)}; for what is not there say null")
    return texts([value] if isinstance(value, str) else value, f"{where}: {names[0]}")
