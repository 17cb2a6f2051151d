"""Polygons painted into masks: OpenCV's fill and closed outline for ReasonSeg, COCO's own rule for COCO's files.

Legend: h, w = height and width of the picture in pixels; points = vertices (x, y).
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from cores import masks
from cores.data.formats.json_files import short
from cores.errors import DataError
from cores.masks import RLE

FAR = 1_000_000  # no vertex lies that many pixels away; painting to there takes OpenCV seconds
OUTLINE = 2_000_000  # pixels: COCO's library makes five points of each without asking for memory, OpenCV sorts edges


def read_points(value: Any, where: str) -> NDArray[np.int32]:
    """Vertices (points, 2), cut to whole pixels towards zero. Raises DataError for what are no points.

    Points may lie outside the picture, repeat, or be fewer than three: then they are a line or a dot.
    """
    if not isinstance(value, list) or not value:
        raise DataError(f"{where}: found {short(value)}, expected a list of [x, y]")
    for point in value:
        if not isinstance(point, list) or len(point) != 2 or not all(map(_near, point)):
            raise DataError(f"{where}: found {short(point)}, expected [x, y] in pixels")
    return np.trunc(np.asarray(value, dtype=np.float64)).astype(np.int32)


def _near(number: Any) -> bool:
    """Is this a coordinate? Compared, not converted: a whole number of JSON may be larger than any float."""
    return isinstance(number, int | float) and not isinstance(number, bool) and -FAR < number < FAR


def check_pixels(points: NDArray[Any], size: tuple[int, int], where: str) -> None:
    """Vertices (points, 2) of a picture of `size` (h, w) are in pixels.

    Raises DataError when all lie within 0..1: then they are shares of its sides.
    """
    if len(points) and points.min() >= 0 and points.max() <= 1 < min(size):
        raise DataError(f"{where}: all coordinates lie within 0..1, expected pixels of a picture of {_said(size)}")


def check_inside(points: NDArray[Any], size: tuple[int, int], where: str) -> None:
    """Vertices (points, 2) enclose something of a picture of `size` (h, w). Raises DataError if not."""
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    if right < 0 or bottom < 0 or left >= size[1] or top >= size[0]:
        raise _outside(points, size, where)


def check_parts(parts: dict[int, NDArray[Any]], size: tuple[int, int], where: str) -> None:
    """The polygons (points, 2) of one mask enclose something of a picture of `size` (h, w), each of them.

    Args: `parts`: by their numbers among the parts of the mask. Raises DataError that names the part of which nothing
    is in the picture, not even a point of its outline.
    """
    check_inside(np.concatenate(list(parts.values())), size, where)
    corner = (size[1], size[0])
    for number, points in parts.items():
        seen = ((points >= 0) & (points <= corner)).all(axis=1).any()  # most often there is nothing to cut
        if not seen and not len(_cut(points, (0, 0), corner)):
            raise _outside(points, size, f"{where}: part {number}" if len(parts) > 1 else where)


def _outside(points: NDArray[Any], size: tuple[int, int], where: str) -> DataError:
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    box = f"x {left:g} to {right:g}, y {top:g} to {bottom:g}"
    return DataError(f"{where}: lies outside the picture ({box}; the picture is {_said(size)}): is it another's?")


def check_outline(points: NDArray[Any], where: str) -> None:
    """A polygon (points, 2) is none that takes minutes or gigabytes to paint; outside the picture it takes them too.

    Raises DataError for an outline that is longer than any thing's.
    """
    exact = points.astype(np.float64)
    length = np.abs(exact - np.roll(exact, 1, axis=0)).max(axis=1).sum()
    if length > OUTLINE:
        raise DataError(f"{where}: a polygon with an outline of {length:,.0f} pixels, expected {OUTLINE:,} at most")


def _said(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} (h x w)"


def paint(canvas: NDArray[np.uint8], points: NDArray[np.int32], value: int) -> None:
    """Fill a polygon (points, 2) with a closed outline of one pixel, on a canvas (h, w), in place."""
    cv2.polylines(canvas, [points], True, value, 1)
    cv2.fillPoly(canvas, [points], value)


def coco_points(value: Any, where: str) -> NDArray[np.float64]:
    """Vertices (points, 2) of one COCO polygon [x1, y1, x2, y2, ...].

    Raises DataError for fewer than three points: COCO's library would take two for a box.
    """
    if not isinstance(value, list) or len(value) % 2 or not all(map(_near, value)):
        raise DataError(f"{where}: found {short(value)}, expected a polygon [x1, y1, x2, y2, ...]")
    if len(value) < 6:
        raise DataError(f"{where}: a polygon of {len(value) // 2} points has no inside, expected at least 3")
    return np.asarray(value, dtype=np.float64).reshape(-1, 2)


def coco_polygon(value: Any, size: tuple[int, int], where: str) -> RLE:
    """Run lengths of one COCO polygon [x1, y1, x2, y2, ...] in a picture of `size` (h, w), by COCO's own rule.

    What lies further away than the picture is large is cut off first, so that the memory is bounded by the picture.
    Raises DataError as `coco_points`, and for an outline that is longer than any thing's.
    """
    points = coco_points(value, where)
    margin = max(size)
    if (points < -margin).any() or (points > 2 * margin).any():
        points = _cut(points, (-margin, -margin), (2 * margin, 2 * margin))
    if len(points) < 3:  # nothing of it is near the picture
        return {"size": list(size), "counts": masks.compress([size[0] * size[1]], size)}
    check_outline(points, where)
    (found,) = coco.frPyObjects([points.ravel().tolist()], *size)
    return {"size": list(size), "counts": found["counts"].decode("ascii")}


def _cut(points: NDArray[Any], low: tuple[int, int], high: tuple[int, int]) -> NDArray[Any]:
    """The part of a polygon (points, 2) within a rectangle from `low` to `high` (x, y).

    It is cut side after side (Sutherland and Hodgman, 1974).
    """
    for axis, sign, limit in ((0, 1, low[0]), (0, -1, -high[0]), (1, 1, low[1]), (1, -1, -high[1])):
        depth = sign * points[:, axis] - limit  # inside where not negative
        if (depth >= 0).all():
            continue
        kept: list[NDArray[np.float64]] = []
        for here in range(len(points)):
            before = here - 1
            if (depth[before] < 0) != (depth[here] < 0):
                share = depth[before] / (depth[before] - depth[here])
                kept.append(points[before] + share * (points[here] - points[before]))
            if depth[here] >= 0:
                kept.append(points[here])
        points = np.array(kept).reshape(-1, 2)
    return points
