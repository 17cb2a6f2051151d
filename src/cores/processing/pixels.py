"""Pictures as the language model's tower and the segmenter want them (the published programs' pixel rules).

Legend: h, w = the picture's own size after EXIF rotation; s, S = side of the square that the language model's tower
and the segmenter look at.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from cores.errors import DataError
from cores.geometry import Size, resized_size
from cores.picture_errors import opened_picture, picture_errors
from cores.prompts.styles import ClipFit

SAM_MEAN, SAM_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of grey values 0..255
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of grey values 0..1
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture, for both.

    `pixel_values` (3, s, s); `segmenter_pixels` (3, S, S); `size` (h, w); `resized` (h, w) inside the S square;
    `key` says which picture it is, whatever its file is called.
    """

    pixel_values: Tensor
    segmenter_pixels: Tensor
    size: Size
    resized: Size
    key: str


def open_picture(source: Path | str | Image.Image) -> Image.Image:
    """The picture as 8-bit RGB, turned as its EXIF says. Alpha is dropped, of 16 bits the upper 8 are taken.

    Raises DataError when it is missing, is no picture, is damaged, or its pixels are no grey values.
    """
    name = getattr(source, "filename", "") or "a picture" if isinstance(source, Image.Image) else source
    if isinstance(source, Image.Image):
        with picture_errors(name):
            return _rgb(ImageOps.exif_transpose(source), name)
    with opened_picture(source) as file:
        return _rgb(ImageOps.exif_transpose(file), name)


def _rgb(image: Image.Image, name: str | Path) -> Image.Image:
    if 0 in image.size:
        raise DataError(f"{name}: is {image.width} x {image.height} pixels large, there is nothing to see")
    if image.mode == "F":
        raise DataError(f"{name}: its pixels are floating-point numbers: save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise DataError(f"{name}: its pixels go from {values.min()} to {values.max()}: save it with 8 or 16 bits")
        image = Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode == "P":  # Pillow warns when a palette's own transparency gets lost
        image = image.convert("RGBA")
    return image.convert("RGB")


def for_segmenter(image: Image.Image, side: int) -> tuple[Tensor, Size]:
    """(3, side, side): longest side to `side`, antialiased bilinear, normalised, *then* padded with 0 right and below.

    Also gives the size (h, w) inside.
    """
    height, width = resized_size((image.height, image.width), side)
    small = image.resize((width, height), Image.Resampling.BILINEAR)
    values = torch.from_numpy(np.array(small, dtype=np.float32))  # (height, width, 3)
    values = (values - torch.tensor(SAM_MEAN)) / torch.tensor(SAM_STD)
    pixels = torch.zeros(3, side, side)
    pixels[:, :height, :width] = values.permute(2, 0, 1)
    return pixels, (height, width)


def for_language(image: Image.Image, side: int, fit: ClipFit) -> Tensor:
    """(3, side, side), normalised, bicubic.

    `crop`: short side to `side`, and the middle cut out, so that the ends of a long picture are not seen (LLaVA v1,
    published CoReS and LISA); `pad`: first made square with the mean colour on both sides (LLaVA-1.5).
    """
    width, height = image.size
    if fit == "pad":
        longest = max(image.size)
        square = Image.new("RGB", (longest, longest), tuple(int(255 * value) for value in CLIP_MEAN))
        square.paste(image, ((longest - width) // 2, (longest - height) // 2))
        seen = square.resize((side, side), Image.Resampling.BICUBIC)
    else:
        shortest = min(image.size)
        width, height = (int(side * length / shortest) for length in image.size)
        left, top = (width - side) // 2, (height - side) // 2
        seen = image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + side, top + side))
    values = torch.from_numpy(np.array(seen, dtype=np.float32) / 255)  # (side, side, 3)
    return ((values - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)).permute(2, 0, 1).contiguous()


def key_of(image: Image.Image) -> str:
    """A short name of the picture's pixels: equal pictures draw equal exemplars, wherever they lie."""
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()[:16]
