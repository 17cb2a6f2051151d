"""The model at the start of a run, which the one that trains may not leave too far behind (the KL term)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from cores.modeling.model import CoresModel
from cores.modeling.packed_states import packed_states


class Start:
    """What of the language model trains, as it was when this was made: of LoRA its adapters alone are kept twice."""

    def __init__(self, model: CoresModel) -> None:
        self.model = model
        self.weights = {
            name: weight.detach().clone() for name, weight in model.mllm.named_parameters() if weight.requires_grad
        }

    @contextmanager
    def back(self) -> Iterator[None]:
        """Inside, the model is as it was at the start."""
        trained = {name: weight for name, weight in self.model.mllm.named_parameters() if name in self.weights}
        now = {name: weight.data for name, weight in trained.items()}
        try:
            for name, weight in trained.items():
                weight.data = self.weights[name]
            yield
        finally:
            for name, weight in trained.items():
                weight.data = now[name]

    @torch.no_grad()
    def log_probabilities(
        self, input_ids: Tensor, segment_ids: Tensor, pixels: dict[str, Tensor], places: Tensor, words: Tensor, temperature: float
    ) -> Tensor:
        """Of the words (drawn,) predicted at these places, counted along all rows in turn, by the model at the start."""
        with self.back():
            states = packed_states(self.model.mllm, input_ids, segment_ids, pixels)
            logits: Tensor = self.model.mllm.logits(states.flatten(0, 1)[places])
            return (logits.float() / temperature).log_softmax(-1).gather(1, words[:, None])[:, 0]
