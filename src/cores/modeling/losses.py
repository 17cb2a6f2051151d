"""Mask losses of one level of the chain (paper section 3.4), as pure functions of tensors.

A loss takes `logits`, `truth`, `ignore` (..., h, w), some masks of one size, and gives one value a mask, (...).
"""

from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor
from torch.nn import functional as F

from cores.loss_keys import MASK_LOSSES

DICE_SCALE = 1000.0  # keeps the sums of large masks small; part of the published value, not only of its precision
DICE_EPS = 1e-6
PIXELS = (-2, -1)  # the axes of h and w


def mean(values: Tensor, ignore: Tensor | None = None) -> Tensor:
    """The mean of (..., h, w) over the pixels that are not ignored; 0, still part of the graph, where all are."""
    if ignore is None:
        return values.mean(PIXELS)
    return (values * ~ignore).sum(PIXELS) / (~ignore).sum(PIXELS).clamp(min=1)


def bce_loss(logits: Tensor, truth: Tensor, ignore: Tensor | None = None) -> Tensor:
    """Binary cross-entropy, mean over each mask's pixels: (...)."""
    return mean(F.binary_cross_entropy_with_logits(logits.float(), truth.float(), reduction="none"), ignore)


def balanced_bce_loss(logits: Tensor, truth: Tensor, ignore: Tensor | None = None) -> Tensor:
    """Binary cross-entropy in which inside and outside of a mask weigh the same, whatever their sizes: (...).

    For training from scratch: with the plain mean, a small mask is best called empty for a long time. The truth may
    be a share between 0 and 1.
    """
    target = truth.float()
    each = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    inside, outside = (share if ignore is None else share * ~ignore for share in (target, 1 - target))
    means = [(each * share).sum(PIXELS) / share.sum(PIXELS).clamp(min=1) for share in (inside, outside)]
    return (means[0] + means[1]) / 2


def dice_loss(logits: Tensor, truth: Tensor, ignore: Tensor | None = None) -> Tensor:
    """1 - DICE of each mask, with the published scale and epsilon: (...)."""
    found, target = logits.float().sigmoid(), truth.float()
    if ignore is not None:
        found, target = found * ~ignore, target * ~ignore
    overlap, areas = 2 * (found * target).sum(PIXELS), found.sum(PIXELS) + target.sum(PIXELS)
    return 1 - (overlap / DICE_SCALE + DICE_EPS) / (areas / DICE_SCALE + DICE_EPS)


def mask_losses(logits: Tensor, truth: Tensor, ignore: Tensor | None = None, balanced: bool = False) -> Tensor:
    """The losses of `MASK_LOSSES` in its order (BCE, DICE), of each mask: unweighted, (losses, masks).

    Args: `logits`, `truth`, `ignore`: (masks, h, w). `balanced`: BCE by `balanced_bce_loss`.
    """
    functions = [_function(str(key.function)) for key in MASK_LOSSES]
    if balanced:
        functions = [balanced_bce_loss if function is bce_loss else function for function in functions]
    truth = truth.float()  # kept for gradients once, for all of them
    return torch.stack([function(logits, truth, ignore) for function in functions])


def _function(place: str) -> Callable[..., Tensor]:
    module, _, name = place.partition(":")
    found: Callable[..., Tensor] = getattr(import_module(module), name)
    return found
