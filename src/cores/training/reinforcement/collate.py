"""Pictures and questions as a batch whose answers are still to be drawn."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cores.processing.processor import CoresProcessor
from cores.training.drawing import Collate, Drawn, called


class PolicyCollate(Collate):
    """As `Collate`, in the wordings of questions that are asked. `supervised`: with the given answers.

    A batch has its `samples`, too, and of each the `key` that the chance of its answers hangs on.
    """

    def __init__(self, processor: CoresProcessor, seed: int, mask_size: int | None, supervised: bool) -> None:
        super().__init__(processor, seed, mask_size=mask_size)
        self.supervised = supervised

    def _batch(self, drawn: Sequence[Drawn]) -> dict[str, Any]:
        samples, epochs, indices = zip(*drawn, strict=True)
        given = samples if self.supervised else [replace(sample, conversations=()) for sample in samples]
        batch = self.processor.collate(given, self.seed, epochs[0], indices, mode="val", mask_size=self.mask_size)
        return {
            **batch,
            "dropped": 0,
            "questions": sum(len(sample.conversations) for sample in samples),
            "named": [called(sample) for sample in samples],
            "samples": list(samples),
            "keys": [(self.seed, epoch, index) for epoch, index in zip(epochs, indices, strict=True)],
        }
