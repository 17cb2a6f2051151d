"""Features of pictures that were seen, as many as fit into so many bytes: the one that was used last goes last."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor


class FeatureCache:
    """By a picture's key. Several threads may use it. `most`: bytes; 0 keeps nothing.

    `held`: bytes that are kept; `hits`, `misses`: how often `get` found something, or nothing.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = self.hits = self.misses = 0
        self._kept: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str) -> Any | None:
        """What is kept for this picture."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                self.misses += 1
                return None
            self.hits += 1
            self._kept.move_to_end(key)
            return found[0]

    def put(self, key: str, encoded: Any) -> None:
        """Keep what a model has seen of a picture, and forget what there is no room for."""
        size = size_of(encoded)
        with self._lock:
            if key in self._kept:
                self.held -= self._kept.pop(key)[1]
            if size > self.most:
                return
            self._kept[key] = encoded, size
            self.held += size
            while self.held > self.most:
                self.held -= self._kept.popitem(last=False)[1][1]


def size_of(value: Any) -> int:
    """Bytes of all tensors, arrays and pictures in a value, wherever in it they are."""
    if isinstance(value, (Tensor, np.ndarray)):
        return int(value.nbytes)
    if isinstance(value, Image.Image):
        return value.width * value.height * len(value.getbands())
    if is_dataclass(value):
        return sum(size_of(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, Mapping):
        return sum(size_of(one) for one in value.values())
    if isinstance(value, (list, tuple)):
        return sum(size_of(one) for one in value)
    return 0
