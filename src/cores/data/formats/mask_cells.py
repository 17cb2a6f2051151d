"""What the mask column of a table holds: rows of numbers, pictures, run lengths, COCO's polygons, or lists of those.

Legend: h, w = height and width of the picture in pixels, masks = how many a cell holds.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cores import masks
from cores.data.formats.json_files import short
from cores.data.formats.mask_pixels import inside_numbers, read_inside
from cores.data.formats.picture_headers import Header
from cores.data.formats.segmentation_field import read_segmentation
from cores.errors import DataError
from cores.masks import RLE

LONGEST = 4096  # letters of a file's name with its folders, in any system


def read_mask_cell(cell: pa.Scalar, header: Header, home: Path, where: str) -> list[RLE]:
    """The masks of a cell that is not null, as run lengths at the picture's size.

    Args: `home`: the folder that names of files begin in. Raises DataError, beginning with `where`, for an empty cell,
    what is no mask, and a mask that does not fit the picture.
    """
    if not _is_list(cell.type):
        return [_read_one(cell.as_py(), header, home, where)]
    if not len(cell):
        raise DataError(f"{where}: is empty; for what is not there leave the cell null")
    depth, kind = _leaf(cell.type)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        if depth > 1:
            raise DataError(f"{where}: found {short(cell.as_py())}, expected one list of masks")
        return [_read_one(one, header, home, f"{where}: {number}") for number, one in enumerate(cell.as_py())]
    sizes = (header.size, header.stored)
    array = _array(cell)
    if depth == 3 and array is not None:
        stack = array[None, ..., 0] if array.shape[2] == 1 and array.shape[:2] in sizes else array
        return [_of_rows(rows, header, f"{where}: {number}") for number, rows in enumerate(stack)]
    if depth == 2 and _are_rows(array, cell, kind, sizes):
        if array is None:
            raise DataError(f"{where}: its rows are not of one length")
        return [_of_rows(array, header, where)]
    if depth == 1 and len(cell) == header.size[0] * header.size[1]:
        raise DataError(f"{where}: is a flat list of {len(cell)} numbers: give the mask's rows as lists")
    found = read_segmentation(cell.as_py(), None, header, where)
    assert found is not None, "the cell is not empty"
    return [found]


def _read_one(value: Any, header: Header, home: Path, where: str) -> RLE:
    """A mask as run lengths, as a picture's bytes, or as the name of its file."""
    if isinstance(value, dict) and "counts" in value:
        counts = value["counts"]
        if isinstance(counts, bytes):  # as COCO's library makes them
            value = value | {"counts": counts.decode("ascii", "replace")}
        found = read_segmentation(value, None, header, where)
        assert found is not None, "run lengths are no empty list"
        return found
    content, name = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if isinstance(content, bytes):
        inside = read_inside(Path(where), content, header)
    elif isinstance(name := name or content, str):
        if len(name) > LONGEST:
            raise DataError(
                f"{where}: found {short(name)}, expected the name of a picture; a picture's bytes are bytes"
            )
        path = home / name
        try:
            inside = read_inside(path, fits=header)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
    else:
        raise DataError(f"{where}: found {short(value)}, expected rows of numbers, run lengths or a picture")
    return masks.encode(np.ascontiguousarray(header.upright(inside, where)))


def _of_rows(rows: NDArray[Any], header: Header, where: str) -> RLE:
    return masks.encode(np.ascontiguousarray(header.upright(inside_numbers(rows, where), where)))


def _are_rows(
    array: NDArray[Any] | None, cell: pa.Scalar, kind: pa.DataType, sizes: tuple[tuple[int, int], ...]
) -> bool:
    """Are lists of numbers the rows of a mask, rather than polygons [x1, y1, x2, y2, ...]?

    They are when they have the picture's size, and when they could be no polygons: coordinates are no bytes, and not
    all of them 0 and 1 or 255.
    """
    if pa.types.is_boolean(kind) or kind in (pa.uint8(), pa.int8()) or (array is not None and array.shape in sizes):
        return True
    lengths = {len(row) for row in cell.values if row.is_valid}
    if any(length < 6 or length % 2 for length in lengths):
        return True
    return array is not None and len(array) > 1 and bool(np.isin(array, (0, 1, 255)).all())


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _leaf(kind: pa.DataType) -> tuple[int, pa.DataType]:
    """How many lists stand around which type."""
    depth = 0
    while _is_list(kind):
        depth, kind = depth + 1, kind.value_type
    return depth, kind


def _array(cell: pa.Scalar) -> NDArray[Any] | None:
    """Nested lists of numbers as an array; None when they are not of one length, or hold nulls."""
    shape, values = [len(cell)], cell.values
    while _is_list(values.type):
        lengths = {len(row) for row in values if row.is_valid}
        if values.null_count or len(lengths) != 1:
            return None
        shape.append(lengths.pop())
        values = values.flatten()
    return None if values.null_count else values.to_numpy(zero_copy_only=False).reshape(shape)
