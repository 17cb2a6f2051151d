"""How a question is asked: what every way of asking takes, in one place, and what ends an answer early."""

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TypedDict

from cores.data.sample import Form
from cores.errors import UserError


class How(TypedDict, total=False):
    """Keywords of every way of asking.

    max_seconds: an answer that takes longer is cut at its next token, counted from the call, with the picture's
        encoding. What was said until then is kept, with its masks.
    stop: asked before each token; True cuts the answer there, as `max_seconds` does.
    """

    max_seconds: float | None
    stop: Callable[[], bool] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One call's `How`, with `form` and `max_new_tokens`. Raises UserError that names what cannot be used."""

    form: Form | None = None
    max_new_tokens: int | None = None
    max_seconds: float | None = None
    stop: Callable[[], bool] | None = None

    def __post_init__(self) -> None:
        seconds = self.max_seconds
        if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or seconds < 0):
            raise UserError(f"max_seconds: found {seconds!r:.40}, expected a number of seconds from 0")
        if self.stop is not None and not callable(self.stop):
            raise UserError(f"stop: found {self.stop!r:.40}, expected a function that says whether to stop")

    @classmethod
    def of(cls, form: Form | None, max_new_tokens: int | None, how: How) -> "Options":
        """Raises UserError for a keyword that is none, too."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(how) - known)
        if unknown:
            raise UserError(f"there is no {unknown[0]!r} to ask with: take one of {', '.join(sorted(known))}")
        return cls(form=form, max_new_tokens=max_new_tokens, **how)

    def limit(self) -> Callable[[], bool] | None:
        """Says whether to go on, from now; None where nothing ends an answer early."""
        if self.max_seconds is None and self.stop is None:
            return None
        ends = None if self.max_seconds is None else time.monotonic() + self.max_seconds
        return lambda: not ((ends is not None and time.monotonic() >= ends) or (self.stop is not None and self.stop()))
