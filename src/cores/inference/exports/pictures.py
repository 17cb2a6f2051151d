"""Answers drawn: over the picture where it is known, else over a plain ground; for files, notebooks and matplotlib."""

import base64
import html
from io import BytesIO
from typing import TYPE_CHECKING, Any

from PIL import Image

from cores import viz
from cores.errors import DataError
from cores.inference.picturelike import Picturelike, as_picture
from cores.processing.pixels import open_picture

if TYPE_CHECKING:
    from cores.inference.segmentation import Segmentation

LONGEST = 4096  # pixels of an overlay's longer side: more is drawn smaller
SMALL = 512  # the same in a notebook, which keeps what it shows
GROUND = (236, 236, 236)


def captioned(found: "Segmentation", picture: Picturelike | None, longest: int) -> Image.Image:
    """`marked`, with query, answer and the names of the targets below it."""
    drawn = marked(found, picture, longest)
    size = min(max(drawn.width // 50, 12), 64)  # of the letters
    drawn = viz.caption(drawn, found.query, size)
    drawn = viz.caption(drawn, _said(found), size)
    named = {target.phrase: color for target, color in zip(found.targets, found.colors, strict=True) if target.named}
    for phrase, color in named.items():
        drawn = viz.caption(drawn, phrase, size, color)
    return drawn


def marked(found: "Segmentation", picture: Picturelike | None, longest: int) -> Image.Image:
    """The picture with each target in its colour, at most `longest` pixels on its longer side.

    Without a picture: the one that the answer knows, else a plain ground. Raises DataError when it is not of this
    answer's size or cannot be read, UserError when it is no picture at all.
    """
    opened = _opened(found, picture, longest)
    if max(opened.size) > longest:
        opened, _ = viz.fit(opened, [], longest)
    return viz.overlay(opened, (viz.fit_mask(target.mask, opened.size) for target in found.targets), found.colors)


def _opened(found: "Segmentation", picture: Picturelike | None, longest: int) -> Image.Image:
    height, width = found.size
    if picture is not None:
        opened = open_picture(as_picture(picture))
        if (opened.height, opened.width) != found.size:
            said = f"the picture is {opened.height} x {opened.width} (h x w)"
            raise DataError(f"overlay: {said}, the answer is about one of {height} x {width}")
        return opened
    if (known := found.picture) is not None:
        return known
    scale = min(1.0, longest / max(found.size))
    return Image.new("RGB", (max(1, round(width * scale)), max(1, round(height * scale))), GROUND)


def _said(found: "Segmentation") -> str:
    return f"{found.answer} [cut]" if found.cut else found.answer


def as_html(found: "Segmentation") -> str:
    """A small figure that needs nothing from elsewhere: the picture inside, query, answer and scores below."""
    file = BytesIO()
    marked(found, None, SMALL).save(file, "JPEG", quality=85)
    content = base64.b64encode(file.getvalue()).decode("ascii")
    lines = [f"<b>{html.escape(found.query)}</b>", html.escape(_said(found))]
    for number, (target, color) in enumerate(zip(found.targets, found.colors, strict=True), 1):
        name = html.escape(target.phrase) if target.named else f"target {number}"
        lines.append(f'<span style="color: rgb{color}">&#9632;</span> {name}, score {target.score:.2f}')
    picture = f'<img style="max-width: 100%" alt="{html.escape(repr(found))}" src="data:image/jpeg;base64,{content}">'
    below = f"<figcaption>{'<br>'.join(lines)}</figcaption>"
    return f'<figure style="margin: 0; max-width: {SMALL}px">{picture}{below}</figure>'


def plot(found: "Segmentation", picture: Picturelike | None, axes: Any) -> Any:
    """Draw on matplotlib's axes, by default new ones, and give them; without matplotlib Pillow shows it: None.

    Raises as `marked`.
    """
    try:
        from matplotlib import pyplot
    except ImportError:
        captioned(found, picture, LONGEST).show(found.query)
        return None
    axes = pyplot.subplots()[1] if axes is None else axes
    axes.imshow(marked(found, picture, LONGEST))
    axes.set_title(f"{found.query}\n{_said(found)}", wrap=True, parse_math=False)  # a $ is a $
    axes.set_axis_off()
    return axes
