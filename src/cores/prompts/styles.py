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


class LossWeights(NamedTuple):
    """Weights of the total: `text` and `mask` of the two halves, `bce` and `dice` inside the second (section 3.4)."""

    text: float
    mask: float
    bce: float
    dice: float


class Style(NamedTuple):
    """Everything that a style decides.

    `exemplars`: in-context examples before the question. `on_absent`: what is taught about a thing that is not there.
    `hierarchy`: does the system text announce the chain? `closed`: does each part of the system text end in a blank?
    `tokens`: each level's grounding token. `levels`: of the chain, where nobody says. `clip_fit`: how a picture
    becomes square for the language model. `ignore_255`: are ignored pixels left out of the losses (else they train
    as background)? `losses`: their weights. `refiner_twice`: are both mask losses counted twice with the published
    refiner?
    """

    exemplars: Exemplars
    on_absent: OnAbsent
    hierarchy: bool
    closed: bool
    tokens: dict[LevelName, str]
    levels: int
    clip_fit: ClipFit
    ignore_255: bool
    losses: LossWeights
    refiner_twice: bool = False


STYLES: dict[str, Style] = {
    "paper": Style(
        exemplars="random",
        on_absent="refuse",
        hierarchy=True,
        closed=False,
        tokens=TOKENS,
        levels=2,
        clip_fit="pad",
        ignore_255=True,
        losses=LossWeights(text=0.5, mask=0.5, bce=2.0, dice=0.5),
    ),
    "published": Style(
        exemplars="fixed",
        on_absent="empty_mask",
        hierarchy=True,
        closed=True,
        tokens=PUBLISHED_TOKENS,
        levels=2,
        clip_fit="crop",
        ignore_255=False,
        losses=LossWeights(text=1.0, mask=1.0, bce=2.0, dice=0.5),
        refiner_twice=True,
    ),
    "lisa": Style(
        exemplars="none",
        on_absent="refuse",
        hierarchy=False,
        closed=False,
        tokens=TOKENS,
        levels=1,
        clip_fit="crop",
        ignore_255=False,
        losses=LossWeights(text=1.0, mask=1.0, bce=2.0, dice=0.5),
    ),
}
STYLE_NAMES: tuple[str, ...] = tuple(STYLES)
