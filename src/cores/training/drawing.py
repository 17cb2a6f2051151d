"""The mixture as a data set for the Trainer: sample i of epoch e, in order, on any number of workers and ranks.

Nothing is remembered between samples, so a resumed run goes on with the next one and replays none.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from torch.utils.data import Dataset, Sampler

from cores.data.mixture import Mixture
from cores.data.sample import Sample
from cores.data.sources.base import Source
from cores.errors import DataError
from cores.processing.batch import Batch
from cores.processing.pixels import open_picture
from cores.processing.processor import CoresProcessor
from cores.recipe import Recipe

OpenSource = Callable[[str, Path | None], Source]  # a source by name, in a data directory or none
Key = tuple[int, int]  # epoch, index
Drawn = tuple[Sample, int, int]  # sample, epoch, index


class Draws(Dataset[Drawn]):
    """Samples of a mixture by (epoch, index). `length`: draws of an epoch; None for as many as there are images.

    A draw raises DataError as the mixture does.
    """

    def __init__(self, mixture: Mixture, length: int | None = None) -> None:
        self.mixture = mixture
        self.length = length or sum(len(source) for sources in mixture.sources for source in sources)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: Key) -> Drawn:
        return self.mixture[key], *key


class InOrder(Sampler[Key]):
    """(epoch, 0), (epoch, 1), ...: chance is the mixture's, not the order's."""

    def __init__(self, length: int) -> None:
        self.length, self.epoch = length, 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch, from 0, of the keys that come next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Key]:
        return ((self.epoch, index) for index in range(self.length))


class DrawnBatch(Batch):
    """A batch with what the trainer alone reads: how many `questions` it asks, and what its samples are called."""

    questions: int
    named: list[str]


class Collate:
    """Drawn samples as one batch of the processor; `dropped`: how many conversations did not fit into it whole."""

    def __init__(self, processor: CoresProcessor, seed: int) -> None:
        self.processor, self.seed = processor, seed

    def __call__(self, drawn: Sequence[Drawn]) -> DrawnBatch:
        samples, epochs, indices = zip(*drawn, strict=True)
        self.processor.dropped.clear()
        batch = self.processor.collate(samples, seed=self.seed, epoch=epochs[0], indices=indices)
        return {
            **batch,
            "dropped": self.processor.dropped.total(),
            "questions": int(batch["segment_ids"].amax(1).sum()),  # a row's conversations are numbered from 1
            "named": [called(sample) for sample in samples],
        }


def called(sample: Sample) -> str:
    """Where a sample came from and what it asks, for errors: source, picture, questions."""
    asked = ", ".join(repr(turn.query) for one in sample.conversations for turn in one.turns)
    return f"{sample.meta['source']}: {sample.name}: {asked}"


def draws_of(recipe: Recipe, open_source: OpenSource, seed: int, step: int) -> Draws:
    """What is asked in a run, in its order. `step`: pictures of an optimiser's step, over all processes.

    Raises DataError that names the recipe's key when a source cannot be opened.
    """
    directory = Path(recipe.data.dir) if recipe.data.dir else None
    families: dict[str, list[Source]] = {}
    for family, names in recipe.data.sources.items():
        try:
            families[family] = [open_source(name, directory) for name in names]
        except DataError as error:
            raise DataError(f"data.sources.{family}: {error}") from None
    mixture = Mixture(
        families,
        recipe.data.rates,
        questions=recipe.data.questions_per_image,
        seed=seed,
        explain=recipe.data.explain,
        on_bad=recipe.data.on_bad,
        open_picture=open_picture,
    )
    steps = recipe.data.steps_per_epoch or math.ceil(len(Draws(mixture)) / step)
    return Draws(mixture, steps * step)  # whole steps, so that an epoch is the same however it is cut
