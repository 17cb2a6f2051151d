"""Masks as run lengths: compressed COCO RLE, by way of pycocotools.

Legend: h, w = height and width of the picture in pixels. Arrays are (h, w), True inside.
"""

from collections.abc import Sequence
from typing import TypedDict

import cv2
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
    pixels = mask.view(np.uint8)
    # one column after the other: numpy takes several times as long
    found = coco.encode(cv2.transpose(pixels).T if mask.size else np.asfortranarray(pixels))
    return {"size": [int(n) for n in found["size"]], "counts": found["counts"].decode("ascii")}


def decode(rle: RLE) -> Mask:
    """The mask (h, w), bool, of run lengths. Raises DataError when they do not fill their own size."""
    height, width = rle["size"]
    if height < 1 or width < 1 or (found := runs(rle["counts"])) is None or int(found.sum()) != height * width:
        raise DataError(f"run lengths do not fill their size, {height} x {width} (h x w)")
    # pycocotools would read the runs again, and swallows a Ctrl-C that comes while it hands its array to numpy
    inside = (np.arange(len(found)) & 1).astype(np.uint8)
    columns = np.repeat(inside, found).reshape(width, height)  # one after the other
    mask: Mask = cv2.transpose(columns).view(bool)  # rows: numpy takes four times as long
    return mask


def runs(counts: str) -> NDArray[np.int64] | None:
    """The lengths (runs,) in compressed counts: outside, inside, outside, ... None when they are no such lengths.

    Each is written five bits a letter, lowest first, the third and later ones as the difference to the last but one
    (COCO's mask API).
    """
    if not counts or not counts.isascii():
        return None
    letters = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - ord("0")
    if letters.min() < 0 or letters.max() > 0x3F or letters[-1] & 0x20:
        return None
    ends = np.flatnonzero(~letters & 0x20)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(letters)) - np.repeat(starts, ends - starts + 1)
    if place.max() > 6:
        return None
    values = np.add.reduceat((letters & 0x1F) << 5 * place, starts)
    values -= np.where(letters[ends] & 0x10, 1 << 5 * (place[ends] + 1), 0)
    values[1::2] = values[1::2].cumsum()
    values[2::2] = values[2::2].cumsum()
    return None if values.min() < 0 else values


def union_rle(rles: Sequence[RLE], size: tuple[int, int]) -> RLE:
    """Run lengths of the pixels inside any of the masks, without decoding one; `size` (h, w), when there is none.

    All must be of that size, which is not compared here, and hold no run of no length (`encode` and `compress` leave
    none): COCO's library would stop there.
    """
    if not rles:
        return encode(np.zeros(size, dtype=bool))
    stored = [{"size": rle["size"], "counts": rle["counts"].encode("ascii")} for rle in rles]
    found = coco.merge(stored)
    return {"size": [int(n) for n in found["size"]], "counts": found["counts"].decode("ascii")}


def area(rle: RLE) -> int:
    """How many pixels are inside; 0 for counts that cannot be read."""
    lengths = runs(rle["counts"])
    return 0 if lengths is None else int(lengths[1::2].sum())


def compress(lengths: Sequence[int], size: tuple[int, int]) -> str:
    """Compressed counts of run lengths (outside, inside, outside, ...) that fill `size` (h, w); none inside is 0 long.

    Nothing of the mask is made. COCO's library stops at a run of no length when it joins masks, so such runs go.
    """
    tidy: list[int] = [0]
    for number, length in enumerate(lengths):
        if not length:
            continue
        if number % 2 == (len(tidy) - 1) % 2:
            tidy[-1] += length
        else:
            tidy.append(length)
    found = coco.frPyObjects({"size": list(size), "counts": tidy}, *size)
    return str(found["counts"].decode("ascii"))
