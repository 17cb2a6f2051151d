"""What a style is: the choices of the paper, of the published CoReS programs, and of LISA, wherever they differ.

A recipe names a style, and each of its choices can be set otherwise there. Sources: paper sections 3.1 and 3.4; the
published training programs for the other two.
"""

from typing import Literal, NamedTuple

from cores.vocabulary import PUBLISHED_TOKENS, TOKENS, LevelName

StyleName = Literal["paper", "published", "lisa"]
Exemplars = Literal["none", "fixed", "random"] | int
OnAbsent = Literal["refuse", "empty_mask"]
ClipFit = Literal["pad", "crop"]


class Style(NamedTuple):
    """Everything that a style decides.

    `exemplars`: in-context examples before the question. `on_absent`: what is taught about a thing that is not there.
    `hierarchy`: does the system text announce the chain? `closed`: does each part of the system text end in a blank?
    `tokens`: each level's grounding token. `levels`: of the chain, where nobody says. `clip_fit`: how a picture
    becomes square for the language model. What it decides about losses stands with them, in `loss_keys.py`.
    """

    exemplars: Exemplars
    on_absent: OnAbsent
    hierarchy: bool
    closed: bool
    tokens: dict[LevelName, str]
    levels: int
    clip_fit: ClipFit


STYLES: dict[str, Style] = {
    "paper": Style(
        exemplars="random",
        on_absent="refuse",
        hierarchy=True,
        closed=False,
        tokens=TOKENS,
        levels=2,
        clip_fit="pad",
    ),
    "published": Style(
        exemplars="fixed",
        on_absent="empty_mask",
        hierarchy=True,
        closed=True,
        tokens=PUBLISHED_TOKENS,
        levels=2,
        clip_fit="crop",
    ),
    "lisa": Style(
        exemplars="none",
        on_absent="refuse",
        hierarchy=False,
        closed=False,
        tokens=TOKENS,
        levels=1,
        clip_fit="crop",
    ),
}
STYLE_NAMES: tuple[str, ...] = tuple(STYLES)
