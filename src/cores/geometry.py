"""Where a picture's pixels lie inside the segmenter's square, and back.

By the segmenter's family, a picture is scaled so that its longer side fills the square and put into the upper left
corner (`pad`), or made the square, whatever its shape (`squash`).
Legend: h, w = the picture's size, canvas = the square's side, all in pixels; masks = any number of them.
"""

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]
Fit = Literal["pad", "squash"]
BAND = 2**22  # pixels that `restore_bands` makes at once


def resized_size(size: Size, canvas: int, fit: Fit) -> Size:
    """Size (h, w) inside the square.

    `pad`: the longer side fills it, the other is rounded half up, to a pixel at least; `squash`: the whole square.
    """
    if fit == "squash":
        return canvas, canvas
    scale = canvas / max(size)
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def restore(low_res: Tensor, canvas: int, resized: Size, size: Size, fit: Fit) -> Tensor:
    """Low-res logits at the picture's own size, bilinear.

    `pad`: up to the square, padding cut off, to the picture; `squash`: to the picture at once, as SAM 2 does.

    Args: `low_res` (masks, h', w'); `resized` (h, w) inside the square; `size` (h, w) of the picture.
    Returns: (masks, h, w), fp32.
    """
    if not low_res.shape[0]:
        return low_res.new_zeros((0, *size), dtype=torch.float32)
    content = _content(low_res, canvas, resized, fit)
    if content.shape[-2:] != size:
        content = F.interpolate(content, size, mode="bilinear", align_corners=False)
    return content[:, 0]


def _content(low_res: Tensor, canvas: int, resized: Size, fit: Fit) -> Tensor:
    """What is scaled to the picture's size at last, (masks, 1, rows, columns), fp32."""
    low_res = low_res.float()[:, None]
    if fit == "squash":
        return low_res
    (height, width), side, whole = resized, low_res.shape[-1], (canvas, canvas)
    times, rest = divmod(canvas, side)
    if not rest:  # by a whole number: not of the padding, and the same numbers to the last bit
        rows, columns = (min(side, length // times + 2) for length in resized)
        low_res, whole = low_res[..., :rows, :columns], (times * rows, times * columns)
    square = F.interpolate(low_res, whole, mode="bilinear", align_corners=False)
    return square[..., :height, :width]


def restore_bands(
    low_res: Tensor, canvas: int, resized: Size, size: Size, fit: Fit, pixels: int = BAND
) -> Iterator[Tensor]:
    """As `restore`, one mask in bands of rows from the top, so that a picture of any size takes little memory.

    Args: `low_res` (h', w'); `pixels`: most of them in a band, but a row at least.
    Gives (rows, w) each, fp32; several of them differ from `restore` by the rounding of fp32 alone.
    """
    if math.prod(size) <= pixels:
        yield restore(low_res[None], canvas, resized, size, fit)[0]
        return
    content = _content(low_res[None], canvas, resized, fit)[0, 0]
    (height, width), inside = size, len(content)
    centre = (torch.arange(height, dtype=torch.float64, device=low_res.device) + 0.5) * inside / height - 0.5
    centre = centre.clamp(min=0)  # (h,): where each row of the picture lies between rows of the content
    above = centre.long().clamp(max=inside - 1)
    below = (above + 1).clamp(max=inside - 1)
    share = (centre - above).float()[:, None]
    rows = max(1, pixels // width)
    for first in range(0, height, rows):
        band = slice(first, first + rows)
        mixed = torch.lerp(content[above[band]], content[below[band]], share[band])
        yield F.interpolate(mixed[None, None], (len(mixed), width), mode="bilinear", align_corners=False)[0, 0]


def content_size(resized: Size, canvas: int, side: int) -> Size:
    """Size (h, w) of the picture's part of a low-res mask with this side: the rest is padding."""
    return max(1, round(resized[0] * side / canvas)), max(1, round(resized[1] * side / canvas))


def shrink(masks: Tensor, size: Size) -> Tensor:
    """Masks as the share of each cell that they cover.

    Args: `masks` (masks, h, w), any number type; `size` (h', w') in cells. Returns: (masks, h', w'), fp32.
    """
    return F.interpolate(masks.float()[:, None], size, mode="area")[:, 0]
