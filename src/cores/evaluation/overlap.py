"""What two masks share, in pixels: of the masks themselves and of their boundaries.

Boundary IoU (Cheng et al., CVPR 2021) compares only the pixels of each mask that are within d of its contour; d is 2 %
of the picture's diagonal. It sees what IoU does not: how well the outline of a large object is met.
"""

from typing import NamedTuple

import cv2
import numpy as np

from cores.errors import DataError
from cores.masks import Mask

DISTANCE = 0.02  # of the picture's diagonal


class Overlap(NamedTuple):
    """Pixels of a prediction and a truth, in both (`intersection`) and in either (`union`); the same of boundaries.

    Pixels to ignore are in none of them. The boundaries are the masks' own: ignored pixels make no contour.
    """

    intersection: int
    union: int
    boundary_intersection: int = 0
    boundary_union: int = 0

    @property
    def iou(self) -> float:
        """1 when both masks are empty."""
        return self.intersection / self.union if self.union else 1.0

    @property
    def boundary_iou(self) -> float:
        """1 when both boundaries are empty."""
        return self.boundary_intersection / self.boundary_union if self.boundary_union else 1.0


def overlap(predicted: Mask, truth: Mask, ignore: Mask | None = None, boundaries: bool = True) -> Overlap:
    """Compare two masks (h, w), bool. Without `boundaries` theirs count 0. Raises DataError when shapes differ."""
    shapes = {m.shape for m in (predicted, truth, ignore) if m is not None}
    if len(shapes) != 1:
        raise DataError(f"prediction {predicted.shape} and truth {truth.shape} must have one shape: {shapes}")
    masks = _shared(predicted, truth, ignore)
    return Overlap(*masks, *_shared(boundary(predicted), boundary(truth), ignore)) if boundaries else Overlap(*masks)


def boundary(mask: Mask) -> Mask:
    """The pixels of a mask (h, w) within 2 % of the diagonal of a pixel outside; beyond the picture is outside."""
    found = np.zeros_like(mask)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return found
    reach = max(1, round(DISTANCE * float(np.hypot(*mask.shape))))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    inside = np.pad(mask[box], 1).astype(np.uint8)  # as many erosions by 3 x 3 as the chessboard distance has steps
    found[box] = mask[box] & (cv2.distanceTransform(inside, cv2.DIST_C, 3)[1:-1, 1:-1] <= reach)
    return found


def _shared(one: Mask, two: Mask, ignore: Mask | None) -> tuple[int, int]:
    both, either = one & two, one | two
    if ignore is not None:
        both, either = both & ~ignore, either & ~ignore
    return int(np.count_nonzero(both)), int(np.count_nonzero(either))
