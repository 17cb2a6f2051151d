"""Where a picture's pixels lie inside the segmenter's square, and back.

A picture is scaled so that its longer side fills the square, and put into the upper left corner.
Legend: h, w = the picture's size, canvas = the square's side, masks = any number of them.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]


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


def content_size(resized: Size, canvas: int, side: int) -> Size:
    """Size (h, w) of the picture's part of a low-res mask with this side: the rest is padding."""
    return max(1, round(resized[0] * side / canvas)), max(1, round(resized[1] * side / canvas))


def shrink(masks: Tensor, size: Size) -> Tensor:
    """Masks as the share of each cell that they cover.

    Args: `masks` (masks, h, w), any number type; `size` (h', w') in cells. Returns: (masks, h', w'), fp32.
    """
    return F.interpolate(masks.float()[:, None], size, mode="area")[:, 0]
