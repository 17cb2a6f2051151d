"""Boxes and outlines of masks, for programs that want no pixels."""

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from cores.masks import RLE, Mask

Box = tuple[int, int, int, int]
Polygon = NDArray[np.int32]


def box_of(rle: RLE) -> Box | None:
    """(left, top, right, bottom) in pixels, right and bottom just outside; None for an empty mask."""
    left, top, width, height = (int(n) for n in coco.toBbox({**rle, "counts": rle["counts"].encode("ascii")}))
    return (left, top, left + width, top + height) if width and height else None


def fill_holes(mask: Mask) -> Mask:
    """A mask (H, W) with all that it encloses: background from which no way leads to the border."""
    outside = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    cv2.floodFill(outside, None, (0, 0), 2)
    filled: Mask = outside[1:-1, 1:-1] != 2
    return filled


def polygons_of(mask: Mask) -> list[Polygon]:
    """The outer outline of each piece of a mask (H, W), (points, 2) of x, y: centres of its outermost pixels.

    A piece smaller than three points has as many as it has corners.
    """
    found, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [outline[:, 0].astype(np.int32) for outline in found]
