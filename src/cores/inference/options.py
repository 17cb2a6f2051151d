"""How a question is asked: what every way of asking takes, in one place, and what ends an answer early."""

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Required, TypedDict, get_args

from cores.asking.asker import ChainRule
from cores.data.sample import Form
from cores.errors import UserError
from cores.inference.drawing import DRAWING


class How(TypedDict, total=False):
    """Keywords of every way of asking.

    explain: the reason is wanted, too: queries are asked in the form `explain`; a phrase becomes a question first.
    chain: `constrained`: every answer holds each level's token (see `asking.constrained`, which says how), unless
        `stop` or `max_seconds` cuts it. It is said a token a pass. `free`: as the model says it.
    threshold: a mask has the pixels that are more probable than this; 0.5 without it.
    fill_holes: a mask has what it encloses, too.
    refine: each target's last mask is decoded once more, with itself as its prompt (docs/predict.md: what that does).
    think: tokens of free reasoning before each answer, at most; 0 without it. For models that learned to
        (docs/reinforce.md): others lose their chain behind it. Not together with `chain="constrained"`.
    max_seconds: an answer that takes longer is cut at its next token, counted from the call, with the picture's
        encoding. What was said until then is kept, with its masks.
    stop: asked before each token; True cuts the answer there, as `max_seconds` does.
    """

    explain: bool
    chain: ChainRule
    threshold: float
    fill_holes: bool
    refine: bool
    think: int
    max_seconds: float | None
    stop: Callable[[], bool] | None


class HowDrawn(How, total=False):
    """Keywords of asking for several answers to each question, drawn by chance from one reading of the picture.

    samples: how many, from 1.
    temperature: how freely words are drawn; 1 (without it) by the model's own probabilities, towards 0 the likeliest
        ever more often. 0 is for one sample alone: the answer that is given without `samples`.
    top_p: words are drawn from the likeliest that have so much of the probability together; 1 without it: from all.
    seed: the same seed draws the same answers to the same question, whatever is asked beside it; 0 without it.

    `chain="constrained"` does not go with it.
    """

    samples: Required[int]
    temperature: float
    top_p: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One call's `How`, with `form` and `max_new_tokens`. Raises UserError that names what cannot be used."""

    form: Form | None = None
    max_new_tokens: int | None = None
    explain: bool = False
    chain: ChainRule = "free"
    threshold: float = 0.5
    fill_holes: bool = False
    refine: bool = False
    think: int = 0
    max_seconds: float | None = None
    stop: Callable[[], bool] | None = None

    def __post_init__(self) -> None:
        if self.explain and self.form not in (None, "explain"):
            raise UserError(f"explain: does not go with form={self.form!r}: leave one of them out")
        if self.chain not in get_args(ChainRule):
            raise UserError(f"chain: found {self.chain!r:.40}, expected {' or '.join(get_args(ChainRule))}")
        if not (isinstance(self.threshold, (int, float)) and 0 < self.threshold < 1):
            raise UserError(f"threshold: found {self.threshold!r:.40}, expected a probability above 0 and below 1")
        seconds = self.max_seconds
        number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if seconds is not None and not (number and seconds >= 0):
            raise UserError(f"max_seconds: found {seconds!r:.40}, expected a number of seconds from 0")
        if self.stop is not None and not callable(self.stop):
            raise UserError(f"stop: found {self.stop!r:.40}, expected a function that says whether to stop")

    @classmethod
    def of(cls, form: Form | None, max_new_tokens: int | None, how: How) -> "Options":
        """Raises UserError for a keyword that is none, too."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(how) - known)
        if unknown and unknown[0] in DRAWING:
            raise UserError(f"{unknown[0]}: answers are drawn by a model's `segment` and `ask`: leave it out here")
        if unknown:
            raise UserError(f"there is no {unknown[0]!r} to ask with: take one of {', '.join(sorted(known))}")
        return cls(form=form, max_new_tokens=max_new_tokens, **how)

    def limit(self) -> Callable[[], bool] | None:
        """Says whether to go on, from now; None where nothing ends an answer early."""
        if self.max_seconds is None and self.stop is None:
            return None
        ends = None if self.max_seconds is None else time.monotonic() + self.max_seconds
        return lambda: not ((ends is not None and time.monotonic() >= ends) or (self.stop is not None and self.stop()))
