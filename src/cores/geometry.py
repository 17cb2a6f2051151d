"""Where a picture's pixels lie inside the segmenter's square, and back.

A picture is scaled so that its longer side fills the square, and put into the upper left corner.
Legend: h, w = the picture's size, canvas = the square's side, masks = any number of them.
"""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]
Fit = Literal["pad", "squash"]
# by the segmenter's model_type
FITS: dict[str, Fit] = {
    "sam": "pad",
    "sam_hq": "pad",
    "sam2": "squash",
    "sam3_tracker": "squash",
    "edgetam": "squash",
}
BAND = 2**22  # pixels that `restore_bands` makes at once


def resized_size(size: Size, canvas: int) -> Size:
    """Size (h, w) inside the square: the longer side fills it, the other is rounded half up, to a pixel at least."""
    scale = canvas / max(size)
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def restore(low_res: Tensor, canvas: int, resized: Size, size: Size) -> Tensor:
    """Low-res logits at the picture's own size: up to the square, padding cut off, to the picture. All bilinear.

    Args: `low_res` (masks, h', w'); `resized` (h, w) inside the square; `size` (h, w) of the picture.
    Returns: (masks, h, w), fp32.
    """
    if not low_res.shape[0]:
        return low_res.new_zeros((0, *size), dtype=torch.float32)
    full = F.interpolate(low_res.float()[:, None], (canvas, canvas), mode="bilinear", align_corners=False)
    full = full[..., : resized[0], : resized[1]]
    return F.interpolate(full, size, mode="bilinear", align_corners=False)[:, 0]


def restore_bands(low_res: Tensor, canvas: int, resized: Size, size: Size, pixels: int = BAND) -> Iterator[Tensor]:
    """As `restore`, one mask in bands of rows from the top, so that a picture of any size takes little memory.

    Args: `low_res` (h', w'); `pixels`: most of them in a band, but a row at least.
    Gives (rows, w) each, fp32; differs from `restore` by the rounding of fp32 alone.
    """
    (height, width), (inside, _) = size, resized
    square = F.interpolate(low_res.float()[None, None], (canvas, canvas), mode="bilinear", align_corners=False)
    square = square[0, 0, : resized[0], : resized[1]]
    centre = (torch.arange(height, dtype=torch.float64, device=low_res.device) + 0.5) * inside / height - 0.5
    centre = centre.clamp(min=0)  # (h,): where each row of the picture lies between rows of the square
    above = centre.long().clamp(max=inside - 1)
    below = (above + 1).clamp(max=inside - 1)
    share = (centre - above).float()[:, None]
    rows = max(1, pixels // width)
    for first in range(0, height, rows):
        band = slice(first, first + rows)
        mixed = torch.lerp(square[above[band]], square[below[band]], share[band])
        yield F.interpolate(mixed[None, None], (len(mixed), width), mode="bilinear", align_corners=False)[0, 0]


def content_size(resized: Size, canvas: int, side: int) -> Size:
    """Size (h, w) of the picture's part of a low-res mask with this side: the rest is padding."""
    return max(1, round(resized[0] * side / canvas)), max(1, round(resized[1] * side / canvas))


def shrink(masks: Tensor, size: Size) -> Tensor:
    """Masks as the share of each cell that they cover.

    Args: `masks` (masks, h, w), any number type; `size` (h', w') in cells. Returns: (masks, h', w'), fp32.
    """
    return F.interpolate(masks.float()[:, None], size, mode="area")[:, 0]
