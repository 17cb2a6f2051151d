"""Pictures as a segmenter wants them, by its family's row.

Legend: h, w = the picture's own size after EXIF rotation; S = side of the square that the segmenter looks at.
"""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from cores.data.sample import Raster
from cores.geometry import Size, resized_size
from cores.processing.scaling import BAND, scaled, size_of
from cores.segmenter_families import SEGMENTERS


def for_segmenter(
    picture: Image.Image | Raster, side: int, kind: str = "sam", unseen: bool = False
) -> tuple[Tensor, Size]:
    """(3, side, side), antialiased bilinear, normalised, *then* padded with 0 right and below where the family pads.

    Args: `kind`: the segmenter's model_type; `unseen`: no picture, (0, side, side). Also gives the size (h, w) inside
    the square.
    """
    family = SEGMENTERS[kind]
    height, width = resized_size(size_of(picture), side, family.fit)
    if unseen:
        return torch.zeros(0, side, side), (height, width)
    small: NDArray[np.uint8] | NDArray[np.float32]  # (height, width, 3)
    small = scaled(picture, (height, width), "bilinear") if family.rounded else _unrounded(picture, (height, width))
    pixels = torch.zeros(3, side, side)
    for number, colour in enumerate(cv2.split(small)):  # one at a time: whole ones of floating-point numbers are slow
        inside = pixels[number, :height, :width].copy_(torch.from_numpy(colour))
        inside.sub_(torch.tensor(family.mean[number])).div_(torch.tensor(family.std[number]))
    return pixels, (height, width)


def _unrounded(picture: Image.Image | Raster, size: Size) -> NDArray[np.float32]:
    """The picture at a size (h, w), grey values not rounded: (h, w, 3).

    Pillow and PyTorch scale rows first and columns then; bands of rows keep floating-point numbers of a large picture
    few.
    """
    height, width = size
    found = np.empty((height, width, 3), dtype=np.float32)
    if isinstance(picture, Raster):
        for number, values in enumerate(cv2.split(picture.values)):
            rows = torch.from_numpy(values)
            bands = [_scaled(rows[first : first + BAND], width, 1) for first in range(0, len(rows), BAND)]
            found[..., number] = _scaled(torch.cat(bands), height, 0).numpy()
        return found
    narrow = np.empty((picture.height, width), dtype=np.float32)
    for number, colour in enumerate(picture.split()):
        for first in range(0, picture.height, BAND):
            band = colour.crop((0, first, picture.width, min(first + BAND, picture.height))).convert("F")
            narrow[first : first + BAND] = np.asarray(band.resize((width, band.height), Image.Resampling.BILINEAR))
        found[..., number] = np.asarray(Image.fromarray(narrow).resize((width, height), Image.Resampling.BILINEAR))
    return found


def _scaled(values: Tensor, length: int, axis: int) -> Tensor:
    """Values (h, w) with this length along one of their axes, fp32."""
    size = [length if number == axis else old for number, old in enumerate(values.shape)]
    return F.interpolate(values.float()[None, None], size, mode="bilinear", antialias=True, align_corners=False)[0, 0]
