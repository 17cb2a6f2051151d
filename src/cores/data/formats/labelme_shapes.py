"""Shapes of labelme's files, all that have an inside: polygons, rectangles, circles, masks; and holes in them.

Legend: h, w = height and width of the picture in pixels; points = vertices (x, y).
"""

import base64
import binascii
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cores import masks
from cores.data.formats.coordinates import check_inside, check_outline, check_pixels
from cores.data.formats.json_files import maybe, short, take
from cores.data.formats.mask_pixels import read_inside
from cores.data.formats.names import as_asked
from cores.data.formats.picture_headers import Size, read_header
from cores.data.formats.polygons import paint, read_points
from cores.errors import DataError
from cores.masks import RLE

IGNORE = 255
Canvas = NDArray[np.uint8]
Draw = Callable[[Canvas, int], None]
FLAT = ("line", "linestrip", "point", "points")  # labelme's shapes that have no inside


@dataclass(frozen=True, slots=True)
class Shape:
    """A label with its pixels. `draw`: paints a value on a canvas (h, w), in place; `area`: how many pixels."""

    label: str
    draw: Draw
    area: int

    @property
    def ignored(self) -> bool:
        """Is it neither target nor background?"""
        return "ignore" in self.label.lower()


def painted(shapes: list[Shape], size: Size) -> Canvas:
    """A canvas (h, w): 0 background, 1 target, 255 ignored; large shapes lie under small ones, late under early."""
    canvas = np.zeros(size, np.uint8)
    for number in sorted(range(len(shapes)), key=lambda n: (-shapes[n].area, -n)):
        shapes[number].draw(canvas, IGNORE if shapes[number].ignored else 1)
    return canvas


def read_polygons(annotation: dict[str, Any], size: Size, where: Path) -> list[Shape]:
    """ReasonSeg's shapes as the published program takes them: whatever a shape says it is, its points are a polygon.

    Shapes labelled `flag` are dropped. Raises DataError for a field that is missing or of another type.
    """
    found = []
    for number, shape in enumerate(take(annotation, "shapes", list, where)):
        here = f"{where}: shape {number}"
        label = take(shape, "label", str, here)
        if label.lower() != "flag":
            points = read_points(take(shape, "points", list, here), f"{here}: points")
            check_outline(points, f"{here}: points")
            found.append(_measured(label, partial(_draw_polygon, points), size))
    return found


def read_shapes(annotation: dict[str, Any], size: Size, where: Path) -> list[Shape]:
    """The shapes that count, in the file's order, drawn on a picture of `size` (h, w).

    Shapes labelled `flag` are dropped. Those of one label and one `group_id` are one object: of these, a shape that
    lies wholly inside the larger ones is a hole in them, and one inside a hole is solid again.
    Raises DataError for shapes that have no inside, lie outside the picture, or are no labelme shapes.
    """
    groups: dict[Any, list[Shape]] = {}
    all_points = []
    for number, shape in enumerate(take(annotation, "shapes", list, where)):
        here = f"{where}: shape {number}"
        label = take(shape, "label", str, here)
        name = as_asked(label, f"{here}: label")
        if name == "flag":
            continue
        points = take(shape, "points", list, here)
        whole = read_points(points, f"{here}: points")  # (points, 2), cut to whole pixels
        exact = np.asarray(points, np.float64)
        if (exact % 1).any():
            check_pixels([exact], f"{here}: points")
        draw = _drawn(shape, whole, exact, size, here)
        found = _measured(label, draw, size)
        if not found.area:
            raise DataError(f"{here}: covers no pixel of the picture of {size[0]} x {size[1]} (h x w)")
        group = maybe(shape, "group_id", int, here)
        groups.setdefault(number if group is None else (name, group), []).append(found)
        all_points.append(exact)
    check_pixels(all_points, f"{where}: shapes")
    return [members[0] if len(members) == 1 else _one_object(members, size, where) for members in groups.values()]


def _drawn(shape: dict[str, Any], whole: NDArray[np.int32], exact: NDArray, size: Size, where: str) -> Draw:
    """How a shape is drawn, by its type. Raises DataError."""
    kind = maybe(shape, "shape_type", str, where) or "polygon"
    if kind in FLAT:
        raise DataError(f"{where}: shape_type: {kind} has no inside: draw a polygon, rectangle, circle or mask")
    expected = {"rectangle": (2, 4), "oriented_rectangle": (4,), "rotation": (4,), "circle": (2,), "mask": (2,)}
    if kind != "polygon" and kind not in expected:
        raise DataError(f"{where}: shape_type: found {short(kind)}, expected polygon, {', '.join(expected)}")
    if len(whole) not in expected.get(kind, (len(whole),)):
        wanted = " or ".join(map(str, expected[kind]))
        raise DataError(f"{where}: points: found {len(whole)}, expected {wanted} of a shape of type {kind}")
    if kind == "circle":
        return _circle(exact, where)
    if kind == "mask":
        return _crop(take(shape, "mask", str, where), exact, size, where)
    if kind != "polygon":
        whole, exact = _corners(whole), _corners(exact)
    if np.linalg.matrix_rank(exact - exact[0]) < 2:
        raise DataError(f"{where}: points: lie on one line, so that this {kind} has no inside")
    check_outline(whole, f"{where}: points")
    check_inside(whole, size, where)
    return partial(_draw_polygon, whole)


def _corners(points: NDArray) -> NDArray:
    """The corners (4, 2) of a rectangle in turn, from two opposite ones or from all four in any order."""
    if len(points) == 2:
        (left, top), (right, bottom) = points
        return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], points.dtype)
    kind = np.int32 if points.dtype == np.int32 else np.float32
    return cv2.convexHull(points.astype(kind))[:, 0].astype(points.dtype)


def _circle(points: NDArray, where: str) -> Draw:
    """A disc from its centre and a point of its edge, with an outline of one pixel as all shapes have."""
    (x, y), edge = points
    radius = math.dist((x, y), edge) + 0.5
    if radius == 0.5:
        raise DataError(f"{where}: points: are one point, so that this circle has no inside")

    def draw(canvas: Canvas, value: int) -> None:
        last = np.array(canvas.shape[::-1]) - 1
        (left, top), (right, bottom) = np.clip([[x - radius, y - radius], [x + radius, y + radius]], 0, last).astype(
            int
        )
        rows, columns = np.arange(top, bottom + 1)[:, None], np.arange(left, right + 1)
        canvas[top : bottom + 1, left : right + 1][(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = value

    return draw


def _crop(text: str, points: NDArray, size: Size, where: str) -> Draw:
    """A part of the picture as a PNG in base64, whose first and last pixel are the points."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise DataError(f"{where}: mask: is no base64, expected a PNG in it") from None
    name = Path(f"{where}: mask")
    (left, top), (right, bottom) = np.sort(np.round(points).astype(int), axis=0)
    held = read_header(name, content).stored
    if abs(held[0] - (bottom - top + 1)) > 1 or abs(held[1] - (right - left + 1)) > 1 or max(held) > max(size):
        raise DataError(
            f"{name}: is {held[0]} x {held[1]} (h x w), but its points say {bottom - top + 1} x {right - left + 1} "
            f"in a picture of {size[0]} x {size[1]}"
        )
    inside = read_inside(name, content)

    def draw(canvas: Canvas, value: int) -> None:
        part = canvas[max(0, top) : max(0, top + inside.shape[0]), max(0, left) : max(0, left + inside.shape[1])]
        seen = inside[max(0, -top) :, max(0, -left) :][: part.shape[0], : part.shape[1]]
        part[seen] = value

    return draw


def _one_object(shapes: list[Shape], size: Size, where: Path) -> Shape:
    """The shapes of a group as one shape, with its holes. Raises DataError when the holes leave nothing of it."""
    solid, seen = np.zeros(size, bool), set()
    for shape in sorted(shapes, key=lambda shape: -shape.area):
        canvas = np.zeros(size, np.uint8)
        shape.draw(canvas, 1)
        alone = canvas.astype(bool)
        rle = masks.encode(alone)["counts"]
        if rle not in seen:  # the same shape twice is no hole
            solid[alone] = not solid[alone].all()
        seen.add(rle)
    if not solid.any():
        raise DataError(
            f"{where}: nothing is left of {short(shapes[0].label)}: shapes of its group_id cover it as holes"
        )
    return Shape(shapes[0].label, partial(_draw_mask, masks.encode(solid)), int(solid.sum()))


def _draw_polygon(points: NDArray[np.int32], canvas: Canvas, value: int) -> None:
    paint(canvas, points, value)


def _draw_mask(rle: RLE, canvas: Canvas, value: int) -> None:
    canvas[masks.decode(rle)] = value


def _measured(label: str, draw: Draw, size: Size) -> Shape:
    alone = np.zeros(size, np.uint8)
    draw(alone, 1)
    return Shape(label, draw, int(alone.sum()))
