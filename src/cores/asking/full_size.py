"""A mask at the picture's own size, made in bands: a large picture's logits never stand in memory whole."""

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from cores.geometry import Fit, Size, restore_bands
from cores.masks import Mask


@dataclass(frozen=True, slots=True, eq=False)
class FullSize:
    """`mask` (H, W) bool: pixels more probable than a threshold. `score`: their mean probability; 0 where none is."""

    mask: Mask
    score: float

    @classmethod
    def of(
        cls, low_res: Tensor, canvas: int, resized: Size, size: Size, fit: Fit, threshold: float = 0.5
    ) -> "FullSize":
        """Args: `low_res` (h, w) logits over the square of side `canvas` that holds the picture at size `resized`,
        put there by `fit`; `threshold`: of a pixel's probability, above 0 and below 1."""
        mask, border = np.empty(size, dtype=bool), math.log(threshold / (1 - threshold))
        total, row = 0.0, 0
        for band in restore_bands(low_res, canvas, resized, size, fit):
            inside = band > border
            mask[row : row + len(band)] = inside.cpu().numpy()
            sure = float(F.threshold(band, border, -math.inf).sigmoid_().sum())  # by `inside` it takes twice as long
            total += sure if math.isfinite(sure) else float(band[inside].sigmoid().sum())  # a NaN is outside
            row += len(band)
        count = int(np.count_nonzero(mask))
        return cls(mask, total / count if count else 0.0)
