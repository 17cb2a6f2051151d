"""The mixture as a data set for the Trainer: sample i of epoch e, in order, on any number of workers and ranks.

Nothing is remembered between samples, so a resumed run goes on with the next one and replays none.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from torch.utils.data import Dataset, Sampler

from cores.data.mixture import Mixture
from cores.data.sample import Sample
from cores.errors import DataError
from cores.processing.batch import Batch
from cores.processing.processor import CoresProcessor

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


class DrawnBatch(Batch):
    """A batch with what the trainer alone reads: how many `questions` it asks, and what its samples are called."""

    questions: int
    named: list[str]


class Collate:
    """Drawn samples as one batch of the processor; `dropped`: how many conversations did not fit into it whole.

    A batch that cannot be made is its first `error`.
    """

    def __init__(self, processor: CoresProcessor, seed: int) -> None:
        self.processor, self.seed = processor, seed

    def __call__(self, drawn: Sequence[Drawn | DataError]) -> DrawnBatch | Failed:
        for one in drawn:
            if isinstance(one, DataError):
                return {"error": one}
        try:
            return self._batch([one for one in drawn if not isinstance(one, DataError)])
        except DataError as error:
            return {"error": error}

    def _batch(self, drawn: Sequence[Drawn]) -> DrawnBatch:
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
