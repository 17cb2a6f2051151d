"""How the published programs (LISA's and CoReS's `train_ds.py --eval_only`) add up: their epsilons, in their fp32.

An image's IoUs are added with 1e-5 on each union, an empty union counts 1, and are divided by their number; the mean
over images is weighted by that number again, plus 1e-5. cIoU has 1e-10 on the summed union.
"""

from collections.abc import Sequence

import numpy as np

from cores.evaluation.overlap import Overlap

single = np.float32


class PublishedMeter:
    """Sums over images, each with the overlaps of its masks, in the order in which they are added."""

    def __init__(self) -> None:
        self.iou = self.intersection = self.union = single(0)
        self.count = 0

    def add(self, overlaps: Sequence[Overlap]) -> None:
        """Add one question's masks."""
        if not overlaps:
            return
        iou = intersection = union = single(0)
        for found in overlaps:
            both, either = single(found.intersection), single(found.union)
            intersection, union = intersection + both, union + either
            iou += both / (either + single(1e-5)) + single(either == 0)
        self.iou += iou / single(len(overlaps)) * single(len(overlaps))
        self.intersection += intersection
        self.union += union
        self.count += len(overlaps)

    def compute(self) -> dict[str, float]:
        """`giou` and `ciou` as the program prints them, fractions of 1."""
        return {
            "giou": float(self.iou / single(self.count + 1e-5)),
            "ciou": float(self.intersection / (self.union + single(1e-10))),
        }
