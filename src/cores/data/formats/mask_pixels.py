"""What is inside a mask that is given as pixels: a picture of it, or rows of numbers. One rule for all of them.

Colours decide, never the indices of a palette. Outside is black (0). Where there is one more colour, that is inside:
255, 1 or any other. Where there are greys in between, as soft edges, JPEG and probabilities make them, inside is what
reaches the middle of the scale: 1 of fractions, 255 of bytes, 65535 of 16 bits. What could as well be a map of labels
is refused.

Legend: h, w = height and width of the mask in pixels; levels = its grey values (h, w).
"""

import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from cores.data.formats.picture_headers import Header, read_header
from cores.errors import DataError
from cores.masks import Mask
from cores.picture_errors import opened_picture

RULE = "a mask is black outside and one other colour inside; greys in between count from the middle of the scale on"
LOSSY = ("JPEG", "MPO", "WEBP")  # formats that add noise of their own
GREYS, COLORS = ("1", "L", "I", "I;16", "I;16B", "F"), ("P", "PA", "RGB", "RGBA", "LA")
LABELS = 4  # this many levels without noise are classes, not soft edges
RICH = 32  # more levels than this are noise or a soft mask
NEAR = 1 / 16  # of the scale: as far as noise moves a level
STRAY = 0.01  # of the even pixels: what noise may leave at other levels
HUES = 0.4  # as far as noise moves the share of a colour in a bright one


def read_inside(path: Path, content: bytes | None = None, fits: Header | None = None) -> Mask:
    """The mask (h, w), True inside, of a picture's file, or of its content under that name; upright by its own EXIF.

    Args: `fits`: the picture that it belongs to; a mask of another size is refused before it is decoded.
    Raises DataError when it is no picture, and when its colours do not say what is inside.
    """
    if fits is not None:
        fits.turn(read_header(path, content).size, str(path))
    with opened_picture(path, content) as image:
        noisy = image.format in LOSSY
        if image.mode not in (*GREYS, *COLORS):
            raise DataError(f"{path}: is {image.mode}, expected a grey, palette or RGB picture: {RULE}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd EXIF
            image.load()  # Pillow turns a TIFF by itself here
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
            upright = ImageOps.exif_transpose(image) if turned else image  # a copy takes as long as reading it
        colored = upright.mode in COLORS or _sees_through(upright)
        levels = _grey_of(upright, str(path)) if colored else np.asarray(upright)
    return inside_numbers(levels, str(path), noisy)


def inside_numbers(values: NDArray[Any], where: str, noisy: bool = False) -> Mask:
    """The mask (h, w), True inside, of numbers (h, w) of any type. `noisy`: they went through a lossy format.

    Raises DataError, beginning with `where`, for what is no number and where the numbers do not say what is inside.
    """
    if values.ndim != 2 or values.dtype.kind not in "biuf":
        raise DataError(f"{where}: found an array {values.shape} of {values.dtype}, expected numbers (h, w)")
    if values.dtype == np.bool_ or not values.size:
        return values.astype(bool)
    low, top = values.min(), values.max()
    if not np.isfinite(low) or not np.isfinite(top) or low < 0:
        raise DataError(f"{where}: has values from {low:g} to {top:g}, expected 0 outside and 1 or 255 inside")
    found = _present(values)
    scale = 1 if values.dtype.kind == "f" and top <= 1 else next((s for s in (255, 0xFFFF) if top <= s), float(top))
    plain = not top or top >= scale / 2 or (top == int(top) and not noisy)
    if plain and (len(found) == 1 or (len(found) == 2 and low == 0)):
        return values > 0
    if top < scale / 2 or not _soft(values, found, scale, noisy):
        some = ", ".join(f"{level:g}" for level in found[:6]) + (", ..." if len(found) > 6 else "")
        raise DataError(
            f"{where}: has {len(found)} levels ({some}), which may be labels: {RULE}; save it in black and white"
        )
    return values >= scale / 2


def _soft(levels: NDArray[Any], found: NDArray[Any], scale: float, noisy: bool) -> bool:
    """Are the levels `found` between dark and bright only soft edges and noise, and not areas of their own?

    An area shows by its even pixels, those that are like all their neighbours: a mask has them at black and at one
    bright level.
    """
    loose = noisy or len(found) > RICH
    if not loose and len(found) <= LABELS:
        return False
    areas = _even(levels).astype(np.float64)
    bright = areas[areas >= scale / 2]
    usual = 0.0
    if bright.size:
        known, counts = np.unique(bright, return_counts=True)
        usual = known[counts.argmax()]
    if not loose:
        return not np.any((areas != 0) & (areas != usual))
    far = np.minimum(areas, np.abs(areas - usual)) > scale * NEAR
    between = (areas > scale / 4) & (areas < scale * 3 / 4)
    return int((far | between).sum()) <= STRAY * areas.size


def _even(levels: NDArray[Any]) -> NDArray[Any]:
    """The levels (pixels,) of those that are like their eight neighbours."""
    height, width = (max(0, side - 2) for side in levels.shape)
    middle = levels[1 : 1 + height, 1 : 1 + width]
    even = np.ones(middle.shape, bool)
    for down in range(3):
        for right in range(3):
            even &= middle == levels[down : down + height, right : right + width]
    return middle[even]


def _grey_of(image: Image.Image, where: str) -> NDArray[np.uint8]:
    """Levels (h, w) of a picture in colour: the strongest of red, green and blue.

    Raises DataError when it can be seen through, has two colours besides black, or a palette hides a difference.
    """
    if image.mode == "P":  # what is asked of its pixels can be asked of the indices that they have
        indices = np.asarray(image)
        used, level_of = _present(indices), np.zeros(256, np.uint8)
        strip = Image.frombytes("P", (len(used), 1), used.tobytes())
        strip.putpalette(image.getpalette() or [])
        strip.info = image.info
        level_of[used] = _grey_of_colours(strip, where)[0]
        return cv2.LUT(indices, level_of).astype(np.uint8, copy=False)
    return _grey_of_colours(image, where)


def _grey_of_colours(image: Image.Image, where: str) -> NDArray[np.uint8]:
    """As `_grey_of`, from the colour of each pixel."""
    if _sees_through(image) or image.mode in ("RGBA", "LA", "PA"):
        if np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
            raise DataError(f"{where}: can be seen through in places: {RULE}; save it without transparency")
    wanted = "RGBA" if _sees_through(image) else "RGB"
    colors = np.asarray(image if image.mode == wanted else image.convert(wanted))[..., :3]  # (h, w, 3)
    planes = [np.ascontiguousarray(colors[..., n]) for n in range(3)]
    levels: NDArray[np.uint8] = np.maximum(np.maximum(*planes[:2]), planes[2])
    if image.mode != "P" and np.array_equal(levels, np.minimum(np.minimum(*planes[:2]), planes[2])):
        return levels
    packed = colors.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    known = np.unique(packed)
    if image.mode == "P" and len(np.unique(np.asarray(image))) > len(known):
        raise DataError(f"{where}: its palette shows different indices in one colour: {RULE}")
    if len(known) == 2 and known[0] == 0:
        return levels
    found = known[:, None] >> np.array([16, 8, 0]) & 0xFF  # (colours, 3)
    found = found[found.max(-1) > 127]
    shares = found / found.max(-1, keepdims=True)  # of red, green and blue, the strongest 1
    if len(shares) and np.abs(shares - np.median(shares, axis=0)).max() > HUES:
        raise DataError(f"{where}: has {len(known)} colours, which may be labels: {RULE}; keep one object a mask")
    return levels


def _present(values: NDArray[Any]) -> NDArray[Any]:
    """Which values there are, sorted; of bytes in a twentieth of NumPy's time."""
    if values.dtype != np.uint8:
        return np.unique(values)
    counts = cv2.calcHist([np.ascontiguousarray(values)], [0], None, [256], [0, 256])
    return np.flatnonzero(counts).astype(np.uint8)


def _sees_through(image: Image.Image) -> bool:
    return "transparency" in image.info
