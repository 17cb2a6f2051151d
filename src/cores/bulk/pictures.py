"""A bulk run's pictures, each in a file of its own or, as bytes, in a row of a Parquet file.

A Parquet file is turned into an Arrow file once a machine (`read_table`), out of which any row is read without the
others.
"""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cores.bulk.questions import Picture
from cores.data.formats.arrow_tables import read_table, table_errors
from cores.data.sources.base import named_file
from cores.errors import DataError
from cores.picture_errors import opened_picture, picture_errors
from cores.processing.pixels import open_picture
from cores.regular_files import open_regular

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

TABLES = 4  # that stand open


def open_of(picture: Picture) -> "Image.Image":
    """The picture as `open_picture` gives it. Raises DataError when it is missing or no picture."""
    content = None if picture.place is None else content_of(picture)
    if content is None:
        return open_picture(picture.file)
    with opened_picture(picture.image, content) as image:
        return open_picture(image)


def content_of(picture: Picture) -> bytes:
    """The bytes of the picture's file. Raises DataError when there are none."""
    if picture.place is None:
        return _read(Path(picture.file))
    where = f"{picture.file}: row {picture.place}"
    with table_errors(where):
        cell: Any = _column(picture.file)[picture.place].as_py()
    name, content = (cell.get("path"), cell.get("bytes")) if isinstance(cell, dict) else (None, cell)
    if isinstance(content, bytes):
        return content
    if isinstance(name, str):  # Hugging Face's way to say that the picture has a file of its own
        return _read(named_file(Path(picture.file).parent, name))
    raise DataError(f"{where}: image: is empty, expected a picture's bytes")


def suffix_of(content: bytes) -> str:
    """What a file with this picture is called at its end, such as `png`."""
    with opened_picture("a picture", content) as image:
        return str(image.format).lower()


def _read(path: Path) -> bytes:
    with picture_errors(path), open_regular(path) as file:
        content: bytes = file.read()
    return content


@lru_cache(TABLES)
def _column(file: str) -> "pa.ChunkedArray":
    return read_table(Path(file), ["image"]).column("image")
