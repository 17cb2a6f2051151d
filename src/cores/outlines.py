"""Boxes and outlines of masks, for programs that want no pixels.

Legend: h, w = height and width in pixels; points = vertices (x, y), centres of pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from cores.masks import RLE, Mask

Box = tuple[int, int, int, int]
Polygon = NDArray[np.int32]


class Piece(NamedTuple):
    """A connected piece of a mask: the `outline` of it, and of its `holes`; each (points, 2) on outermost pixels."""

    outline: Polygon
    holes: tuple[Polygon, ...]


def fill_holes(mask: Mask) -> Mask:
    """A mask (h, w) with all that it encloses: background from which no way leads to the border."""
    outside = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    cv2.floodFill(outside, None, (0, 0), 2)
    filled: Mask = outside[1:-1, 1:-1] != 2
    return filled


def box_of(rle: RLE) -> Box | None:
    """(left, top, right, bottom) in pixels, right and bottom just outside; None for an empty mask."""
    left, top, width, height = (int(n) for n in coco.toBbox({**rle, "counts": rle["counts"].encode("ascii")}))
    return (left, top, left + width, top + height) if width and height else None


def polygons_of(mask: Mask) -> list[Polygon]:
    """The outer outline of each piece of a mask (h, w), (points, 2) of x, y: centres of its outermost pixels.

    A piece smaller than three points has as many as it has corners.
    """
    found, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [outline[:, 0].astype(np.int32) for outline in found]


def pieces_of(mask: Mask) -> list[Piece]:
    """All pieces of a mask (h, w) with their holes; a piece that lies in another's hole comes after that one.

    `filled` of the outline sets and `filled` of the holes clears: piece by piece, that paints exactly this mask.
    """
    found = []
    left: list[tuple[Mask, NDArray[np.int32]]] = [(mask, np.zeros(2, np.int32))]
    for region, corner in left:  # which grows meanwhile: by what lies in holes
        for outline in polygons_of(region):
            low, high = outline.min(axis=0), outline.max(axis=0) + 1
            window = region[low[1] : high[1], low[0] : high[0]]
            holes = polygons_of(filled([outline - low], window.shape) & ~window)
            found.append(Piece(outline + corner, tuple(hole + low + corner for hole in holes)))
            islands = filled(holes, window.shape) & window
            if islands.any():
                left.append((islands, corner + low))
    return found


def filled(outlines: Sequence[Polygon], size: tuple[int, ...]) -> Mask:
    """The mask, of `size` (h, w), of all that outlines (points, 2) enclose, with the pixels on them."""
    canvas = np.zeros(size, np.uint8)
    for outline in outlines:
        cv2.drawContours(canvas, [outline[:, None]], -1, 1, cv2.FILLED)
    return canvas.view(bool)
