"""Pictures of a source with its questions and masks, as the model sees them: scaled, in its square, padded.

Legend: h, w = height and width of a picture, side = of the square, all in pixels.
"""

import base64
import html
from collections.abc import Sequence
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image

from cores import masks, viz
from cores.data.sample import Sample
from cores.masks import RLE, Mask

STYLE = (
    "body{font:15px/1.4 sans-serif;margin:24px;display:flex;flex-wrap:wrap;gap:20px}"
    "figure{margin:0;max-width:400px}img{max-width:100%}"
    "b{display:inline-block;width:.8em;height:.8em;margin-right:.4em}"
)


class Panel(NamedTuple):
    """A square picture, and the texts asked about it, each with the colour of its mask, None where there is none."""

    picture: Image.Image
    texts: list[tuple[str, viz.Color | None]]


def panel(sample: Sample, picture: Image.Image, side: int, size: tuple[int, int]) -> Panel:
    """What the model sees of a sample.

    Args: `picture`: decoded, upright; `size` (h, w): of its part of the square. Masks are scaled as the picture is.
    """
    texts: list[tuple[str, viz.Color | None]] = []
    found, labels = _masks(sample)
    colors = dict(zip(found, viz.colors_of(labels), strict=True))
    for talk in sample.conversations:
        for turn in talk.turns:
            said = turn.query if turn.answer is None else f"{turn.query} - {turn.answer}"
            if not turn.targets:
                texts.append((said if turn.answer else f"{said} (not there)", None))
            for number, target in enumerate(turn.targets):
                texts.append((said if not number else target.phrase or "and", colors[target.mask["counts"]]))
    square = Image.new("RGB", (side, side))
    square.paste(picture.convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR))
    if sample.ignore is not None:
        square = viz.overlay(square, [_placed(sample.ignore, side, size)], [(128, 128, 128)], 0.6)
    if found:
        square = viz.overlay(square, [_placed(mask, side, size) for mask in found.values()], list(colors.values()))
    return Panel(square, texts)


def _masks(sample: Sample) -> tuple[dict[str, RLE], list[str | None]]:
    """Each mask once, however often it is asked for, by its run lengths; and what it is called, for its colour."""
    found: dict[str, RLE] = {}
    labels: list[str | None] = []
    for turn in (turn for talk in sample.conversations for turn in talk.turns):
        for number, target in enumerate(turn.targets):
            if target.mask["counts"] not in found:
                found[target.mask["counts"]] = target.mask
                labels.append(target.phrase or (None if number else turn.query))
    return found, labels


def _placed(mask: RLE, side: int, size: tuple[int, int]) -> Mask:
    small = Image.fromarray(masks.decode(mask).astype(np.uint8) * 255).resize(size[::-1], Image.Resampling.BILINEAR)
    square = np.zeros((side, side), bool)
    square[: size[0], : size[1]] = np.asarray(small) > 127
    return square


def as_picture(panels: Sequence[Panel], width: int = 320) -> Image.Image:
    """One contact sheet; a square in the colour of its mask stands before every text.

    Args: `panels`: one at least; `width`: of each, in pixels. Raises DataError when there is none.
    """
    cells = []
    for one in panels:
        cell = one.picture.resize((width, width), Image.Resampling.LANCZOS)
        for text, color in one.texts:
            cell = viz.caption(cell, text, color=color)
        cells.append((cell, ""))
    return viz.sheet(cells, width=width)


def as_html(panels: Sequence[Panel], title: str) -> str:
    """One page with everything in it, the pictures as JPEG."""
    figures = []
    for one in panels:
        file = BytesIO()
        one.picture.save(file, "JPEG", quality=85)
        lines = []
        for text, color in one.texts:
            key = f'<b style="background:rgb{color}"></b>' if color else ""
            lines.append(f"<div>{key}{html.escape(text)}</div>")
        data = base64.b64encode(file.getvalue()).decode("ascii")
        figures.append(f'<figure><img src="data:image/jpeg;base64,{data}" alt="">{"".join(lines)}</figure>')
    name = html.escape(title)
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title><style>{STYLE}</style>'
    return f"{head}\n{''.join(figures)}</html>\n"
