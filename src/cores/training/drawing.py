"""The mixture as a data set for the Trainer: sample i of epoch e, in order, on any number of workers and ranks.

Nothing is remembered between samples, so a resumed run goes on with the next one and replays none.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from torch.utils.data import Dataset, Sampler

from cores.data.mixture import Mixture
from cores.data.sample import Sample
from cores.data.sources.base import Source
from cores.errors import DataError
from cores.processing.pixels import open_picture
from cores.processing.processor import CoresProcessor
from cores.processing.rasters import QuickReader
from cores.recipe import Recipe
from cores.training.kept import Caches, read_kept, with_kept

OpenSource = Callable[[str, Path | None], Source]  # a source by name, in a data directory or none
Key = tuple[int, int]  # epoch, index
Drawn = tuple[Sample, int, int]  # sample, epoch, index
Failed = dict[Literal["error"], DataError]  # in the place of a batch: an error that leaves a worker loses its words


class Draws(Dataset[Drawn | DataError]):
    """Samples of a mixture by (epoch, index). `length`: draws of an epoch; None for as many as there are images.

    A draw gives the error that the mixture raises, and that of a file that cannot be read any more.
    """

    def __init__(self, mixture: Mixture, length: int | None = None) -> None:
        self.mixture = mixture
        self.length = length or sum(len(source) for sources in mixture.sources for source in sources)

    def read_for(self, processor: CoresProcessor, pixels: str) -> None:
        """From now on pictures are read as `data.pixels` says, for this processor."""
        self.mixture.open_picture = (
            open_picture if pixels == "exact" else QuickReader(processor.sizes, draft=pixels == "draft")
        )

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: Key) -> Drawn | DataError:
        try:
            return self.mixture[key], *key
        except DataError as error:
            return error
        except OSError as error:
            return DataError(f"{error.filename or error}: cannot be read any more: {error.strerror}")


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


class Collate:
    """Drawn samples as one batch of the processor; `dropped`: how many conversations did not fit into it whole.

    A batch that cannot be made is its first `error`.

    `questions`: how many it asks; `named`: what its samples are called; both for the trainer alone.

    With caches, `kept` is what they have of the batch's pictures (see `read_kept`), which are prepared no more.

    `mask_size`: see `CoresProcessor.collate`.
    """

    def __init__(
        self, processor: CoresProcessor, seed: int, caches: Caches | None = None, mask_size: int | None = None
    ) -> None:
        self.processor, self.seed, self.caches, self.mask_size = processor, seed, caches or {}, mask_size

    def __call__(self, drawn: Sequence[Drawn | DataError]) -> dict[str, Any] | Failed:
        for one in drawn:
            if isinstance(one, DataError):
                return {"error": one}
        try:
            return self._batch([one for one in drawn if not isinstance(one, DataError)])
        except DataError as error:
            return {"error": error}

    def _batch(self, drawn: Sequence[Drawn]) -> dict[str, Any]:
        samples, epochs, indices = zip(*drawn, strict=True)
        self.processor.dropped.clear()
        kept = read_kept(samples, self.caches)
        unseen = kept["segmenter"]["rows"] if "segmenter" in kept else ()
        drawing = {"seed": self.seed, "epoch": epochs[0], "indices": indices}
        batch = self.processor.collate(samples, **drawing, unseen=unseen, mask_size=self.mask_size)
        return {
            **(with_kept(batch, kept) if kept else batch),
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
