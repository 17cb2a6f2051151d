"""Segmentations as COCO's files and those of its kind hold them: polygons, run lengths, or several of either.

Legend: h, w = height and width of the picture in pixels.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from cores import masks
from cores.data.formats.json_files import clipped, short, take
from cores.data.formats.picture_headers import Header
from cores.data.formats.polygons import check_parts, check_pixels, coco_points, coco_polygon
from cores.errors import DataError
from cores.masks import RLE


def read_rle(value: Any, where: str, header: Header | None = None) -> RLE:
    """Run lengths {"size": [h, w], "counts"}, compressed or as a list of numbers, checked to fill their size.

    Args: `header`: the picture, whose size is compared before anything is made of the counts. Raises DataError
    otherwise: COCO's library would make a mask of whatever lay in memory.
    """
    size = _size_of(value, where)
    if header is not None:
        header.turn(size, where)
    full, counts = size[0] * size[1], value.get("counts")
    if isinstance(counts, list):
        lengths = counts if all(type(n) is int and 0 <= n <= full for n in counts) else []
    elif isinstance(counts, str):
        found = masks.runs(counts)
        lengths = [] if found is None else found.tolist()
    else:
        raise DataError(f"{where}: counts: found {short(counts)}, expected run lengths")
    if sum(lengths) != full:
        raise DataError(f"{where}: counts: do not fill the size {size[0]} x {size[1]} (h x w)")
    if isinstance(counts, list) or 0 in lengths[1:]:
        counts = masks.compress(lengths, size)
    return {"size": list(size), "counts": counts}


def _size_of(rle: Any, where: str) -> tuple[int, int]:
    size = take(rle, "size", list, where)
    if len(size) != 2 or not all(type(n) is int and 0 < n < 1 << 16 for n in size):
        raise DataError(f"{where}: size: found {short(size)}, expected [h, w]")
    return size[0], size[1]


def parts_of(value: Any, where: str) -> list[Any]:
    """The polygons or run lengths of a segmentation, none of them empty. Raises DataError for what is none."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise DataError(f"{where}: found {short(value)}, expected polygons or run lengths")
    if value and not isinstance(value[0], list | dict):
        value = [value]  # one polygon without the list around it
    return [part for part in value if part != []]


def has_mask(value: Any) -> bool:
    """Does an annotation's field `segmentation` hold any mask? Cheap: nothing is decoded.

    It does not when it is missing, null, empty, or run lengths that are all outside.
    """
    parts = value if isinstance(value, list) else [value]
    return any(part not in (None, [], {}) and not _outside(part) for part in parts)


def lost_mask(members: Iterable[tuple[Any, Any]], path: Path) -> str | None:
    """What to say when one of these annotations, each an id and a segmentation, has no mask; None when all have one.

    An annotation says that something is there: without a mask it must not become the question whose answer is that it
    is not.
    """
    for number, value in members:
        if not has_mask(value):
            return (
                f"{path}: annotation {clipped(number)}: segmentation: found {short(value)}, so what is there has no "
                "mask: draw it, or remove the annotation"
            )
    return None


def _outside(part: Any) -> bool:
    """Are these run lengths, of one run alone? Their counts hold one number then."""
    counts = part.get("counts") if isinstance(part, dict) else None
    if isinstance(counts, list):
        return len(counts) == 1 or not any(number != 0 for number in counts[1::2])
    if isinstance(counts, str) and 0 < len(counts) <= 7:
        lengths = masks.runs(counts)
        return lengths is not None and len(lengths) == 1
    return False


def check_segmentation(value: Any, size: tuple[int, int] | None, header: Header, where: str) -> None:
    """What can be said of a segmentation of one's own before its mask is made: numbers, places, sizes.

    Args as `read_segmentation`. Raises DataError, as that does, and for coordinates within 0..1: in a published file
    they may be those of a speck in the picture's corner.
    """
    parts = parts_of(value, where)
    _check_points(parts, size or header.size, where, own=True)
    for part in parts:
        if isinstance(part, dict):
            header.turn(_size_of(part, where), where)


def _check_points(parts: list[Any], size: tuple[int, int], where: str, own: bool = False) -> None:
    polygons = {n: coco_points(part, where) for n, part in enumerate(parts) if not isinstance(part, dict)}
    if polygons:
        check_parts(polygons, size, where)
        if own and len(polygons) == len(parts):
            check_pixels(np.concatenate(list(polygons.values())), size, where)


def read_segmentation(value: Any, size: tuple[int, int] | None, header: Header, where: str) -> RLE | None:
    """The union of all parts, at the picture's size; None for an empty list.

    Args: `value`: polygons, run lengths, or a list of run lengths; `size` (h, w): what polygons refer to, None for the
    picture's own. Raises DataError, beginning with `where`, for what is none of them or does not fit the picture.
    """
    parts = parts_of(value, where)
    _check_points(parts, size or header.size, where)
    found = []
    for part in parts:
        if isinstance(part, dict):
            rle = read_rle(part, where, header)
        else:
            rle = coco_polygon(part, size or header.size, where)
        found.append(header.upright_rle(rle, where))
    return union(found, header.size)


def union(parts: list[RLE], size: tuple[int, int]) -> RLE | None:
    """One mask of several, all of `size` (h, w), joined as run lengths; None of none.

    Raises DataError when one is of another size.
    """
    for part in parts:
        if (part["size"][0], part["size"][1]) != size:
            raise DataError(f"a mask of {part['size']} (h, w) does not fit a picture of {size}")
    if len(parts) < 2:
        return parts[0] if parts else None
    return masks.union_rle(parts, size)
