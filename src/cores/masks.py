"""Masks as run lengths: compressed COCO RLE, by way of pycocotools.

Legend: h, w = height and width of the picture in pixels. Arrays are (h, w), True inside.
"""

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from cores.errors import DataError

Mask = NDArray[np.bool_]


class RLE(TypedDict):
    """Compressed COCO run lengths: `size` is [h, w], `counts` a str."""

    size: list[int]
    counts: str


def encode(mask: Mask) -> RLE:
    """Run lengths of a mask.

    Args: `mask` (h, w), bool. Raises DataError when it is of another shape or type.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise DataError(f"a mask is a (h, w) array of bool, found shape {mask.shape} of {mask.dtype}")
    found = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(n) for n in found["size"]], "counts": found["counts"].decode("ascii")}


def decode(rle: RLE) -> Mask:
    """The mask (h, w), bool, of run lengths. Raises DataError when they do not fill their own size."""
    height, width = rle["size"]
    try:
        found = coco.decode({"size": [height, width], "counts": rle["counts"].encode("ascii")})
    except (ValueError, UnicodeEncodeError) as error:
        raise DataError(f"run lengths of size {height}x{width} cannot be decoded: {error}") from None
    return found.astype(bool)


def union(masks: list[Mask], size: tuple[int, int]) -> Mask:
    """Pixels inside any of the masks, each (h, w); all False when there is none. `size` is (h, w)."""
    total = np.zeros(size, dtype=bool)
    for mask in masks:
        if mask.shape != size:
            raise DataError(f"a mask of shape {mask.shape} does not fit a picture of {size}")
        total |= mask
    return total
