"""The mask losses of one level of the chain, at the picture's own size or, cheaply, at the mask decoder's.

Legend: masks = all targets of the batch on one flat axis, (H, W) = low-res masks, h, w = a picture's own size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from cores.geometry import Fit, Size, content_size, restore, shrink
from cores.modeling.losses import mask_losses


@dataclass(frozen=True, slots=True)
class Frames:
    """The pictures of a batch. `sizes`, `resized`: (h, w) of each and of it inside the segmenter's square, whose side
    is `canvas`; `ignore`: one (h, w) bool or None each, pixels that carry no loss; `fit`: how they were put there."""

    canvas: int
    sizes: Sequence[Size]
    resized: Sequence[Size]
    ignore: Sequence[Tensor | None]
    fit: Fit


def level_losses(
    low_res_logits: Tensor,
    truth: Sequence[Tensor],
    rows: Sequence[int],
    frames: Frames,
    resolution: str = "original",
    balanced: bool = False,
) -> tuple[Tensor, ...]:
    """BCE, DICE and whatever else `MASK_LOSSES` holds, of masks against the truth: unweighted scalars, in its order.

    Args: `low_res_logits` (masks, H, W); `truth`: one (h, w) bool a mask; `rows`: which picture each belongs to.
    `resolution`: `original`, or `low`: at the picture's part of the low-res grid, against the share of each cell that
    the truth covers. `balanced`: see `balanced_bce_loss`.
    """
    logits, wanted, ignored = [], [], []
    for number, (mask, row) in enumerate(zip(truth, rows, strict=True)):
        out = frames.ignore[row]
        if resolution == "low":
            h, w = content_size(frames.resized[row], frames.canvas, low_res_logits.shape[-1])
            logits.append(low_res_logits[number, :h, :w])
            wanted.append(shrink(mask[None], (h, w))[0])
            ignored.append(None if out is None else shrink(out[None], (h, w))[0] > 0.5)
        else:
            one = low_res_logits[number : number + 1]
            logits.append(restore(one, frames.canvas, frames.resized[row], frames.sizes[row], frames.fit)[0])
            wanted.append(mask)
            ignored.append(out)
    return mask_losses(logits, wanted, ignored, balanced)
