"""Coordinates held to the picture that they are drawn on: in its pixels, on its size, not beside it.

Legend: h, w = height and width of the picture in pixels; points = vertices (x, y).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cores.data.formats.json_files import short
from cores.data.formats.picture_headers import Header, Size
from cores.errors import DataError

OUTLINE = 2_000_000  # pixels: an outline of that length winds around no thing, and takes seconds to fill


def drawn_on(height: float | None, width: float | None, header: Header, where: str) -> Size:
    """The size (h, w) of the picture that coordinates refer to, when their file says `height` and `width`.

    That is the picture as EXIF turns it, or as it is stored; masks painted on the latter turn with it
    (`Header.upright`). Without a word about it, the former. Raises DataError, beginning with `where`, when they are of
    another picture or of a scaled copy.
    """
    for size in (header.size, header.stored):
        if height in (None, size[0]) and width in (None, size[1]):
            return size
    said = " x ".join("?" if side is None else short(side) for side in (height, width))
    raise DataError(
        f"{where} is {said}, but the picture {header.path} is {header.size[0]} x {header.size[1]} (h x w): "
        "take the picture that was labelled, or scale the points with it and correct both numbers"
    )


def check_pixels(shapes: Sequence[NDArray], where: str) -> None:
    """Raises DataError when all points (points, 2) of all shapes lie within 0 and 1: parts of the sides, no pixels."""
    if shapes and all(points.min() >= 0 and points.max() <= 1 for points in shapes):
        raise DataError(
            f"{where}: all points lie within 0 and 1, as parts of the picture's sides do, expected pixels: "
            "multiply x by its width and y by its height"
        )


def check_inside(points: NDArray, size: Size, where: str) -> None:
    """Raises DataError when all points (points, 2) lie beyond the same side of a picture of `size` (h, w)."""
    (left, top), (right, bottom) = points.min(0), points.max(0)
    if right < 0 or bottom < 0 or left >= size[1] or top >= size[0]:
        raise DataError(
            f"{where}: lies wholly outside the picture of {size[0]} x {size[1]} (h x w): "
            f"x from {left:g} to {right:g}, y from {top:g} to {bottom:g}"
        )


def check_outline(points: NDArray[np.int32], where: str) -> None:
    """Raises DataError when the closed outline through points (points, 2) is longer than any thing's."""
    length = int(np.abs(np.roll(points, -1, axis=0).astype(np.int64) - points).max(1).sum())
    if length > OUTLINE:
        raise DataError(
            f"{where}: an outline of {length:,} pixels, expected {OUTLINE:,} at most: are its points right?"
        )
