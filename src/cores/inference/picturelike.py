"""What a caller may give as a picture, as one thing: a path or a Pillow image."""

import io
import re
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cores.errors import UserError
from cores.picture_errors import picture_errors

Picturelike = str | Path | Image.Image | NDArray[np.uint8] | bytes | BinaryIO

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|data:")  # a Path makes one stroke of two; C:/ is a drive


def as_picture(image: Picturelike) -> Path | Image.Image:
    """A path, a Pillow image, an array (H, W, 3) or (H, W) of uint8, or a picture file as bytes or open binary file.

    Raises UserError, which names what was found, for anything else; DataError when bytes are no picture.
    """
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
            raise UserError(f"image: expected (H, W, 3) or (H, W) of uint8, found {image.shape} of {image.dtype}")
        return Image.fromarray(image)
    if isinstance(image, (str, Path)):
        refuse_address(image)
        return Path(image)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _decoded(io.BytesIO(image), f"a picture of {len(image)} bytes")
    if isinstance(image, io.TextIOBase):
        raise UserError(f"image: {getattr(image, 'name', 'a file')} is open as text: open it with 'rb'")
    if hasattr(image, "read"):
        return _decoded(image, f"the picture in {getattr(image, 'name', 'an open file')}")
    raise UserError(
        f"image: found a {type(image).__name__}, expected a path, a Pillow image, an array (H, W, 3) of uint8, or a "
        "picture file as bytes or open binary file"
    )


def refuse_address(image: str | Path) -> None:
    """Raise UserError for a URL: pictures are taken from files, nothing is fetched."""
    if ADDRESS.match(str(image)):
        raise UserError(f"image: {str(image)[:200]} is an address: download the picture and give the file")


def _decoded(file: BinaryIO, name: str) -> Image.Image:
    with picture_errors(name):
        opened = Image.open(file)
        opened.load()
        return opened
