"""A grid of what a model points at: a row a picture, with its question, every level's masks, and the truth."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice

import numpy as np
import torch
from PIL import Image

from cores import viz
from cores.asking.asker import Asker
from cores.data.sample import Sample
from cores.data.sources.base import Source
from cores.evaluation.evaluator import evaluating
from cores.evaluation.metrics import MaskMetrics
from cores.evaluation.sample_asker import Mode, Question, SampleAsker, questions_of
from cores.masks import Mask
from cores.modeling.model import CoresModel
from cores.processing.pixels import open_picture
from cores.processing.processor import CoresProcessor

WIDTH = 224  # pixels of a panel


class Gallery:
    """Draws the same questions of some sources again each time it is called.

    `count`: pictures, spread over the sources; fewer where fewer have a question with a target; `answers`: how the
    model answers (see `evaluate`); `seed`: for exemplars drawn at random; `think`: tokens of free reasoning before a
    generated answer. Drawing raises DataError as `evaluate` does.
    """

    def __init__(self, sources: Sequence[Source], count: int, answers: Mode, seed: int, think: int = 0) -> None:
        self.sources, self.count, self.answers, self.seed, self.think = sources, count, answers, seed, think

    @torch.no_grad()
    def __call__(self, model: CoresModel, processor: CoresProcessor) -> Image.Image | None:
        """The grid; None when no picture has a question with a target. The model comes back in the mode it was in."""
        asker = Asker(model, processor, self.seed, think=self.think)
        with evaluating(model):
            panels = [panel for sample, question in self.chosen for panel in self._row(asker, sample, question)]
        return viz.sheet(panels, columns=len(asker.levels) + 2, width=WIDTH) if panels else None

    @cached_property
    def chosen(self) -> list[tuple[Sample, Question]]:
        """Pictures, each with its first question that has a target: as many of every source, from all over it."""
        each = -(-self.count // max(len(self.sources), 1))
        return [found for source in self.sources for found in islice(_asked(source, each), each)][: self.count]

    def _row(self, asker: Asker, sample: Sample, question: Question) -> Iterator[tuple[Image.Image, str]]:
        (before,) = SampleAsker.look(asker, [sample])
        (answer,) = before.ask([question], self.answers)
        levels = [before.full_size(logits) for logits in answer.low_res_logits]
        nothing = np.zeros(sample.size, dtype=bool)
        score = MaskMetrics()
        for n, truth in enumerate(question.truth):
            score.update(levels[-1][n] if n < len(levels[-1]) else nothing, truth, before.ignore)
        picture = open_picture(sample.image)
        yield viz.fit(picture, [], WIDTH)[0], question.turn.query
        for name, masks in zip(asker.levels, levels, strict=True):
            last = name == asker.levels[-1]
            yield _drawn(picture, masks), f"{name}, IoU {score.compute()['giou']:.2f}" if last else name
        yield _drawn(picture, question.truth), "truth"


def _asked(source: Source, count: int) -> Iterator[tuple[Sample, Question]]:
    """Pictures of a source that have a question with a target: first some from all over it, then the others."""
    order = dict.fromkeys([n * len(source) // count for n in range(count)])
    for i in (*order, *(i for i in range(len(source)) if i not in order)):
        sample = source[i]
        found = next((question for question in questions_of(sample) if question.truth), None)
        if found is not None:
            yield sample, found


def _drawn(picture: Image.Image, masks: Sequence[Mask]) -> Image.Image:
    small, fitted = viz.fit(picture, masks, WIDTH)
    return viz.overlay(viz.fade(small), fitted, viz.colors(len(fitted)))
