"""The chain of segmenting (paper section 3.3): one level after the other, each mask guiding the next.

Legend: levels = 1 (LISA), 2 (CoReS) or 3, masks = all targets of the batch, dim = width of a prompt token, (H, W) =
low-res masks.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cores.modeling.segmenters.base import Features, Segmenter


def run_chain(
    segmenter: Segmenter,
    refiner: nn.Module | None,
    features: Features,
    tokens: Tensor,
    image_index: Tensor,
    use_location: bool = True,
    masks_per_pass: int | None = None,
    checkpointed: bool = False,
    rated: list[Tensor] | None = None,
) -> list[Tensor]:
    """Low-res logits (masks, H, W) of every level, coarse to fine.

    The first level has no mask prompt. Each later one gets its token refined by what the previous mask covers, and
    the previous logits, raw and with their gradient, as mask prompt.

    Args: `features` of the segmenter; `tokens` (levels, masks, dim); `image_index` (masks,). `use_location` False:
    the last level runs as if it were the first: no mask prompt and no refiner. `masks_per_pass`: most masks that are
    decoded at once; more of them go one pass after the other, and in training each pass is computed again for its
    gradients, so that memory is that of one. `checkpointed`: each call of the mask decoder is computed again, so that
    memory is that of one level. `rated`: is given the decoder's guesses of the last level's IoU, a pass at a time.
    """
    if masks_per_pass is None or len(image_index) <= masks_per_pass:
        return _levels(segmenter, refiner, features, tokens, image_index, use_location, checkpointed, rated)
    parts = []
    for some, index in zip(tokens.split(masks_per_pass, dim=1), image_index.split(masks_per_pass), strict=True):
        again = torch.is_grad_enabled() and not checkpointed
        inputs = (segmenter, refiner, features, some, index, use_location, checkpointed, rated)
        parts.append(checkpoint(_levels, *inputs, use_reentrant=False) if again else _levels(*inputs))
    return [torch.cat(level) for level in zip(*parts, strict=True)]


def refine_once(
    segmenter: Segmenter,
    refiner: nn.Module | None,
    features: Features,
    token: Tensor,
    image_index: Tensor,
    mask: Tensor,
    rated: list[Tensor] | None = None,
) -> Tensor:
    """Low-res logits (masks, H, W) of a level once more, with its own `mask` (masks, H, W), logits, as mask prompt.

    Args: `token` (masks, dim), before the refiner; the others as `run_chain`'s.
    """
    if refiner is not None:
        token = refiner(token, segmenter.grid(features), image_index, mask)
    return segmenter.decode(features, token[:, None], image_index, mask, rated)


def _levels(
    segmenter: Segmenter,
    refiner: nn.Module | None,
    features: Features,
    tokens: Tensor,
    image_index: Tensor,
    use_location: bool,
    checkpointed: bool,
    rated: list[Tensor] | None,
) -> list[Tensor]:
    """All levels of these masks, in one call of the mask decoder each."""
    again = checkpointed and torch.is_grad_enabled()
    found: list[Tensor] = []
    for level, token in enumerate(tokens):  # token: (masks, dim)
        guided = level > 0 and (use_location or level < len(tokens) - 1)
        prompt = found[-1] if guided else None
        if prompt is not None and refiner is not None:
            token = refiner(token, segmenter.grid(features), image_index, prompt)
        inputs = (features, token[:, None], image_index, prompt, rated if level == len(tokens) - 1 else None)
        decode = segmenter.decode
        found.append(checkpoint(decode, *inputs, use_reentrant=False) if again else decode(*inputs))
    return found
