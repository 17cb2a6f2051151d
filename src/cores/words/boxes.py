"""Boxes in a picture's pixels, and where they lie in a crop of it and in a segmenter's square.

A box is (left, top, right, bottom) as shares of nothing: floats in pixels, right and bottom just outside.
Legend: h, w = a picture's size in pixels, canvas = the segmenter's square.
"""

from cores.geometry import Size

Box = tuple[float, float, float, float]

MARGIN = 0.15  # of a location's box, added on each of its sides before the second look


def area(box: Box) -> float:
    """In square pixels; 0 for a box without width or height."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def iou(one: Box, other: Box) -> float:
    """Shared area over joint area, 0 to 1; 0 when either has none."""
    shared = area((max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])))
    joint = area(one) + area(other) - shared
    return shared / joint if shared else 0.0


def clip(box: Box, size: Size) -> Box | None:
    """The part of a box that lies in a picture (h, w); None when nothing of it does."""
    h, w = size
    found = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(w)), min(box[3], float(h)))
    return found if area(found) else None


def widen(box: Box, size: Size, margin: float = MARGIN) -> tuple[int, int, int, int]:
    """A box with a margin on each side, in whole pixels of the picture (h, w): what is cut out for a second look."""
    across, down = (box[2] - box[0]) * margin, (box[3] - box[1]) * margin
    h, w = size
    left, top = max(0, int(box[0] - across)), max(0, int(box[1] - down))
    return left, top, min(w, max(left + 1, int(box[2] + across + 0.999))), min(h, max(top + 1, int(box[3] + down + 0.999)))


def shift(box: Box, left: float, top: float) -> Box:
    """A box in a crop whose corner is (left, top), in the picture that it was cut from."""
    return box[0] + left, box[1] + top, box[2] + left, box[3] + top


def to_canvas(box: Box, size: Size, resized: Size) -> Box:
    """A box of a picture (h, w), in pixels of the square that holds the picture at size `resized` in its corner."""
    down, across = resized[0] / size[0], resized[1] / size[1]
    return box[0] * across, box[1] * down, box[2] * across, box[3] * down
