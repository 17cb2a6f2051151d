"""Pictures of strangers: known formats, so many pixels, one still picture; all that is checked before decoding."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO

from PIL import Image

from cores.errors import DataError
from cores.picture_errors import picture_errors
from cores.processing.pixels import key_of, open_picture

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")  # decoders without programs or files of their own
NAME = "the picture"


def key_of_content(picture: bytes | Image.Image) -> str:
    """A name that equal pictures share, of a file's bytes or of a Pillow image's pixels."""
    return hashlib.sha256(picture).hexdigest() if isinstance(picture, bytes) else key_of(picture)


def pixels_of(picture: bytes | Image.Image, most: int) -> int:
    """How many pixels there are, by the file's header alone. Raises DataError for no picture, and more than `most`."""
    if isinstance(picture, Image.Image):
        width, height = picture.size
    else:
        with picture_errors(NAME), Image.open(BytesIO(picture), formats=FORMATS) as opened:
            width, height = opened.size
    if width * height > most:
        raise DataError(
            f"{NAME}: has {width} x {height} pixels, at most {most:,} are taken: make it smaller and send it again"
        )
    return width * height


def decoded(picture: bytes | Image.Image) -> Image.Image:
    """8-bit RGB, turned as its EXIF says; of an animation its first picture. Raises DataError for a damaged one."""
    if isinstance(picture, Image.Image):
        return open_picture(picture)
    with picture_errors(NAME), Image.open(BytesIO(picture), formats=FORMATS) as opened:
        return open_picture(opened)


class Room:
    """Pixels that may stand decoded in memory at one time; who finds no room waits for it."""

    def __init__(self, pixels: int) -> None:
        self.pixels, self.taken = pixels, 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def of(self, pixels: int) -> AsyncIterator[None]:
        """Room for so many; a picture that is larger than all of it has it alone."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self.taken or self.taken + pixels <= self.pixels)
            self.taken += pixels
        try:
            yield
        finally:
            self.taken -= pixels
            await asyncio.shield(self._tell())

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
