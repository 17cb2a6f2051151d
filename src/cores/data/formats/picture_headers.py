"""What a picture's header says, without decoding it: its size and how EXIF turns it. And masks turned with it.

Legend: h, w = height and width in pixels. A picture's size is that *after* EXIF rotation unless called stored.
"""

import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from cores import masks
from cores.errors import DataError
from cores.masks import RLE
from cores.picture_errors import opened_picture

Size = tuple[int, int]
Kind = TypeVar("Kind", bound=np.generic)
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange height and width
LATE = (b"eXIf", b"iTXt", b"zTXt", b"tEXt")  # chunks of a PNG that may hold EXIF and stand behind its pixels


@dataclass(frozen=True, slots=True)
class Header:
    """`stored` (h, w) is what the file holds, `orientation` EXIF's 1 to 8 that turns it upright."""

    path: Path
    stored: Size
    orientation: int = 1

    @property
    def size(self) -> Size:
        """(h, w) after rotation."""
        return (self.stored[1], self.stored[0]) if self.orientation in SIDEWAYS else self.stored

    def turn(self, size: Size, what: str) -> bool:
        """Does a mask of this size have to be turned with the picture? Raises DataError when it fits neither way.

        A mask that has the rotated size is right as it is; one that has the stored size was drawn on the pixels as
        they lie in the file.
        """
        if size == self.size:
            return False
        if size == self.stored:
            return True
        also = f", {self.stored} as stored," if self.stored != self.size else ""
        raise DataError(
            f"{what} is {size} (h, w), but the picture {self.path} is {self.size}{also}: they do not match"
        )

    def upright(self, array: NDArray[Kind], what: str) -> NDArray[Kind]:
        """An array (h, w) of either size, as the rotated picture lies. Raises DataError for any other size."""
        return turned(array, self.orientation) if self.turn((array.shape[0], array.shape[1]), what) else array

    def upright_rle(self, rle: RLE, what: str) -> RLE:
        """Run lengths as the rotated picture lies; as they are where nothing turns. Raises DataError as `turn`."""
        if not self.turn((rle["size"][0], rle["size"][1]), what):
            return rle
        return masks.encode(np.ascontiguousarray(turned(masks.decode(rle), self.orientation)))


def turned(array: NDArray[Kind], orientation: int) -> NDArray[Kind]:
    """An array (h, w, ...) turned as EXIF's orientation (1 to 8) says: a view, (w, h, ...) for 5 to 8."""
    if orientation in SIDEWAYS:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def read_header(path: Path, content: bytes | None = None) -> Header:
    """The header of a picture's file, or of its content, under that name.

    Raises DataError when it is missing, no picture, or far too large.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd EXIF stops nobody from looking at the header
        with opened_picture(path, content) as image:
            width, height = _stored(image)
            orientation = _exif(image).get(ExifTags.Base.Orientation, 1)
    if not width or not height:
        raise DataError(f"{path}: is {width} x {height} pixels large, there is nothing to see")
    return Header(path, (height, width), orientation if orientation in range(1, 9) else 1)


def _stored(image: Image.Image) -> tuple[int, int]:
    """(width, height) as the file holds its pixels. Of a TIFF, which it turns itself, Pillow says them as turned."""
    if isinstance(image, TiffImageFile):
        return int(image.tag_v2[ExifTags.Base.ImageWidth]), int(image.tag_v2[ExifTags.Base.ImageLength])
    return image.size


def _exif(image: Image.Image) -> Image.Exif:
    """EXIF without decoding: Pillow decodes a whole PNG for it, in case it stands behind the pixels."""
    if not isinstance(image, PngImageFile) or image.fp is None or _speaks_late(image.fp):
        return image.getexif()
    return Image.Image.getexif(image)


def _speaks_late(file: IO[bytes]) -> bool:
    """Does a PNG have words behind its pixels?"""
    where, seen_pixels = file.tell(), False
    file.seek(8)
    try:
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"IEND":
                return False
            if seen_pixels and kind in LATE:
                return True
            seen_pixels |= kind == b"IDAT"
            file.seek(length + 4, 1)
        return False
    finally:
        file.seek(where)


def read_values(path: Path) -> NDArray[np.uint8]:
    """The numbers (h, w) in a label map; of a palette picture its indices, never its colours.

    Raises DataError when it cannot be read, has more than one number a pixel, or numbers beyond 0 to 255.
    """
    values = _pixels(path, ("L", "P", "1", "I", "I;16"), "one number a pixel (grey or palette)")
    if values.min() < 0 or values.max() > 255:
        raise DataError(f"{path}: has values from {values.min()} to {values.max()}, expected 0 to 255")
    return values.astype(np.uint8)


def _pixels(path: Path, modes: tuple[str, ...], wanted: str) -> NDArray[Any]:
    with opened_picture(path) as image:
        if image.mode not in modes:
            raise DataError(f"{path}: is {image.mode}, expected {wanted}")
        return np.asarray(image)


def decode_check(path: Path) -> None:
    """Decode a picture to its last pixel. Raises DataError when that fails."""
    _pixels(path, ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "I", "I;16", "I;16B"), "8 or 16 bits")
