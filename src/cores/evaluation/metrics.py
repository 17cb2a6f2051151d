"""gIoU, cIoU, precision and refusals, as sums, so that ranks and files add up.

ReasonSeg's and RefCOCO's practice for masks; gRefCOCO's N-acc and T-acc for what is and is not there.
Foreground is logit > 0; pixels to ignore are taken out before anything is counted.
"""

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from cores.errors import DataError
from cores.masks import Mask

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass
class MaskMetrics:
    """Sums over masks. Add two of them to join what two ranks have seen.

    gIoU: mean of each mask's IoU, where an empty union counts 1. cIoU: summed intersections over summed unions (both:
    paper section 4.1). P@t: share of masks with an IoU above t. All are fractions of 1; a set without masks gives nan.
    `intersection` and `union` are in pixels.
    """

    count: int = 0
    iou: float = 0.0
    intersection: int = 0
    union: int = 0
    above: list[int] = field(default_factory=lambda: [0] * len(THRESHOLDS))

    def update(self, predicted: Mask, truth: Mask, ignore: Mask | None = None) -> float:
        """Count one mask and give its IoU. All arrays are (h, w), bool. Raises DataError when the shapes differ."""
        shapes = {m.shape for m in (predicted, truth, ignore) if m is not None}
        if len(shapes) != 1:
            raise DataError(f"prediction {predicted.shape} and truth {truth.shape} must have one shape: {shapes}")
        if ignore is not None:
            predicted, truth = predicted & ~ignore, truth & ~ignore
        intersection = int(np.count_nonzero(predicted & truth))
        union = int(np.count_nonzero(predicted | truth))
        iou = intersection / union if union else 1.0
        self.count += 1
        self.iou += iou
        self.intersection += intersection
        self.union += union
        self.above = [n + (iou > t) for n, t in zip(self.above, THRESHOLDS, strict=True)]
        return iou

    def __add__(self, other: "MaskMetrics") -> "MaskMetrics":
        return MaskMetrics(*(_added(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)))

    def compute(self) -> dict[str, float]:
        """gIoU, cIoU and P@t by name, each a fraction of 1 (nan for an empty set)."""
        count = self.count or float("nan")
        return {
            "giou": self.iou / count,
            "ciou": self.intersection / self.union if self.union else self.count / count,
            **{f"p@{t}": n / count for t, n in zip(THRESHOLDS, self.above, strict=True)},
        }


def _added(one: Any, other: Any) -> Any:
    return [a + b for a, b in zip(one, other, strict=True)] if isinstance(one, list) else one + other


@dataclass
class AnswerMetrics:
    """Sums over answers to questions about what is there (`present`) and what is not (`absent`).

    refusal: share of the absent that were refused in words. false_refusal: the same of the present. n_acc: share of
    the absent that got no mask or an empty one. t_acc: share of the present that got a mask. All are fractions of 1.
    `missing` and `extra` count chains: targets without one, and chains beyond the last target, which score nothing.
    """

    absent: int = 0
    absent_refused: int = 0
    absent_unmasked: int = 0
    present: int = 0
    present_refused: int = 0
    present_masked: int = 0
    missing: int = 0
    extra: int = 0

    def update(self, targets: int, chains: int, refused: bool, masked: bool) -> None:
        """Count one answer. `targets` of the truth, 0 when it is absent; `masked`: any pixel in any mask."""
        if targets:
            self.present += 1
            self.present_refused += refused
            self.present_masked += masked
            self.missing += max(0, targets - chains)
            self.extra += max(0, chains - targets)
        else:
            self.absent += 1
            self.absent_refused += refused
            self.absent_unmasked += not masked

    def __add__(self, other: "AnswerMetrics") -> "AnswerMetrics":
        return AnswerMetrics(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def compute(self) -> dict[str, float]:
        """Rates by name, each a fraction of 1 (nan where nothing was asked), and the counts behind them."""
        absent, present = self.absent or float("nan"), self.present or float("nan")
        return {
            "refusal": self.absent_refused / absent,
            "false_refusal": self.present_refused / present,
            "n_acc": self.absent_unmasked / absent,
            "t_acc": self.present_masked / present,
            "absent": self.absent,
            "present": self.present,
            "missing_chains": self.missing,
            "extra_chains": self.extra,
        }
