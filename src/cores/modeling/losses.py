"""Mask losses of the chain's last level (paper section 3.4), as pure functions of tensors.

Legend: masks = all masks of the micro-batch, h, w = pixels of one picture. Pictures differ in size, so a batch of
masks is a list of (h, w) tensors.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

DICE_SCALE = 1000.0  # keeps the sums of large masks small; part of the published value, not only of its precision
DICE_EPS = 1e-6


def _kept(logits: Tensor, truth: Tensor, ignore: Tensor | None) -> tuple[Tensor, Tensor]:
    """Logits and truth, fp32, (pixels,): those that are not ignored."""
    keep = slice(None) if ignore is None else ~ignore.flatten()
    return logits.flatten()[keep].float(), truth.flatten()[keep].float()


def bce_loss(logits: Tensor, truth: Tensor, ignore: Tensor | None = None) -> Tensor:
    """Binary cross-entropy, mean over one mask's pixels. `logits`, `truth`, `ignore`: (h, w). Gives a scalar."""
    kept, target = _kept(logits, truth, ignore)
    if not kept.numel():  # everything ignored: no signal, but still part of the graph
        return logits.sum() * 0.0
    return F.binary_cross_entropy_with_logits(kept, target)


def balanced_bce_loss(logits: Tensor, truth: Tensor, ignore: Tensor | None = None) -> Tensor:
    """Binary cross-entropy in which inside and outside of a mask weigh the same, whatever their sizes.

    For training from scratch: with the plain mean, a small mask is best called empty for a long time. `logits`,
    `truth`, `ignore`: (h, w); the truth may be a share between 0 and 1. Gives a scalar.
    """
    kept, target = _kept(logits, truth, ignore)
    if not kept.numel():
        return logits.sum() * 0.0
    each = F.binary_cross_entropy_with_logits(kept, target, reduction="none")
    inside = (each * target).sum() / target.sum().clamp(min=1)
    outside = (each * (1 - target)).sum() / (1 - target).sum().clamp(min=1)
    return (inside + outside) / 2


def dice_loss(logits: Tensor, truth: Tensor, ignore: Tensor | None = None) -> Tensor:
    """1 - DICE of one mask, with the published scale and epsilon. `logits`, `truth`, `ignore`: (h, w)."""
    kept, target = _kept(logits, truth, ignore)
    p, g = kept.sigmoid() / DICE_SCALE, target / DICE_SCALE
    overlap = 2 * (kept.sigmoid() * g).sum()
    return 1 - (overlap + DICE_EPS) / (p.sum() + g.sum() + DICE_EPS)


def mask_losses(
    logits: Sequence[Tensor],
    truth: Sequence[Tensor],
    ignore: Sequence[Tensor | None] | None = None,
    balanced: bool = False,
) -> tuple[Tensor, Tensor]:
    """BCE and DICE, each the mean over all masks of the micro-batch; unweighted scalars.

    Args: `logits`, `truth`, `ignore`: one (h, w) tensor a mask, logits at the picture's own size. `balanced`: BCE
    by `balanced_bce_loss`. A batch without masks gives 0 for both.
    """
    if len(logits) != len(truth):
        raise ValueError(f"{len(logits)} predicted masks, {len(truth)} true ones: they must be as many")
    if not logits:
        zero = torch.zeros(())
        return zero, zero
    ignored = ignore if ignore is not None else [None] * len(logits)
    triples = list(zip(logits, truth, ignored, strict=True))
    one = balanced_bce_loss if balanced else bce_loss
    bce = torch.stack([one(*t) for t in triples]).mean()
    dice = torch.stack([dice_loss(*t) for t in triples]).mean()
    return bce, dice
