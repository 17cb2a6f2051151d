"""Pictures in a terminal: in its own graphics where its environment says that it has them, else as half blocks.

Legend: columns = of the terminal; a cell shows two pixels, one above the other, each in a colour of its own.
"""

import base64
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal, TextIO, get_args

if TYPE_CHECKING:
    from PIL import Image

Graphics = Literal["kitty", "iterm2", "sixel", "blocks", "none"]
GRAPHICS = get_args(Graphics)

LONGEST = 800  # pixels of a picture's longer side in the terminal's own graphics
COLUMNS = 80  # most that half blocks take
CHUNK = 4096  # letters of one of kitty's messages
COLORS = 64  # of a sixel picture
KITTY = ("xterm-kitty", "xterm-ghostty")  # TERM
SIXEL = ("foot", "mlterm", "contour", "yaft")  # how TERM begins


def graphics_of(environment: Mapping[str, str], terminal: TextIO) -> Graphics:
    """What a terminal can show, by its environment; nothing is asked of it."""
    if not terminal.isatty() or environment.get("TERM", "dumb") == "dumb":
        return "none"
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if "TMUX" not in environment and not term.startswith("screen"):  # those pass no graphics on
        if term in KITTY or "KITTY_WINDOW_ID" in environment or program == "ghostty":
            return "kitty"
        if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":
            return "iterm2"
        if "sixel" in term or term.startswith(SIXEL):
            return "sixel"
    return "blocks" if (terminal.encoding or "").lower().replace("-", "") == "utf8" else "none"


def draw(picture: "Image.Image", graphics: Graphics, terminal: TextIO, columns: int) -> None:
    """Write a picture (RGB) to a terminal of so many columns."""
    if graphics == "none":
        return
    if graphics == "blocks":
        text = blocks(fitted(picture, min(columns, COLUMNS)))
    else:
        text = OWN[graphics](_at_most(picture, LONGEST)) + "\n"
    terminal.write(text)
    terminal.flush()


def kitty(picture: "Image.Image") -> str:
    """As kitty's graphics protocol has it: PNG in base64, in chunks."""
    data = base64.b64encode(_png(picture)).decode()
    parts = [data[first : first + CHUNK] for first in range(0, len(data), CHUNK)]
    heads = ["f=100,a=T,", *[""] * (len(parts) - 1)]
    more = [1] * (len(parts) - 1) + [0]
    return "".join(f"\x1b_G{head}m={last};{part}\x1b\\" for head, last, part in zip(heads, more, parts, strict=True))


def iterm2(picture: "Image.Image") -> str:
    """As iTerm2's inline images have it."""
    data = _png(picture)
    return f"\x1b]1337;File=inline=1;size={len(data)}:{base64.b64encode(data).decode()}\x07"


def sixel(picture: "Image.Image") -> str:
    """As DEC's sixels have it: bands of six rows, one colour over the other."""
    import numpy as np

    few = picture.quantize(COLORS)
    palette, numbers = few.getpalette() or [], np.asarray(few)
    shares = [[round(value * 100 / 255) for value in palette[3 * n : 3 * n + 3]] for n in range(len(palette) // 3)]
    colors = "".join(f"#{n};2;{r};{g};{b}" for n, (r, g, b) in enumerate(shares))
    bands = []
    for top in range(0, few.height, 6):
        band = numbers[top : top + 6]
        weights = 1 << np.arange(len(band))[:, None]
        lines = [f"#{n}{''.join(_runs(((band == n) * weights).sum(0).tolist()))}" for n in np.unique(band).tolist()]
        bands.append("$".join(lines))
    return f'\x1bP0;1q"1;1;{few.width};{few.height}{colors}{"-".join(bands)}\x1b\\'


def _runs(bits: list[int]) -> Iterator[str]:
    """Sixels of a row of numbers from 0 to 63, with repeats counted."""
    first = 0
    for place in range(1, len(bits) + 1):
        if place == len(bits) or bits[place] != bits[first]:
            count, letter = place - first, chr(63 + bits[first])
            yield f"!{count}{letter}" if count > 3 else letter * count
            first = place


def blocks(picture: "Image.Image") -> str:
    """Half blocks, of two rows of pixels a line: the upper one is the letter's colour, the lower one the ground's."""
    import numpy as np

    pixels = np.asarray(picture)
    lines = []
    for top, bottom in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        cells = (f"\x1b[38;2;{a};{b};{c};48;2;{d};{e};{f}m▀" for (a, b, c), (d, e, f) in zip(top, bottom, strict=True))
        lines.append("".join(cells) + "\x1b[0m\n")
    return "".join(lines)


OWN: dict[str, Callable[["Image.Image"], str]] = {"kitty": kitty, "iterm2": iterm2, "sixel": sixel}


def fitted(picture: "Image.Image", columns: int) -> "Image.Image":
    """The picture with as many pixels in a row as there are columns, and an even number of rows."""
    columns = max(min(columns, picture.width), 1)
    rows = max(round(picture.height * columns / picture.width / 2) * 2, 2)
    return picture.convert("RGB").resize((columns, rows))


def _at_most(picture: "Image.Image", longest: int) -> "Image.Image":
    small = picture.convert("RGB")
    small.thumbnail((longest, longest))
    return small


def _png(picture: "Image.Image") -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def graphics_here(wanted: str) -> Graphics:
    """What `--picture` asks for; `auto`: what this terminal can show."""
    for name in GRAPHICS:
        if name == wanted:
            return name  # type: ignore[no-any-return]
    return graphics_of(os.environ, sys.stdout)
