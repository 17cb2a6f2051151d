"""The shapes of a labelme file: what each encloses, as labelme draws it, and which are one object.

Legend: h, w = height and width in pixels; points = vertices (x, y).
"""

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cores import masks
from cores.data.formats.json_files import maybe, short, take
from cores.data.formats.names import as_asked
from cores.data.formats.picture_headers import Header, turned
from cores.data.formats.polygons import check_inside, check_outline, check_pixels, paint, read_points
from cores.errors import DataError
from cores.masks import RLE, Mask
from cores.picture_errors import picture_errors

NOTHING = masks.encode(np.zeros((1, 1), bool))  # what a shape encloses that covers no pixel
IGNORE = 255
ABSENT = "absent:"  # begins the flag of a picture that says what is not there
CORNERS = {"polygon": range(3, 1 << 31), "oriented_rectangle": (4,), "rotation": (4,), "rectangle": (2, 4)}


@dataclass(frozen=True, slots=True)
class Region:
    """What a shape encloses: `rle`, run lengths of its bounding box, the first pixel of which is at row `top` and
    column `left` of the picture. As pixels, hundreds of shapes of a large picture would take gigabytes.
    """

    label: str
    group: int | str | None
    top: int
    left: int
    rle: RLE

    @staticmethod
    def of(label: str, group: int | str | None, top: int, left: int, inside: Mask) -> "Region":
        """Args: `inside`, a mask (height, width) of its bounding box."""
        return Region(label, group, top, left, masks.encode(inside))

    @property
    def inside(self) -> Mask:
        """A mask (height, width) of its bounding box."""
        return masks.decode(self.rle)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of its bounding box."""
        height, width = self.rle["size"]
        return height, width

    @property
    def area(self) -> int:
        """Its pixels."""
        return masks.area(self.rle)

    @property
    def ignored(self) -> bool:
        """Is it neither target nor background?"""
        return "ignore" in self.label.lower()

    @property
    def name(self) -> str:
        """What it is asked for by. Raises DataError when its label is blank."""
        return as_asked(self.label, "label")

    def within(self, canvas: NDArray[Any]) -> NDArray[Any]:
        """The part of a canvas (h, w) that its bounding box covers."""
        height, width = self.size
        return canvas[self.top : self.top + height, self.left : self.left + width]


def read_regions(annotation: dict[str, Any], header: Header, where: Path, published: bool = False) -> list[Region]:
    """What the shapes of a file enclose in the picture after EXIF rotation, in the file's order.

    Shapes labelled `flag` are dropped. Args: `published`: the file is one of ReasonSeg's, whose points are a polygon
    whatever else it says, and lie on the rotated picture.
    Raises DataError, beginning with `where`, for a shape that cannot be read; unless `published`, also for one that
    covers no pixel.
    """
    size, turn = (header.size, False) if published else _drawn_on(annotation, header, where)
    canvas = np.zeros(size, np.uint8)
    found, corners = [], [np.zeros((0, 2))]
    for number, shape in enumerate(take(annotation, "shapes", list, where)):
        here = f"{where}: shape {number}"
        label = take(shape, "label", str, here)
        if label.lower() == "flag":
            continue
        points, group = read_points(take(shape, "points", list, here), f"{here}: points"), shape.get("group_id")
        check_outline(points, here)
        if published:
            paint(canvas, points, 1)
        else:
            as_asked(label, f"{here}: label")
            if not isinstance(group, int | str | None):
                raise DataError(f"{here}: group_id: found {short(group)}, expected a whole number")
            corners.append(np.asarray(shape["points"], np.float64))
            if (corners[-1] % 1).any():
                check_pixels(corners[-1], size, here)
            _draw(shape, points, canvas, here)
        if not canvas.any():
            raise DataError(f"{here}: covers no pixel of the picture of {size[0]} x {size[1]} (h x w)")
        found.append(_lift(label, group, canvas, header.orientation if turn else 1))
    if not published:
        check_pixels(np.concatenate(corners), size, f"{where}: shapes")
    return found if published else list(_objects(found, where))


def painted(regions: list[Region], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A canvas of `size` (h, w): 0 background, 1 target, 255 ignored.

    Large regions lie under small ones, late under early.
    """
    canvas = np.zeros(size, np.uint8)
    areas = [region.area for region in regions]
    for number in sorted(range(len(regions)), key=lambda n: (-areas[n], -n)):
        region = regions[number]
        region.within(canvas)[region.inside] = IGNORE if region.ignored else 1
    return canvas


def _drawn_on(annotation: dict[str, Any], header: Header, where: Path) -> tuple[tuple[int, int], bool]:
    """The size (h, w) of the picture that was drawn on, and whether EXIF turned it since. Raises DataError."""
    height, width = (maybe(annotation, key, int, where) for key in ("imageHeight", "imageWidth"))
    if height is None or width is None:
        return header.size, False
    return (height, width), header.turn((height, width), f"{where}: imageHeight x imageWidth")


def _lift(label: str, group: int | str | None, canvas: NDArray[np.uint8], orientation: int) -> Region:
    """What is painted on a canvas (h, w), turned upright, as a region; the canvas is blank again."""
    upright = turned(canvas, orientation)
    rows, columns = np.flatnonzero(upright.any(1)), np.flatnonzero(upright.any(0))
    if not len(rows):
        return Region(label, group, 0, 0, NOTHING)
    box = upright[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    inside = box.astype(bool)
    box[:] = 0
    return Region.of(label, group, int(rows[0]), int(columns[0]), inside)


def _draw(shape: dict[str, Any], points: NDArray[np.int32], canvas: NDArray[np.uint8], where: str) -> None:
    """Paint one shape of labelme's on a canvas (h, w), in place. Raises DataError for what encloses nothing."""
    kind = shape.get("shape_type") or "polygon"
    special: dict[Any, Callable[[], None]] = {
        "circle": lambda: _draw_circle(np.asarray(shape["points"], np.float64), canvas, where),
        "mask": lambda: _draw_mask(shape, points, canvas, where),
    }
    if not isinstance(kind, str) or kind not in (*CORNERS, *special):
        raise DataError(f"{where}: shape_type: is {short(kind)}, expected one of {', '.join((*CORNERS, *special))}")
    if len(points) not in CORNERS.get(kind, (2,)):
        wanted = "at least 3" if kind == "polygon" else " or ".join(map(str, CORNERS.get(kind, (2,))))
        raise DataError(f"{where}: points: is a {kind} of {len(points)} points, expected {wanted}")
    if kind in special:
        special[kind]()
        return
    check_inside(points, canvas.shape, where)
    exact = np.asarray(shape["points"], np.float64)
    if len(points) == 2:
        points = np.stack([points[[0, 1, 1, 0], 0], points[[0, 0, 1, 1], 1]], axis=1)
        exact = np.stack([exact[[0, 1, 1, 0], 0], exact[[0, 0, 1, 1], 1]], axis=1)
    elif kind != "polygon":  # four corners, in any order
        points = cv2.convexHull(points)[:, 0].astype(np.int32)
    if np.linalg.matrix_rank(exact - exact[0]) < 2:
        raise DataError(f"{where}: points: lie on one line, so that this {kind} has no inside")
    paint(canvas, points, 1)


def _draw_circle(points: NDArray[np.float64], canvas: NDArray[np.uint8], where: str) -> None:
    """A circle by its centre and a point on it: the pixels whose corner nearest to 0, 0 is no further than that."""
    (x, y), rim = points[0], points[1]
    radius = float(np.hypot(*(rim - points[0])))
    if not radius:
        raise DataError(f"{where}: points: are one point, so that this circle has no inside")
    check_inside(np.array([[x - radius, y - radius], [x + radius, y + radius]]), canvas.shape, where)
    rows, columns = np.ogrid[: canvas.shape[0], : canvas.shape[1]]
    canvas[(columns - x) ** 2 + (rows - y) ** 2 <= radius**2] = 1


def _draw_mask(shape: dict[str, Any], points: NDArray[np.int32], canvas: NDArray[np.uint8], where: str) -> None:
    """A mask by its bounding box, first and last pixel, and a PNG in base64 of what is in it; 0 is outside."""
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    content = decode_base64(take(shape, "mask", str, where), f"{where}: mask")
    with picture_errors(f"{where}: mask"), Image.open(BytesIO(content)) as image:
        box = (int(right - left + 1), int(bottom - top + 1))
        if any(abs(side - wanted) > 1 for side, wanted in zip(image.size, box, strict=True)):
            raise DataError(f"{where}: mask: is {image.size} (w, h), but its points enclose {box}: they do not match")
        if image.mode not in ("1", "L"):
            raise DataError(f"{where}: mask: is {image.mode}, expected one number a pixel, 0 outside")
        if left < 0 or top < 0 or left + image.width > canvas.shape[1] or top + image.height > canvas.shape[0]:
            raise DataError(f"{where}: mask: reaches out of the picture: is it another's?")
        inside = np.asarray(image) != 0
    if not inside.any():
        raise DataError(f"{where}: mask: is empty; remove the shape")
    canvas[top : top + inside.shape[0], left : left + inside.shape[1]][inside] = 1


def decode_base64(text: str, where: str) -> bytes:
    """The bytes of base64 text. Raises DataError when it is none."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise DataError(f"{where}: is no base64: {error}") from None


def _objects(regions: list[Region], where: Path) -> Iterator[Region]:
    """Regions of one label and `group_id` as one each, at the place of the first.

    Of such an object, a shape that lies wholly inside the larger ones is a hole in them, and one inside a hole is not.
    Raises DataError when the holes leave nothing.
    """
    groups: dict[Any, list[Region]] = {}
    for number, region in enumerate(regions):
        key = (number,) if region.group is None else (region.name, region.group)
        groups.setdefault(key, []).append(region)
    for members in groups.values():
        yield members[0] if len(members) == 1 else _joined(members, where)


def _joined(members: list[Region], where: Path) -> Region:
    top, left = min(m.top for m in members), min(m.left for m in members)
    bottom = max(m.top + m.size[0] for m in members)
    right = max(m.left + m.size[1] for m in members)
    canvas, seen = np.zeros((bottom - top, right - left), bool), set()
    for member in sorted(members, key=lambda m: -m.area):
        place = (member.top, member.left, member.size, member.rle["counts"])
        if place not in seen:  # the same shape twice is no hole
            part = replace(member, top=member.top - top, left=member.left - left).within(canvas)
            inside = member.inside
            part[inside] = not part[inside].all()
        seen.add(place)
    if not canvas.any():
        raise DataError(f"{where}: nothing is left of {short(members[0].label)}: shapes of its group_id are its holes")
    return Region.of(members[0].label, members[0].group, top, left, canvas)
