"""A picture at another size, antialiased: by Pillow, or, of a raster that shrinks, by PyTorch's kernels for bytes.

The kernels do Pillow's arithmetic (rows first, columns then, grey levels in between) with weights of 16 bits. They
differ from it by one grey level at most in all that was measured, noise included (`test_rasters.py`).

Legend: h, w = rows and columns; square = of the picture's longer side, with the picture in its middle.
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from cores.data.sample import Raster
from cores.geometry import Size

How = Literal["bilinear", "bicubic"]
Pixels = NDArray[np.uint8]
PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
BAND = 512  # rows that are worked on at once
SLIM, TALL = 64, 8192  # so many times as long as wide, and longer than so many pixels: a square would be mostly empty


def size_of(picture: Image.Image | Raster) -> Size:
    """(h, w) of the picture's file, upright."""
    return picture.size if isinstance(picture, Raster) else (picture.height, picture.width)


def scaled(picture: Image.Image | Raster, size: Size, how: How) -> Pixels:
    """An RGB picture at `size` (h, w): (h, w, 3). A raster must shrink."""
    if isinstance(picture, Raster):
        return _by_kernels(picture.values, size, how)
    return np.array(picture.resize(size[::-1], PILLOW[how]))


def scaled_square(picture: Image.Image | Raster, side: int, colour: tuple[int, int, int]) -> Pixels:
    """A picture in the middle of a square of a colour, scaled to `side`, bicubic: (side, side, 3).

    Rows are scaled first, so that the square is only made where it is narrow. Rows of a picture that is higher than
    wide are put between those of the square in bands.
    """
    if isinstance(picture, Raster):
        narrow = _narrow_by_kernels(picture, side, colour)
        return _by_kernels(narrow, (side, side), "bicubic")
    picture = _less_slim(picture)
    longest = max(picture.size)
    left, top = (longest - picture.width) // 2, (longest - picture.height) // 2
    small = Image.new("RGB", (side, longest), colour)
    if not left:
        small.paste(picture.resize((side, picture.height), PILLOW["bicubic"]), (0, top))
    for first in range(0, longest if left else 0, BAND):
        rows = min(BAND, longest - first)
        band = Image.new("RGB", (longest, rows), colour)
        band.paste(picture.crop((0, first, picture.width, first + rows)), (left, 0))
        small.paste(band.resize((side, rows), PILLOW["bicubic"]), (0, first))
    return np.array(small.resize((side, side), PILLOW["bicubic"]))


def _less_slim(picture: Image.Image) -> Image.Image:
    """A very slim picture with fewer pixels: a square of its length has far more of them than the picture."""
    longest, shortest = max(picture.size), min(picture.size)
    if longest <= max(TALL, SLIM * shortest):
        return picture
    width, height = (max(1, round(length * TALL / longest)) for length in picture.size)
    return picture.resize((width, height), PILLOW["bicubic"])


def middle(picture: Image.Image) -> Image.Image:
    """The middle of a very slim picture, of which `crop` sees no more."""
    longest, shortest = max(picture.size), min(picture.size)
    if longest <= SLIM * shortest:
        return picture
    cut = (longest - SLIM * shortest) // 2
    across, down = (cut, 0) if picture.width == longest else (0, cut)
    return picture.crop((across, down, picture.width - across, picture.height - down))


def _narrow_by_kernels(raster: Raster, side: int, colour: tuple[int, int, int]) -> Pixels:
    """The square's columns at `side`: (longest, side, 3)."""
    (height, width), longest = raster.values.shape[:2], max(raster.values.shape)
    # of a draft the square lies where it does around the whole picture, to the nearest of its fewer pixels
    left, top = (longest - width) // 2, (longest - height) // 2
    row = np.tile(np.array(colour, np.uint8), (longest, 1))  # (longest, 3)
    narrow = np.empty((longest, side, 3), np.uint8)
    narrow[:top], narrow[top + height :] = row[:side], row[:side]
    if not left:
        narrow[top : top + height] = _by_kernels(raster.values, (height, side), "bicubic")
        return narrow
    band = np.tile(row, (BAND, 1, 1))
    for first in range(0, height, BAND):
        rows = raster.values[first : first + BAND]
        band[: len(rows), left : left + width] = rows
        narrow[first : first + len(rows)] = _by_kernels(band[: len(rows)], (len(rows), side), "bicubic")
    return narrow


def _by_kernels(values: Pixels, size: Size, how: How) -> Pixels:
    """Bytes (h, w, 3) at a size (h, w)."""
    planes = torch.from_numpy(values).permute(2, 0, 1)[None]
    found = F.interpolate(planes, size, mode=how, antialias=True, align_corners=False)
    return found[0].permute(1, 2, 0).numpy()
