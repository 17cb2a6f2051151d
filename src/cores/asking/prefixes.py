"""Prefixes that were read already, kept for the next question about the same picture."""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor

from cores.modeling.generation import PrefixCache

KEPT = 4  # pictures: 0.2 GB each for 7B in 16 bits and a prefix of 400 tokens


class Prefixes:
    """Of the `most` pictures that one model was asked about last. A picture that is gone takes its own with it."""

    def __init__(self, most: int = KEPT) -> None:
        self.most = most
        self.kept: WeakKeyDictionary[Any, tuple[list[int], PrefixCache]] = WeakKeyDictionary()

    def __reduce__(self) -> tuple[type["Prefixes"], tuple[int]]:
        return Prefixes, (self.most,)  # copies and pickles begin empty

    def of(self, image: Any, ids: Tensor, read: Callable[[Tensor], PrefixCache]) -> PrefixCache:
        """The prefix of `ids` (prefix,) before this picture; `read` reads it where it is not kept."""
        said, found = ids.tolist(), self.kept.pop(image, None)
        if found is None or found[0] != said:
            found = (said, read(ids))
        self.kept[image] = found  # last: the latest
        for old in list(self.kept)[: -self.most]:
            del self.kept[old]
        return found[1]
