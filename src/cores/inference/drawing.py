"""Several answers to one question, drawn by chance: how many, how freely, and the likeliest first."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from cores.errors import UserError
from cores.inference.segmentation import Segmentation
from cores.modeling.sampling import Sampling


@dataclass(frozen=True, slots=True)
class Draws:
    """So many `samples` of each question. The others as `HowDrawn` says. Raises UserError that names what is wrong."""

    samples: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("samples", 1), ("seed", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise UserError(f"{name}: found {value!r:.40}, expected a whole number from {least}")
        for name in ("temperature", "top_p"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise UserError(f"{name}: found {value!r:.40}, expected a number")
        try:
            sampling = self.sampling
        except ValueError as error:
            raise UserError(str(error)) from None
        if self.samples > 1 and sampling.temperature == 0:
            raise UserError(
                f"temperature: found 0, so that all {self.samples} answers would be the same: take more, or samples=1"
            )

    @property
    def sampling(self) -> Sampling:
        """How words are drawn."""
        return Sampling(self.temperature, self.top_p)

    @classmethod
    def of(cls, how: Mapping[str, Any]) -> "Draws | None":
        """What some keywords of asking say of draws; None for none. Raises UserError for any without `samples`."""
        given = {name: how[name] for name in DRAWING if name in how}
        if given and "samples" not in given:
            raise UserError(f"{next(iter(given))}: is for drawn answers: say how many, such as samples=8")
        return cls(**given) if given else None


DRAWING = tuple(field.name for field in fields(Draws))  # keywords that are about draws alone


def likeliest_first(answers: Iterable[Segmentation]) -> list[Segmentation]:
    """Answers by their `score`, highest first; equal ones as they were drawn."""
    return sorted(answers, key=lambda answer: -answer.score)
