"""The model at the start of a run, which the one that trains may not leave too far behind (the KL term)."""

from collections.abc import Iterator
from contextlib import contextmanager

from cores.modeling.model import CoresModel


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
