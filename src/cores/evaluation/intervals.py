"""How far a figure might lie from that of other pictures like these: 95 % intervals by the bootstrap over images.

Images are drawn with replacement, as many as there are; each draw gives every figure again from the images' own sums.
Questions of one image stay together, since they share its difficulty. All figures see the same draws, so that the
interval of a difference is that of the paired difference.
"""

from array import array
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from cores.evaluation.metrics import Ratio

RESAMPLES = 2000
LEVEL = 0.95
BLOCK = 2**22  # draws that are made at once
Path = TypeVar("Path", bound=Hashable)
Interval = tuple[float, float]


class PerImage(Generic[Path]):
    """Each image's part of every figure, as a sum over a sum. Images that add nothing to a figure take no room."""

    def __init__(self) -> None:
        self.images = 0
        self.parts: dict[Path, tuple[array[int], array[float], array[float]]] = {}

    def add(self, ratios: Mapping[Path, Ratio]) -> None:
        """Add an image's figures by their paths."""
        for path, (top, bottom) in ratios.items():
            if top or bottom:
                numbers, tops, bottoms = self.parts.setdefault(path, (array("q"), array("d"), array("d")))
                numbers.append(self.images)
                tops.append(top)
                bottoms.append(bottom)
        self.images += 1

    def table(self) -> tuple[list[Path], NDArray[np.float64]]:
        """The paths that have a part, and all parts: (images, 2, paths), tops and bottoms."""
        paths = list(self.parts)
        table = np.zeros((self.images, 2, len(paths)))
        for column, path in enumerate(paths):
            numbers, tops, bottoms = (np.frombuffer(part, part.typecode) for part in self.parts[path])
            table[numbers, 0, column], table[numbers, 1, column] = tops, bottoms
        return paths, table


def resampled(table: NDArray[np.float64], seed: int, resamples: int = RESAMPLES) -> NDArray[np.float64]:
    """Figures (resamples, paths) of images drawn again, nan where nothing is counted. `table` as `PerImage.table`."""
    images, _, paths = table.shape
    rng = np.random.default_rng(seed)
    found = np.full((resamples, paths), np.nan)
    rows = max(1, BLOCK // max(images, 1))
    for first in range(0, resamples, rows):
        count = min(rows, resamples - first)
        drawn = rng.integers(images, size=(count, images)) + np.arange(count)[:, None] * images
        times = np.bincount(drawn.reshape(-1), minlength=count * images).reshape(count, images).astype(np.float64)
        top, bottom = (times @ table[:, part] for part in (0, 1))
        np.divide(top, bottom, out=found[first : first + count], where=bottom > 0)
    return found


def interval(figures: NDArray[np.float64]) -> Interval:
    """Where the middle 95 % of figures (resamples,) lie; nan for both ends where there is none."""
    known = figures[~np.isnan(figures)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
