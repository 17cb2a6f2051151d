"""gIoU, cIoU, precision and refusals, as sums, so that ranks and files add up.

ReasonSeg's and RefCOCO's practice for masks; gRefCOCO's N-acc and T-acc for what is and is not there.
Foreground is logit > 0; pixels to ignore are taken out before anything is counted. Every figure is one sum over
another (`ratios`), which is what an interval needs of an image.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from cores.evaluation.overlap import Overlap, overlap
from cores.masks import Mask

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
Ratio = tuple[float, float]


def values(ratios: Mapping[str, Ratio]) -> dict[str, float]:
    """Figures by name; nan where there was nothing to count."""
    return {name: top / bottom if bottom else float("nan") for name, (top, bottom) in ratios.items()}


@dataclass
class MaskMetrics:
    """Sums over masks. Add two of them to join what two ranks have seen.

    gIoU: mean of each mask's IoU, where an empty union counts 1. mIoU: the same where it counts 0. cIoU: summed
    intersections over summed unions (gIoU and cIoU: paper section 4.1). P@t: share of masks with an IoU above t.
    Boundary IoU: mean over masks (see `overlap`). All are fractions of 1; a set without masks gives nan.
    `intersection` and `union` are in pixels; `empty`: masks whose union is empty.
    """

    count: int = 0
    iou: float = 0.0
    intersection: int = 0
    union: int = 0
    above: list[int] = field(default_factory=lambda: [0] * len(THRESHOLDS))
    empty: int = 0
    boundary_iou: float = 0.0

    def update(self, predicted: Mask, truth: Mask, ignore: Mask | None = None) -> float:
        """Count one mask and give its IoU. All arrays are (h, w), bool. Raises DataError when the shapes differ."""
        return self.add(overlap(predicted, truth, ignore))

    def add(self, found: Overlap) -> float:
        """Count one mask, compared already, and give its IoU."""
        iou = found.iou
        self.count += 1
        self.iou += iou
        self.intersection += found.intersection
        self.union += found.union
        self.above = [n + (iou > t) for n, t in zip(self.above, THRESHOLDS, strict=True)]
        self.empty += not found.union
        self.boundary_iou += found.boundary_iou
        return iou

    def __add__(self, other: "MaskMetrics") -> "MaskMetrics":
        return MaskMetrics(*(_added(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)))

    def ratios(self) -> dict[str, Ratio]:
        """Each figure by name as a sum over a sum."""
        return {
            "giou": (self.iou, self.count),
            "ciou": (self.intersection, self.union) if self.union else (self.count, self.count),
            **{f"p@{t}": (n, self.count) for t, n in zip(THRESHOLDS, self.above, strict=True)},
            "miou": (self.iou - self.empty, self.count),
            "boundary_iou": (self.boundary_iou, self.count),
        }

    def compute(self) -> dict[str, float]:
        """gIoU, cIoU, P@t, mIoU and boundary IoU by name, each a fraction of 1 (nan for an empty set)."""
        return values(self.ratios())


def _added(one: Any, other: Any) -> Any:
    return [a + b for a, b in zip(one, other, strict=True)] if isinstance(one, list) else one + other


@dataclass
class AnswerMetrics:
    """Sums over answers to questions about what is there (`present`) and what is not (`absent`).

    refusal: share of the absent that were refused in words. false_refusal: the same of the present. n_acc: share of
    the absent that got no mask or an empty one. t_acc: share of the present that got a mask. right_form: share of all
    that are a refusal, or whole chains, and ended by themselves. All are fractions of 1.
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
    right: int = 0

    def update(self, targets: int, chains: int, refused: bool, masked: bool, right: bool = True) -> None:
        """Count one answer. `targets` of the truth, 0 when it is absent; `masked`: any pixel in any mask; `right`: is
        it in the right form?"""
        self.right += right
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

    def ratios(self) -> dict[str, Ratio]:
        """Each rate by name as a count over a count."""
        return {
            "refusal": (self.absent_refused, self.absent),
            "false_refusal": (self.present_refused, self.present),
            "n_acc": (self.absent_unmasked, self.absent),
            "t_acc": (self.present_masked, self.present),
            "right_form": (self.right, self.absent + self.present),
        }

    def compute(self) -> dict[str, float]:
        """Rates by name, each a fraction of 1 (nan where nothing was asked), and the counts behind them."""
        return {
            **values(self.ratios()),
            "absent": self.absent,
            "present": self.present,
            "missing_chains": self.missing,
            "extra_chains": self.extra,
        }
