"""Segmentations as COCO's files and those of its kind hold them: polygons, run lengths, or several of either.

Legend: h, w = height and width of the picture in pixels.
"""

from typing import Any

import numpy as np

from cores import masks
from cores.data.formats.json_files import short, take
from cores.data.formats.picture_headers import Header
from cores.data.formats.polygons import coco_polygon
from cores.errors import DataError
from cores.masks import RLE


def read_rle(value: Any, where: str) -> RLE:
    """Run lengths {"size": [h, w], "counts"}, compressed or as a list of numbers, checked to fill their size.

    Raises DataError otherwise: COCO's library would make a mask of whatever lay in memory.
    """
    size, counts = take(value, "size", list, where), value.get("counts")
    if len(size) != 2 or not all(isinstance(n, int) and 0 < n < 1 << 16 for n in size):
        raise DataError(f"{where}: size: found {short(size)}, expected [h, w]")
    if isinstance(counts, list):
        return _compress(counts, (size[0], size[1]), where)
    if not isinstance(counts, str):
        raise DataError(f"{where}: counts: found {short(counts)}, expected run lengths")
    found = masks.runs(counts)
    if found is None or int(found.sum()) != size[0] * size[1]:
        raise DataError(f"{where}: counts: do not fill the size {size[0]} x {size[1]} (h x w)")
    return {"size": size, "counts": counts}


def _compress(counts: list[Any], size: tuple[int, int], where: str) -> RLE:
    whole = all(isinstance(n, int) and 0 <= n <= size[0] * size[1] for n in counts)
    if not whole or sum(counts) != size[0] * size[1]:
        raise DataError(f"{where}: counts: do not fill the size {size[0]} x {size[1]} (h x w)")
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return masks.encode(flat.reshape(size[1], size[0]).T)


def read_segmentation(value: Any, size: tuple[int, int] | None, header: Header, where: str) -> RLE | None:
    """The union of all parts, at the picture's size; None for an empty list.

    Args: `value`: polygons, run lengths, or a list of run lengths; `size` (h, w): what polygons refer to, None for the
    picture's own. Raises DataError.
    """
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise DataError(f"{where}: found {short(value)}, expected polygons or run lengths")
    if value and not isinstance(value[0], list | dict):
        value = [value]  # one polygon without the list around it
    parts = []
    for part in value:
        if isinstance(part, dict):
            rle = read_rle(part, where)
        else:
            rle = coco_polygon(part, size or header.size, where)
        parts.append(header.upright_rle(rle, where))
    return union(parts, header.size)


def union(parts: list[RLE], size: tuple[int, int]) -> RLE | None:
    """One mask of several, all of `size` (h, w); None of none."""
    if len(parts) < 2:
        return parts[0] if parts else None
    return masks.encode(masks.union([masks.decode(part) for part in parts], size))
