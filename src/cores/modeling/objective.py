"""The mask losses of one level of the chain, at the picture's own size or, cheaply, at the mask decoder's.

Legend: masks = all targets of the batch on one flat axis, (H, W) = low-res masks, h, w = a picture's own size.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cores.geometry import Fit, Size, content_size, restore, shrink
from cores.loss_keys import MASK_LOSSES
from cores.modeling.losses import mask_losses

CACHED = 2**21  # pixels of masks whose losses a CPU computes at once: of two masks, since it scales one a thread
Alike = tuple[Size, Size, bool]  # of masks of one call: sizes of their pictures, resized, without ignored pixels
Masks = tuple[Tensor, Tensor, Tensor | None]  # one: logits, truth, ignored pixels


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
    truth: Sequence[Tensor | None],
    rows: Sequence[int],
    frames: Frames,
    resolution: str = "original",
    balanced: bool = False,
) -> Tensor:
    """BCE, DICE and whatever else `MASK_LOSSES` holds, in its order: (losses,), unweighted, summed over the masks.

    Args: `low_res_logits` (masks, H, W); `truth`: one (h, w) bool a mask, None for one without a loss; `rows`: which
    picture each belongs to. `resolution`: `original`, or `low`: at the picture's part of the low-res grid, against
    the share of each cell that the truth covers; the truth may also be such shares already. `balanced`: see
    `balanced_bce_loss`.
    Raises ValueError when logits, truth and rows are not as many.
    """
    groups: dict[Alike, list[Masks]] = {}
    for logits, mask, row in zip(low_res_logits.unbind(), truth, rows, strict=True):
        if mask is not None:
            left_out = frames.ignore[row]
            alike = (frames.sizes[row], frames.resized[row], left_out is None)
            groups.setdefault(alike, []).append((logits, mask, left_out))
    if not groups:
        return (low_res_logits * 0.0).sum().expand(len(MASK_LOSSES))  # 0, still part of the graph
    found = []
    for (size, resized, _), group in _pieces(groups, low_res_logits.device.type):
        each, masks = torch.stack([one for one, _, _ in group]), torch.stack([one for _, one, _ in group])
        ignored = [one for _, _, one in group if one is not None]  # all of them, or none
        ignore = torch.stack(ignored) if ignored else None
        if resolution == "low":
            h, w = content_size(resized, frames.canvas, low_res_logits.shape[-1])
            each, masks = each[:, :h, :w], shrink(masks, (h, w))
            ignore = None if ignore is None else shrink(ignore, (h, w)) > 0.5
        else:
            each = restore(each, frames.canvas, resized, size, frames.fit)
        found.append(mask_losses(each, masks, ignore, balanced).sum(dim=1))
    return torch.stack(found).sum(dim=0)


def _pieces(groups: Mapping[Alike, Sequence[Masks]], device: str) -> Iterator[tuple[Alike, Sequence[Masks]]]:
    """Groups of masks in pieces that a CPU's cache holds; whole for anything else."""
    for alike, group in groups.items():
        height, width = alike[0]
        most = max(1, CACHED // (height * width)) if device == "cpu" else len(group)
        for first in range(0, len(group), most):
            yield alike, group[first : first + most]


def share(total: Tensor, count: Tensor | int) -> Tensor:
    """A sum as its part of a mean over `count` things; of none it is 0."""
    return total / (count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1))
