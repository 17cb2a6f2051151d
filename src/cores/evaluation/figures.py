"""Every figure of one source with its interval, made of what was kept, in the order of the samples: the same to the
last digit however many processes found it, and in however many starts."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cores.evaluation.intervals import Interval, PerImage, interval, resampled
from cores.evaluation.journal import Kept
from cores.evaluation.metrics import MaskMetrics
from cores.evaluation.published import PublishedMeter
from cores.evaluation.result import Result, Score

FigurePath = tuple[str, ...]  # a mode, then the names in `Score.compute`


@dataclass
class Figures:
    """The sums of a source, and an interval for every figure by mode and path.

    `gaps`: by a figure's name, generated less teacher-forced, and its (paired) interval; `data`: a fingerprint of all
    samples; `published`: gIoU and cIoU as the published program prints them, under its protocol.
    """

    result: Result
    intervals: dict[FigurePath, Interval] = field(default_factory=dict)
    gaps: dict[str, tuple[float, Interval]] = field(default_factory=dict)
    data: str = ""
    published: dict[str, float] | None = None

    def compute(self) -> dict[str, Any]:
        """As `Result.compute`, each mode with its `intervals` under the same names; `gap`; `data`."""
        found = self.result.compute()
        for mode in self.result.scores:
            found[mode] |= self.published or {}
            found[mode]["intervals"] = _nested({p[1:]: list(i) for p, i in self.intervals.items() if p[0] == mode})
        gap = {name: {"difference": value, "interval": list(i)} for name, (value, i) in self.gaps.items()}
        return {**found, **({"gap": gap} if gap else {}), "data": self.data}


def figures(kept: Iterable[Kept], answers: Sequence[str], seed: int = 0, published: bool = False) -> Figures:
    """Add up samples in their order. `seed`: of the intervals' draws; `published`: by the published program's rule."""
    result = Result({mode: Score() for mode in answers})
    images: PerImage[FigurePath] = PerImage()
    digest, meter = hashlib.sha256(), PublishedMeter()
    for sample in kept:
        scores = {mode: Score(sanity=found) for mode, found in sample.sanity.items()}
        for counts in sample.counts:
            scores.setdefault(counts.mode, Score()).add(counts)
            if published:
                meter.add(counts.overlaps)
        for mode, score in scores.items():
            result.scores[mode] += score
        result.images += 1
        result.questions += sample.questions
        digest.update(sample.digest.encode())
        images.add({(mode, *path): r for mode, score in scores.items() for path, r in score.ratios().items()})
    paths, table = images.table()
    drawn = resampled(table, seed)
    column = {path: number for number, path in enumerate(paths)}
    found = Figures(
        result,
        {path: interval(drawn[:, number]) for path, number in column.items()},
        data=f"sha256:{digest.hexdigest()}",
        published=meter.compute() if published else None,
    )
    for name in MaskMetrics().ratios():
        both = [column.get((mode, name)) for mode in ("generated", "teacher-forced")]
        if None not in both:
            one, two = (result.scores[mode].masks.compute()[name] for mode in ("generated", "teacher-forced"))
            if not math.isnan(one - two):
                found.gaps[name] = (one - two, interval(drawn[:, both[0]] - drawn[:, both[1]]))
    return found


def _nested(flat: dict[FigurePath, Any]) -> dict[str, Any]:
    """Values by their paths as dictionaries inside of each other."""
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        inside = nested
        for name in path[:-1]:
            inside = inside.setdefault(name, {})
        inside[path[-1]] = value
    return nested
