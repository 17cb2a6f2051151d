"""Mask losses of one level of the chain (paper section 3.4), as pure functions of tensors.

Legend: masks = all masks of the micro-batch, h, w = pixels of one picture. Pictures differ in size, so a batch of
masks is a list of (h, w) tensors.
"""

from collections.abc import Callable, Sequence
from importlib import import_module

import torch
from torch import Tensor
from torch.nn import functional as F

from cores.loss_keys import MASK_LOSSES

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
) -> tuple[Tensor, ...]:
    """The losses of `MASK_LOSSES` in its order (BCE, DICE), each the mean over all masks of the micro-batch.

    Args: `logits`, `truth`, `ignore`: one (h, w) tensor a mask, logits at the picture's own size. `balanced`: BCE
    by `balanced_bce_loss`. Returns unweighted scalars; a batch without masks gives 0 for each. Raises ValueError when
    logits and truth are not as many.
    """
    if len(logits) != len(truth):
        raise ValueError(f"{len(logits)} predicted masks, {len(truth)} true ones: they must be as many")
    if not logits:
        return (torch.zeros(()),) * len(MASK_LOSSES)
    ignored = ignore if ignore is not None else [None] * len(logits)
    triples = list(zip(logits, truth, ignored, strict=True))
    functions = [_function(str(key.function)) for key in MASK_LOSSES]
    if balanced:
        functions = [balanced_bce_loss if function is bce_loss else function for function in functions]
    return tuple(torch.stack([function(*t) for t in triples]).mean() for function in functions)


def _function(place: str) -> Callable[..., Tensor]:
    module, _, name = place.partition(":")
    found: Callable[..., Tensor] = getattr(import_module(module), name)
    return found
