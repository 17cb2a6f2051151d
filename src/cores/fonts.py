"""A font that has the letters of a text; letters that no font here has are escaped, so that none is drawn as a box."""

from functools import cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

NO_LETTER = "\U0010fffe"  # never a letter: every font draws its sign for what it lacks
# Tried in turn where Pillow's own font, which is Latin, does not do: what Linux, macOS and Windows have.
SYSTEM = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "Arial Unicode.ttf",
    "PingFang.ttc",
    "arial.ttf",
    "msyh.ttc",
    "malgun.ttf",
    "seguisym.ttf",
)


def lettering(text: str, size: int) -> tuple[str, Font]:
    """The text as it can be drawn, and the font to draw it with, its letters `size` pixels high.

    The first font that lacks the fewest letters; those are written as escapes such as \\u7bb1, as control signs always
    are.
    """
    shown = "".join(one if one.isprintable() or one.isspace() else _escaped(one) for one in text)
    letters = {one for one in shown if not one.isspace()}
    best = _own(size)
    lacks = _lacking(best, letters)
    for name in SYSTEM:
        font = _system(name, size) if lacks else None
        if font is not None and len(fewer := _lacking(font, letters)) < len(lacks):
            best, lacks = font, fewer
    return "".join(_escaped(one) if one in lacks else one for one in shown), best


def _escaped(one: str) -> str:
    return one.encode("unicode_escape").decode("ascii")


@cache
def _own(size: int) -> Font:
    return ImageFont.load_default(size)


@cache
def _system(name: str, size: int) -> Font | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


def _lacking(font: Font, letters: set[str]) -> set[str]:
    return {one for one in letters if not _draws(font, one)}


@cache
def _draws(font: Font, letter: str) -> bool:
    return letter.isascii() or bytes(font.getmask(letter)) != bytes(font.getmask(NO_LETTER))
