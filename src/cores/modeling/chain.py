"""The chain of segmenting (paper section 3.3): one level after the other, each mask guiding the next.

Legend: levels = 1 (LISA), 2 (CoReS) or 3, masks = all targets of the batch, dim = width of a prompt token, (H, W) =
low-res masks.
"""

from torch import Tensor, nn

from cores.modeling.segmenters.base import Features, Segmenter


def run_chain(
    segmenter: Segmenter,
    refiner: nn.Module | None,
    features: Features,
    tokens: Tensor,
    image_index: Tensor,
    use_location: bool = True,
) -> list[Tensor]:
    """Low-res logits (masks, H, W) of every level, coarse to fine.

    The first level has no mask prompt. Each later one gets its token refined by what the previous mask covers, and
    the previous logits, raw and with their gradient, as mask prompt.

    Args: `features` of the segmenter; `tokens` (levels, masks, dim); `image_index` (masks,). `use_location` False:
    the last level runs as if it were the first: no mask prompt and no refiner.
    """
    found: list[Tensor] = []
    for level, token in enumerate(tokens):  # token: (masks, dim)
        guided = level > 0 and (use_location or level < len(tokens) - 1)
        prompt = found[-1] if guided else None
        if prompt is not None and refiner is not None:
            token = refiner(token, segmenter.grid(features)[image_index], prompt)
        found.append(segmenter.decode(features, token[:, None], image_index, prompt))
    return found
