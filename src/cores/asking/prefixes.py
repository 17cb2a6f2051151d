"""Prefixes that were read already, kept for the next question about the same picture."""

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor

from cores.modeling.prefix_cache import PrefixCache

KEPT = 4  # pictures: 0.2 GB each for 7B in 16 bits and a prefix of 400 tokens


class Prefixes:
    """Of the `most` pictures that one model was asked about last. A picture that is gone takes its own with it."""

    def __init__(self, most: int = KEPT) -> None:
        self.most = most
        self.kept: WeakKeyDictionary[Any, tuple[list[int], PrefixCache]] = WeakKeyDictionary()

    def __reduce__(self) -> tuple[type["Prefixes"], tuple[int]]:
        return Prefixes, (self.most,)  # copies and pickles begin empty

    def of(
        self, images: Sequence[Any], ids: Sequence[Tensor], read: Callable[[Sequence[int]], Sequence[PrefixCache]]
    ) -> list[PrefixCache]:
        """The prefixes of `ids` (prefix,) before these pictures; `read` reads those, by number, that are not kept."""
        said = [one.tolist() for one in ids]
        found = [self.kept.pop(image, None) for image in images]
        missing = [n for n, (one, words) in enumerate(zip(found, said, strict=True)) if one is None or one[0] != words]
        for number, prefix in zip(missing, read(missing) if missing else (), strict=True):
            found[number] = (said[number], prefix)
        for image, one in zip(images, found, strict=True):
            assert one is not None
            self.kept[image] = one  # last: the latest
        for old in list(self.kept)[: -self.most]:
            del self.kept[old]
        return [one[1] for one in found if one is not None]
