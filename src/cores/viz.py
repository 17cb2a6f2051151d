"""Masks drawn on pictures, and sheets of captioned pictures. Pillow and numpy only.

Legend: h, w = height and width in pixels. A mask is (h, w), bool. Pictures come back as new RGB images.

Colours are Okabe and Ito's (Color Universal Design, 2008), which stay apart for every common kind of colour blindness;
each mask also has an outline with a light rim, so that it shows on any ground and without colour at all.
"""

import zlib
from collections.abc import Iterable, Sequence
from itertools import cycle

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance

from cores import fonts
from cores.errors import DataError

Mask = NDArray[np.bool_]
Color = tuple[int, int, int]

BLUE: Color = (0, 114, 178)
ORANGE: Color = (230, 159, 0)
GREEN: Color = (0, 158, 115)
VERMILION: Color = (213, 94, 0)
SKY: Color = (86, 180, 233)
PURPLE: Color = (204, 121, 167)
YELLOW: Color = (240, 228, 66)
PALETTE: tuple[Color, ...] = (ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE)


def fit(picture: Image.Image, masks: Sequence[Mask], longest: int) -> tuple[Image.Image, list[Mask]]:
    """A picture and its masks (h, w), scaled so that the longest side has `longest` pixels.

    For drawing and not for scoring.
    """
    scale = longest / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    colored = picture if picture.mode == "RGB" else picture.convert("RGB")  # which would copy a large one
    return colored.resize(size, Image.Resampling.LANCZOS), [fit_mask(mask, size) for mask in masks]


def fit_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    """A mask at (width, height) `size`: inside is where at least half of a pixel is covered."""
    if mask.shape == size[::-1]:
        return mask
    grey = Image.fromarray(mask.view(np.uint8) * 255)
    return np.asarray(grey.resize(size, Image.Resampling.BILINEAR)) > 127


def fade(picture: Image.Image, color: float = 0.15) -> Image.Image:
    """The picture with a share of its colour and a little lighter, so that masks drawn on it stand out."""
    pale = ImageEnhance.Color(picture.convert("RGB")).enhance(color)
    return Image.blend(pale, Image.new("RGB", picture.size, "white"), 0.25)


def overlay(
    picture: Image.Image, masks: Iterable[Mask], colors: Sequence[Color] = PALETTE, opacity: float = 0.45
) -> Image.Image:
    """The picture with each mask as a translucent fill and an outline, later masks above earlier ones.

    Args: `masks` each (h, w) of the picture's size, taken one at a time; `colors` are taken in turn; `opacity` of the
    fill, 0 to 1. Raises DataError when a mask is of another size.
    """
    pixels = np.array(picture.convert("RGB"))  # (h, w, 3) uint8
    line = max(1, round(max(pixels.shape[:2]) / 200))
    for mask, color in zip(masks, cycle(colors), strict=False):
        if mask.shape != pixels.shape[:2]:
            raise DataError(f"a mask of shape {mask.shape} does not fit a picture of {pixels.shape[:2]} (h, w)")
        tint = opacity * np.array(color, np.float32)
        pixels[mask] = ((1 - opacity) * pixels[mask].astype(np.float32) + tint).round().astype(np.uint8)
        pixels[_grown(mask, line) & ~mask] = 255
        pixels[mask & _grown(~mask, line)] = color
    return Image.fromarray(pixels)


def heat(
    picture: Image.Image, values: NDArray[np.float32], color: Color = VERMILION, opacity: float = 0.8
) -> Image.Image:
    """The faded picture with more colour where a value is higher, none where it is the lowest or nan.

    Args: `values` (h, w) of the picture's size; `opacity` at the highest, 0 to 1. Raises DataError for another size.
    """
    pixels = np.array(fade(picture), np.float32)  # (h, w, 3)
    if values.shape != pixels.shape[:2]:
        raise DataError(f"values of shape {values.shape} do not fit a picture of {pixels.shape[:2]} (h, w)")
    known = np.where(np.isnan(values), np.nanmin(values), values)
    share = opacity * (known - known.min()) / max(float(np.ptp(known)), 1e-12)
    drawn = (1 - share[..., None]) * pixels + share[..., None] * np.array(color, np.float32)
    return Image.fromarray(drawn.round().astype(np.uint8))


def caption(picture: Image.Image, text: str, size: int = 14, color: Color | None = None) -> Image.Image:
    """The picture with the text below it, wrapped to its width; `size` of the letters in pixels.

    `color`: a square of it before the text, as the key to a mask drawn in that colour. Letters that no font here has
    are shown escaped.
    """
    text, font = fonts.lettering(text, size)
    pad = size // 2
    indent = size + pad if color else 0
    lines = _wrap(text, font, picture.width - 2 * pad - indent)
    step = round(size * 1.35)
    result = Image.new("RGB", (picture.width, picture.height + pad * 2 + step * len(lines)), "white")
    result.paste(picture, (0, 0))
    pen = ImageDraw.Draw(result)
    if color:
        top = picture.height + pad + step // 2
        pen.rectangle((pad, top - size // 2 + 1, pad + size - 1, top + size // 2), fill=color)
    for i, line in enumerate(lines):
        pen.text((pad + indent, picture.height + pad + step * i), line, fill=(30, 30, 30), font=font)
    return result


def sheet(panels: Sequence[tuple[Image.Image, str]], columns: int = 4, width: int = 256, gap: int = 8) -> Image.Image:
    """A contact sheet: pictures scaled to `width` pixels with their captions, row by row, `gap` pixels apart.

    Args: `panels` pairs of picture and caption, at least one. Raises DataError when there is none.
    """
    if not panels:
        raise DataError("a contact sheet needs at least one picture, found none")
    cells = [caption(picture.convert("RGB").resize(_scaled(picture, width)), text) for picture, text in panels]
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    heights = [max(cell.height for cell in row) for row in rows]
    across = min(columns, len(cells))
    result = Image.new("RGB", (across * (width + gap) + gap, sum(heights) + gap * (len(rows) + 1)), "white")
    top = gap
    for row, height in zip(rows, heights, strict=True):
        for i, cell in enumerate(row):
            result.paste(cell, (gap + i * (width + gap), top))
        top += height + gap
    return result


def colors(count: int) -> list[Color]:
    """The palette's first `count` colours, from its beginning again when they run out."""
    return [PALETTE[i % len(PALETTE)] for i in range(count)]


def colors_of(labels: Sequence[str | None]) -> list[Color]:
    """A colour for each label: the same for the same label (whatever its case) here and in every other picture.

    Where two labels of one picture would share a colour, the later one takes the next that is free; so does each
    None, which stands for a mask without a label.
    """
    taken: dict[str, int] = {}
    found = []
    for number, label in enumerate(labels):
        key = f"\0{number}" if label is None else " ".join(label.lower().split())
        if key not in taken:
            first = 0 if label is None else zlib.crc32(key.encode()) % len(PALETTE)
            order = [(first + step) % len(PALETTE) for step in range(len(PALETTE))]
            taken[key] = min(order, key=list(taken.values()).count)
        found.append(PALETTE[taken[key]])
    return found


def _scaled(picture: Image.Image, width: int) -> tuple[int, int]:
    return width, max(1, round(picture.height * width / picture.width))


def _grown(mask: Mask, by: int) -> Mask:
    """The mask with `by` pixels more on every side."""
    for axis in (0, 1):
        padded = np.pad(mask, [(by + 1, by) if axis == n else (0, 0) for n in (0, 1)])
        inside = np.cumsum(padded, axis, dtype=np.int32)  # of all pixels up to here, so that any window is one step
        last, first = np.split(inside, [2 * by + 1], axis)[1], np.split(inside, [mask.shape[axis]], axis)[0]
        mask = last > first
    return mask


def _wrap(text: str, font: fonts.Font, width: float) -> list[str]:
    """Lines no wider than `width`, broken between words, or inside a word that alone is too wide."""
    lines = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            joined = f"{line} {word}" if line else word
            if font.getlength(joined) <= width:
                line = joined
                continue
            if line:
                lines.append(line)
            *whole, line = [word] if font.getlength(word) <= width else _broken(word, font, width)
            lines += whole
        lines.append(line)
    return lines


def _broken(word: str, font: fonts.Font, width: float) -> list[str]:
    """A word in pieces no wider than `width`, or of one letter. Each letter is measured once: words may be long."""
    pieces, taken = [""], 0.0
    for letter in word:
        wide = font.getlength(letter)
        if pieces[-1] and taken + wide > width:
            pieces.append("")
            taken = 0.0
        pieces[-1] += letter
        taken += wide
    return pieces
