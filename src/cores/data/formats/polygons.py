"""Polygons painted into masks: OpenCV's fill and closed outline for ReasonSeg, COCO's own rule for COCO's files.

Legend: h, w = height and width of the picture in pixels; points = vertices (x, y).
"""

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from cores.data.formats.json_files import short
from cores.errors import DataError
from cores.masks import RLE

FAR = 1_000_000  # no vertex lies that many pixels away; painting to there takes OpenCV seconds


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
    known = isinstance(number, int | float) and not isinstance(number, bool)
    return known and math.isfinite(number) and abs(number) < FAR


def paint(canvas: NDArray[np.uint8], points: NDArray[np.int32], value: int) -> None:
    """Fill a polygon (points, 2) with a closed outline of one pixel, on a canvas (h, w), in place."""
    cv2.polylines(canvas, [points], True, value, 1)
    cv2.fillPoly(canvas, [points], value)


def coco_polygon(value: Any, size: tuple[int, int], where: str) -> RLE:
    """Run lengths of one COCO polygon [x1, y1, x2, y2, ...] in a picture of `size` (h, w), by COCO's own rule.

    Raises DataError for fewer than three points: COCO's library would take two for a box.
    """
    if not isinstance(value, list) or len(value) % 2 or not all(map(_near, value)):
        raise DataError(f"{where}: found {short(value)}, expected a polygon [x1, y1, x2, y2, ...]")
    if len(value) < 6:
        raise DataError(f"{where}: a polygon of {len(value) // 2} points has no inside, expected at least 3")
    (found,) = coco.frPyObjects([value], *size)
    return {"size": list(size), "counts": found["counts"].decode("ascii")}
