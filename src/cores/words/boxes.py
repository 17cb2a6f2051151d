"""Boxes in a picture's pixels: of crops, of a segmenter's square, and how alike two are.

A box is (left, top, right, bottom) in pixels, floats, right and bottom just outside.
Legend: h, w = a picture's size in pixels; canvas = the segmenter's square, which holds the picture at size `resized`.
"""

from collections.abc import Sequence
from math import ceil, floor

from cores.geometry import Size

Box = tuple[float, float, float, float]

MARGIN = 0.15  # of a location's box, added on each of its sides before the second look
SMALLEST = 28  # pixels of a side that is given a second look: models refuse thin strips


def area(box: Box) -> float:
    """In square pixels; 0 for a box without width or height."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def iou(one: Box, other: Box) -> float:
    """Shared area over joint area, 0 to 1."""
    shared = area((max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])))
    return shared / (area(one) + area(other) - shared) if shared else 0.0


def alike(one: Sequence[Box], other: Sequence[Box]) -> float:
    """How well two answers agree: the mean IoU of every box of either with the best one of the other."""
    each = [max((iou(a, b) for b in other), default=0.0) for a in one]
    each += [max((iou(a, b) for a in one), default=0.0) for b in other]
    return sum(each) / len(each) if each else 1.0


def clip(box: Box, size: Size) -> Box | None:
    """The part of a box that lies in a picture (h, w); None when nothing of it does."""
    h, w = size
    found = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(w)), min(box[3], float(h)))
    return found if area(found) else None


def widen(box: Box, size: Size) -> tuple[int, int, int, int]:
    """A box with a margin on each side, in whole pixels of a picture (h, w): what a second look is given."""
    left, right = _widen(box[0], box[2], size[1])
    top, bottom = _widen(box[1], box[3], size[0])
    return left, top, right, bottom


def _widen(low: float, high: float, side: int) -> tuple[int, int]:
    """One side's part of it: from 0 to `side` at most, `SMALLEST` pixels at least where the picture has them."""
    margin = max((high - low) * MARGIN, (SMALLEST - (high - low)) / 2)
    first, last = max(0, floor(low - margin)), min(side, ceil(high + margin))
    short = min(SMALLEST, side) - (last - first)
    if short > 0:  # the picture's edge is near
        first, last = (first, last + short) if first == 0 else (first - short, last)
    return first, last


def shift(box: Box, left: float, top: float) -> Box:
    """A box of a crop whose corner is (left, top), in the picture that it was cut from."""
    return box[0] + left, box[1] + top, box[2] + left, box[3] + top


def to_canvas(box: Box, size: Size, resized: Size) -> Box:
    """A box of a picture (h, w) in the canvas. Holds for padded and for squashed pictures: `resized` says which."""
    down, across = resized[0] / size[0], resized[1] / size[1]
    return box[0] * across, box[1] * down, box[2] * across, box[3] * down
