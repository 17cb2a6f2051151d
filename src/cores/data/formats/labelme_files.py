"""labelme files written: masks as shapes that its editor can correct and `labelme_shapes` reads again.

Legend: h, w = height and width in pixels; points = vertices (x, y).
"""

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cores.data.formats.labelme_shapes import ABSENT, painted, read_regions
from cores.data.formats.picture_headers import Header
from cores.errors import UserError
from cores.masks import Mask
from cores.outlines import pieces_of

VERSION = "5.5.0"  # of labelme's format: `mask` shapes and `description` are in it
Shape = dict[str, Any]


class Labelled(NamedTuple):
    """Something to label: its `label`, its `mask` (h, w) and a `note`, which labelme shows as its description."""

    label: str
    mask: Mask
    note: str = ""


def check_label(label: str) -> None:
    """Raise UserError for a label that has a meaning of its own in such files (`labelme_shapes`)."""
    if label.strip().lower() == "flag" or "ignore" in label.lower():
        raise UserError(
            f"{label!r} cannot be a label: shapes labelled flag are dropped by readers of labelme files, those with "
            "ignore in their label are left out of training; ask in other words"
        )


def labelme_file(
    found: Sequence[Labelled],
    picture: str,
    size: tuple[int, int],
    tolerance: float = 1.0,
    absent: Mapping[str, bool] | None = None,
) -> Shape:
    """What labelme stores of one picture, ready for JSON; each of `found` is an object, with a `group_id` of its own.

    Args:
        absent: labels of what may not be there, and whether that is certain: flags of the picture, ticked if so.
        picture: its name beside the file. size: its (h, w), upright.
        tolerance: pixels by which an outline may leave the mask's border, so that it has few vertices; 0: exact.
    Raises UserError as `check_label`.
    """
    shapes = []
    for group, (label, mask, note) in enumerate(found):
        check_label(label)
        shapes += [_shape(label, group, note, **parts) for parts in _parts_within(mask, tolerance)]
    height, width = size
    return {
        "version": VERSION,
        "flags": {f"{ABSENT} {label}": certain for label, certain in (absent or {}).items()},
        "shapes": shapes,
        "imagePath": picture,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def _shape(label: str, group: int, note: str, **parts: Any) -> Shape:
    return {"label": label, "group_id": group, "description": note, "flags": {}, **parts}


def _parts_within(mask: Mask, tolerance: float) -> list[Shape]:
    """Shapes of one mask (h, w): simplified where what they enclose differs only near its border, else exact."""
    exact = list(_parts(mask, 0))
    if tolerance <= 0 or not exact:
        return exact
    simple = list(_parts(mask, tolerance))
    shapes = {"shapes": [_shape("mask", 0, "", **part) for part in simple]}
    height, width = mask.shape
    header = Header(Path("mask"), (height, width))
    again = painted(read_regions(shapes, header, Path("mask")), (height, width)) == 1
    near, steps = np.ones((3, 3), np.uint8), math.ceil(tolerance)
    pixels = mask.astype(np.uint8)
    border = cv2.dilate(pixels, near, iterations=steps) - cv2.erode(pixels, near, iterations=steps)
    return simple if not ((again != mask) & (border == 0)).any() else exact


def _parts(mask: Mask, tolerance: float) -> Iterator[Shape]:
    """The outline of every piece of a mask (h, w) and of the holes in it.

    A hole is a shape within another of the same `group_id`; its outline lies on its own pixels.
    """
    for outline, holes in pieces_of(mask):
        for ring in (outline, *holes):
            points = cv2.approxPolyDP(ring[:, None], tolerance, True)[:, 0] if tolerance > 0 else ring
            yield _polygon(points) if _has_inside(points) else _pixels(ring)


def _has_inside(points: NDArray[Any]) -> bool:
    return len(points) > 2 and int(np.linalg.matrix_rank(points - points[0])) == 2


def _polygon(points: NDArray[Any]) -> Shape:
    return {"shape_type": "polygon", "points": points.astype(float).tolist(), "mask": None}


def _pixels(points: NDArray[Any]) -> Shape:
    """A dot or a line (points, 2), which no polygon encloses, as labelme's own kind of mask."""
    low, high = points.min(axis=0), points.max(axis=0)
    canvas = np.zeros((high - low + 1)[::-1], np.uint8)
    cv2.polylines(canvas, [points - low], True, 1)
    file = BytesIO()
    Image.fromarray(canvas * 255).convert("1").save(file, "PNG")
    content = base64.b64encode(file.getvalue()).decode("ascii")
    return {"shape_type": "mask", "points": np.stack([low, high]).astype(float).tolist(), "mask": content}
