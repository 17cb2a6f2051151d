"""A training state of the published programs: their prefix taken off, and what LoRA learned added to its layers.

Such a state holds for each adapted layer the weight that it began with and two small matrices, A (r, in) and B
(out, r); the layer computes with weight + alpha / r * B A. The file tells r, but not alpha.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from cores.checkpoints.tensors.lazy import Entry, Tensors
from cores.errors import CheckpointError

PREFIX = "base_model.model."
PART = re.compile(r"(?P<layer>.+)\.lora_(?P<part>[A-Z]\w*)\.(?:(?P<adapter>[\w-]+)\.)?weight")
DEFAULT_ALPHA = 16.0  # what the published programs train with


class Adapted(NamedTuple):
    """One layer's matrices, by their keys."""

    a: str
    b: str


class Folded(Tensors):
    """Tensors under plain names; those of adapted layers are computed when they are read, in fp32.

    `adapted`: by plain name of the weight. `rank`: the largest of all of them, 0 where there are none.
    """

    def __init__(self, inner: Tensors, alpha: float = DEFAULT_ALPHA) -> None:
        """Raises CheckpointError when a matrix has no partner or no weight, or does not fit it."""
        self.inner, self.alpha = inner, alpha
        plain: dict[str, str] = {}
        parts: dict[str, dict[str, str]] = {}
        for key in inner:
            name = key.removeprefix(PREFIX)
            match = PART.fullmatch(name)
            if match:
                others = parts.setdefault(f"{match['layer']}.weight", {})
                if match["part"] in others:
                    raise CheckpointError(f"{key}: a second adapter on one layer; one can be folded in, not two")
                others[match["part"]] = key
                continue
            name = re.sub(r"\.base_layer(?=\.(?:weight|bias)$)", "", name)  # newer PEFT
            if name in plain:
                raise CheckpointError(f"{key} and {plain[name]} are the same tensor under two names: keep one")
            plain[name] = key
        self.plain = plain
        self.adapted = {name: self._pair(name, found) for name, found in parts.items()}
        self.rank = max((inner[pair.a].shape[0] for pair in self.adapted.values()), default=0)

    def _pair(self, name: str, found: dict[str, str]) -> Adapted:
        if set(found) != {"A", "B"}:
            raise CheckpointError(f"{name}: expected lora_A and lora_B beside it, found {', '.join(found.values())}")
        if name not in self.plain:
            raise CheckpointError(f"{found['A']}: there is no weight that it goes with; expected {name}")
        pair = Adapted(found["A"], found["B"])
        a, b, weight = (self.inner[key].shape for key in (*pair, self.plain[name]))
        if len(a) != 2 or len(b) != 2 or a[0] != b[1] or (b[0], a[1]) != weight:
            raise CheckpointError(f"{name} is {weight}, its lora_A {a} and lora_B {b} do not fit it")
        return pair

    def __getitem__(self, name: str) -> Entry:
        entry = self.inner[self.plain[name]]
        if name not in self.adapted:
            return entry
        pair = self.adapted[name]
        rank = self.inner[pair.a].shape[0]
        how = f"weight + {self.alpha:g} / {rank} * B A, in fp32"
        return Entry(entry.shape, entry.dtype, (self.plain[name], *pair), how)

    def __iter__(self) -> Iterator[str]:
        return iter(self.plain)

    def __len__(self) -> int:
        return len(self.plain)

    def tensor(self, key: str) -> Tensor:
        """The weight as it is, or with alpha / r * B A added, in its own dtype and shape (out, in)."""
        weight = self.inner.tensor(self.plain[key])
        if key not in self.adapted:
            return weight
        a, b = self.matrices(key)
        return (weight.float() + self.alpha / a.shape[0] * (b @ a)).to(weight.dtype)

    def matrices(self, name: str) -> tuple[Tensor, Tensor]:
        """A (r, in) and B (out, r) of an adapted weight, in fp32."""
        pair = self.adapted[name]
        return self.inner.tensor(pair.a).float(), self.inner.tensor(pair.b).float()

    def before(self, name: str) -> Tensor:
        """The weight (out, in) that an adapted layer began with."""
        return self.inner.tensor(self.plain[name])
