"""Pictures as they are read, and as the language model's tower wants them (the published programs' pixel rules).

Legend: h, w = the picture's own size after EXIF rotation; s, S = side of the square that the language model's tower
and the segmenter look at.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from cores.data.sample import Raster
from cores.errors import DataError
from cores.geometry import Size
from cores.picture_errors import opened_picture, picture_errors
from cores.processing.scaling import BAND, middle, scaled, scaled_square, size_of
from cores.prompts.styles import ClipFit

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of grey values 0..1
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture, for both.

    `pixels`: for the language model, as its `PixelRule` gives them; `layout`: ids that stand for them in a prompt;
    `segmenter_pixels` (3, S, S); `size` (h, w); `resized` (h, w) inside the S square; `key` says which picture it is,
    whatever its file is called (empty where nobody asks).
    """

    pixels: dict[str, Tensor]
    layout: tuple[int, ...]
    segmenter_pixels: Tensor
    size: Size
    resized: Size
    key: str

    @property
    def pixel_values(self) -> Tensor:
        """The language model's pixels alone: (3, s, s) of a square, else as the family has them."""
        return self.pixels["pixel_values"].squeeze(0)


def open_picture(source: Path | str | Image.Image) -> Image.Image:
    """The picture as 8-bit RGB, turned as its EXIF says. Alpha is dropped, of 16 bits the upper 8 are taken.

    Raises DataError when it is missing, is no picture, is damaged, or its pixels are no grey values.
    """
    name = getattr(source, "filename", "") or "a picture" if isinstance(source, Image.Image) else source
    if isinstance(source, Image.Image):
        with picture_errors(name):
            return _rgb(_upright(source), name)
    with opened_picture(source) as file:
        return _rgb(_upright(file), name)


def _upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF says; itself, not a copy, where there is nothing to turn."""
    image.load()  # Pillow turns a TIFF by itself here
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
    return ImageOps.exif_transpose(image) if turned else image


def _rgb(image: Image.Image, name: str | Path) -> Image.Image:
    if 0 in image.size:
        raise DataError(f"{name}: is {image.width} x {image.height} pixels large, there is nothing to see")
    if image.mode == "F":
        raise DataError(f"{name}: its pixels are floating-point numbers: save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise DataError(f"{name}: its pixels go from {values.min()} to {values.max()}: save it with 8 or 16 bits")
        image = Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode == "P":  # Pillow warns when a palette's own transparency gets lost
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def for_language(picture: Image.Image | Raster, side: int, fit: ClipFit) -> Tensor:
    """(3, side, side), normalised, bicubic.

    `crop`: short side to `side`, and the middle cut out, so that the ends of a long picture are not seen (LLaVA v1,
    published CoReS and LISA); `pad`: first made square with the mean colour on both sides (LLaVA-1.5).
    """
    if fit == "pad":
        red, green, blue = (int(255 * value) for value in CLIP_MEAN)
        seen = scaled_square(picture, side, (red, green, blue))
    else:
        picture = middle(picture) if isinstance(picture, Image.Image) else picture
        shortest = min(size_of(picture))
        height, width = (int(side * length / shortest) for length in size_of(picture))
        top, left = (height - side) // 2, (width - side) // 2
        seen = scaled(picture, (height, width), "bicubic")[top : top + side, left : left + side]
    values = torch.from_numpy(seen.astype(np.float32) / 255)  # (side, side, 3)
    return ((values - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)).permute(2, 0, 1).contiguous()


def key_of(image: Image.Image) -> str:
    """A short name of the picture's pixels: equal pictures draw equal exemplars, wherever they lie."""
    found = hashlib.sha256(repr(image.size).encode())
    for first in range(0, image.height, BAND):
        found.update(image.crop((0, first, image.width, min(first + BAND, image.height))).tobytes())
    return found.hexdigest()[:16]
