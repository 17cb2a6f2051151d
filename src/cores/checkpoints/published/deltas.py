"""LLaVA v1 as it was released: differences to LLaMA, which has a licence of its own.

A tensor of LLaVA is the base's plus the delta's. Where the delta has more rows (new tokens), those are whole; tensors
that the base lacks (the projector) are whole, too.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from cores.checkpoints.published.keys import ignored
from cores.checkpoints.tensors.lazy import Entry, Tensors
from cores.errors import CheckpointError


class Summed(Tensors):
    """A delta's tensors with the base's added as they are read, in the delta's dtype."""

    def __init__(self, base: Tensors, delta: Tensors) -> None:
        """Raises CheckpointError that names every tensor of the base that the delta has no place for."""
        self.base, self.delta = base, delta
        wrong = []
        for key, entry in base.items():
            if ignored(key) is not None:
                continue
            if key not in delta:
                wrong.append(f"{key} is not in the delta")
            elif not covers(delta[key].shape, entry.shape):
                wrong.append(f"{key} is {entry.shape}, the delta's is {delta[key].shape}")
        if wrong:
            raise CheckpointError(
                "the base is not the LLaMA that this delta was made from, nothing was read:\n  " + "\n  ".join(wrong)
            )

    def __getitem__(self, key: str) -> Entry:
        entry = self.delta[key]
        if ignored(key) is not None:
            return entry
        if key not in self.base:
            return entry._replace(how="whole in the delta")
        rows, more = self.base[key].shape[0], entry.shape[0] - self.base[key].shape[0]
        how = "base + delta" if not more else f"base + delta, {more} rows beyond the base's {rows} whole in the delta"
        return Entry(entry.shape, entry.dtype, entry.made_of, how)

    def __iter__(self) -> Iterator[str]:
        return iter(self.delta)

    def __len__(self) -> int:
        return len(self.delta)

    def tensor(self, key: str) -> Tensor:
        """The sum in fp32, in the delta's shape and dtype; the delta alone where the base has nothing."""
        delta = self.delta.tensor(key)
        if key not in self.base or ignored(key) is not None:
            return delta
        base = self.base.tensor(key)
        rows = base.shape[0]
        sum_ = (base.float() + delta[:rows].float()).to(delta.dtype)
        return sum_ if rows == delta.shape[0] else torch.cat([sum_, delta[rows:]])


def covers(delta: tuple[int, ...], base: tuple[int, ...]) -> bool:
    """Is a delta of this shape the base's, or that with more rows?"""
    if len(delta) != len(base):
        return False
    return delta == base or (len(base) == 2 and delta[1] == base[1] and delta[0] > base[0])
