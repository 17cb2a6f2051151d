"""gIoU, cIoU and precision, as sums, so that ranks and files add up (reference: ReasonSeg and RefCOCO practice).

Foreground is logit > 0; pixels to ignore are taken out before anything is counted.
"""

from dataclasses import dataclass, field

import numpy as np

from cores.errors import DataError
from cores.masks import Mask

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass
class MaskMetrics:
    """Sums over masks. Add two of them to join what two ranks have seen.

    gIoU: mean of each mask's IoU, where an empty union counts 1. cIoU: summed intersections over summed unions.
    P@t: share of masks with an IoU above t. All are fractions of 1; a set without masks gives nan.
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
        return MaskMetrics(
            self.count + other.count,
            self.iou + other.iou,
            self.intersection + other.intersection,
            self.union + other.union,
            [a + b for a, b in zip(self.above, other.above, strict=True)],
        )

    def compute(self) -> dict[str, float]:
        """gIoU, cIoU and P@t by name, each a fraction of 1 (nan for an empty set)."""
        if not self.count:
            return dict.fromkeys(["giou", "ciou", *(f"p@{t}" for t in THRESHOLDS)], float("nan"))
        ciou = self.intersection / self.union if self.union else 1.0
        precision = {f"p@{t}": n / self.count for t, n in zip(THRESHOLDS, self.above, strict=True)}
        return {"giou": self.iou / self.count, "ciou": ciou, **precision}
