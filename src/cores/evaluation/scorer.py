"""What scores a model during training: some sources, each rank a share of their pictures."""

from collections.abc import Iterator, Sequence
from typing import Any

from cores.data.sample import Sample
from cores.data.sources.base import Source
from cores.evaluation.evaluator import evaluate
from cores.evaluation.metrics import MaskMetrics
from cores.evaluation.sample_asker import Mode
from cores.modeling.model import CoresModel
from cores.processing.processor import CoresProcessor


class Scorer:
    """Mask metrics of a model on one rank's share of the pictures; those of all ranks add up with `+`.

    `limit`: pictures of each source, None for all; `answers`: how it answers (see `evaluate`); `seed`: for exemplars
    drawn at random; `think`: tokens of free reasoning before a generated answer.
    """

    def __init__(self, sources: Sequence[Source], limit: int | None, answers: Mode, seed: int, think: int = 0) -> None:
        self.sources, self.limit, self.answers, self.seed, self.think = sources, limit, answers, seed, think

    def __call__(self, model: CoresModel, processor: CoresProcessor, rank: int, world: int) -> MaskMetrics:
        share = Share(self.sources, self.limit, rank, world)
        how: dict[str, Any] = {"seed": self.seed, "think": self.think, "progress": False, "sanity": False}
        result = evaluate(model, processor, share, (self.answers,), **how)
        return result.scores[self.answers].masks


class Share:
    """Every `world`-th picture of some sources, from the `rank`-th on; at most `limit` of each source."""

    def __init__(self, sources: Sequence[Source], limit: int | None, rank: int, world: int) -> None:
        every = [(source, i) for source in sources for i in range(min(len(source), limit or len(source)))]
        self.pictures = every[rank::world]

    def __len__(self) -> int:
        return len(self.pictures)

    def __iter__(self) -> Iterator[Sample]:
        return (source[i] for source, i in self.pictures)
