"""Pictures as a segmenter wants them, by its family's row.

Legend: h, w = the picture's own size after EXIF rotation; S = side of the square that the segmenter looks at.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cores.geometry import Size, resized_size
from cores.segmenter_families import SEGMENTERS

BAND = 512  # rows that are worked on at once


def for_segmenter(image: Image.Image, side: int, kind: str = "sam", unseen: bool = False) -> tuple[Tensor, Size]:
    """(3, side, side), antialiased bilinear, normalised, *then* padded with 0 right and below where the family pads.

    Args: `kind`: the segmenter's model_type; `unseen`: no picture, (0, side, side). Also gives the size (h, w) inside
    the square.
    """
    family = SEGMENTERS[kind]
    height, width = resized_size((image.height, image.width), side, family.fit)
    if unseen:
        return torch.zeros(0, side, side), (height, width)
    if family.rounded:
        small = np.array(image.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)
    else:
        small = _unrounded(image, (width, height))
    values = (torch.from_numpy(small) - torch.tensor(family.mean)) / torch.tensor(family.std)  # (height, width, 3)
    pixels = torch.zeros(3, side, side)
    pixels[:, :height, :width] = values.permute(2, 0, 1)
    return pixels, (height, width)


def _unrounded(image: Image.Image, size: tuple[int, int]) -> NDArray[np.float32]:
    """The picture at a size (width, height), grey values not rounded: (height, width, 3).

    Pillow scales rows first and columns then; bands of rows keep floating-point numbers of a large picture few.
    """
    width, height = size
    found = np.empty((height, width, 3), dtype=np.float32)
    narrow = np.empty((image.height, width), dtype=np.float32)
    for number, colour in enumerate(image.split()):
        for first in range(0, image.height, BAND):
            band = colour.crop((0, first, image.width, min(first + BAND, image.height))).convert("F")
            narrow[first : first + BAND] = np.asarray(band.resize((width, band.height), Image.Resampling.BILINEAR))
        found[..., number] = np.asarray(Image.fromarray(narrow).resize(size, Image.Resampling.BILINEAR))
    return found
