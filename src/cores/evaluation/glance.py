"""All answers of a chapter at a glance, in one reading: which to show, how IoUs are spread, what went wrong, whether
the model's own score tells right from wrong. Nothing of a mask is kept, so that any number of answers fits."""

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cores import masks
from cores.evaluation.causes import BY_LEVEL, CAUSES, by_level, causes_of
from cores.evaluation.result import Record

BINS = 20  # of the histogram
GROUPS = 10  # of the calibration, of equal size
FEW = 6  # questions of the smaller selections


class Line(NamedTuple):
    """One answer without its masks: what selections and the filter need."""

    number: int  # of the record among those of its chapter
    iou: float
    confidence: float
    scored: bool  # something is there, and something was drawn
    right: bool  # about what is there
    causes: tuple[str, ...]
    text: str


@dataclass
class Glance:
    """`lines` of all answers in one mode; sums over its targets; `absent`: questions about what is not there.

    `sure`: of masks of targets, confidence and IoU; `refusals`: of answers, how probable an absence
    was, and whether it was one.
    """

    lines: list[Line] = field(default_factory=list)
    bins: list[int] = field(default_factory=lambda: [0] * BINS)
    causes: Counter[str] = field(default_factory=Counter)
    targets: int = 0
    absent: int = 0
    located: int = 0
    sure: list[tuple[float, float]] = field(default_factory=list)
    refusals: list[tuple[float, float]] = field(default_factory=list)

    @property
    def calibration(self) -> list[tuple[float, float, int]]:
        """Groups of targets by their masks' confidence, lowest first: mean confidence, mean IoU, how many.

        Of answers that have no such, by the mean probability of their tokens.
        """
        said = [(line.confidence, line.iou) for line in self.lines if not math.isnan(line.confidence)]
        known = sorted(self.sure or said)
        cuts = [len(known) * i // GROUPS for i in range(GROUPS + 1)]
        groups = [known[a:b] for a, b in zip(cuts, cuts[1:], strict=False) if b > a]
        return [(_mean([c for c, _ in g]), _mean([i for _, i in g]), len(g)) for g in groups]


def glance(records: Iterable[Record], mode: str) -> Glance:
    """Look at the answers in one mode; the others keep their numbers."""
    found = Glance()
    for number, record in enumerate(records):
        if record.mode != mode:
            continue
        counts, causes = record.counts, []
        if counts is not None:
            areas = [masks.area([*chain.values()][-1]) if chain else 0 for chain in record.levels]
            causes = causes_of(counts, areas)
            levels = by_level(counts)
            found.causes.update([*causes, *levels])
            found.located += sum(share is not None for share in counts.covered)
            causes += levels
        if record.refusal is not None:
            found.refusals.append((record.refusal, float(not record.truth)))
        found.absent += not record.truth
        if record.truth:
            found.sure += zip(record.confidences, record.ious, strict=False)  # chain by target, in order
            found.targets += len(record.ious)
            for one in record.ious:
                found.bins[min(int(one * BINS), BINS - 1)] += 1
        confidence = math.exp(record.score) if math.isfinite(record.score) else float("nan")
        ious = ", ".join(f"{one:.3f}" for one in record.ious) or f"{record.iou:.0f}"
        words = (ious, record.status, ", ".join(dict.fromkeys(causes)), record.kind or "", record.image, record.query)
        text = "\t".join(" ".join(word.split()) for word in words)
        scored = bool(record.truth and record.levels)
        right = record.right_about_presence
        found.lines.append(Line(number, record.iou, confidence, scored, right, tuple(causes), text))
    return found


def chosen(lines: Sequence[Line], each: int, seed: int) -> dict[str, list[int]]:
    """Which answers to show, by their numbers: wrong about what is there, the worst and best masks, some by cause, and
    some drawn at random. At most `each` of a kind, fewer of the smaller ones.

    Nothing is shown twice; answers of equal IoU keep their order.
    """
    few = min(each, FEW)
    wrong = [line for line in lines if not line.right][:few]
    masked = sorted((line for line in lines if line.scored), key=lambda line: line.iou)
    worst = masked[:each]
    best = masked[len(worst) :][-each:][::-1]
    shown = {line.number for line in (*wrong, *worst, *best)}
    by_cause: dict[str, list[int]] = {}
    for cause in (*CAUSES, *BY_LEVEL):
        some = [line.number for line in lines if cause in line.causes and line.number not in shown][:few]
        shown |= set(some)
        by_cause[f"Failed: {cause}"] = some
    rest = [line.number for line in lines if line.number not in shown]
    return {
        "Drawn at random": random.Random(seed).sample(rest, min(few, len(rest))),
        "Lowest IoU": [line.number for line in worst],
        "Highest IoU": [line.number for line in best],
        "A mask where nothing is, or none where something is": [line.number for line in wrong],
        **by_cause,
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
