"""The token refiner: what the previous level's mask covers, added to this level's token (paper section 3.3).

Legend: images, masks = all of the micro-batch, dim = width of the segmenter's prompts, (h, w) = its feature grid,
(H, W) = its low-res masks.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

AREA_FLOOR = 5e-4  # keeps an empty mask from dividing by zero; published value


def mask_average(
    features: Tensor, image_index: Tensor, low_res_logits: Tensor, counted_in: torch.dtype | None = None
) -> Tensor:
    """Masked average pooling: the mean of the image features inside a mask.

    The mask is cut at logit 0 and then resized, so that it stays fractional on the grid. No gradient passes through
    the cut; it reaches the previous level as mask prompt.

    Args: `features` (images, dim, h, w); `image_index` (masks,); `low_res_logits` (masks, H, W), raw; `counted_in`:
    the precision of the mask and its area (default: the features').
    Returns: (masks, dim).
    """
    inside = (low_res_logits.detach() > 0).to(counted_in or features.dtype)[:, None]  # (masks, 1, H, W)
    inside = F.interpolate(inside, size=features.shape[-2:], mode="bilinear", align_corners=False).flatten(1)
    area = inside.sum(dim=1, keepdim=True) + AREA_FLOOR  # (masks, 1)
    # Every mask on every picture: a product that takes no memory, where a copy of its picture for each mask does.
    with torch.autocast("cpu" if features.is_meta else features.device.type, enabled=False):  # meta knows none
        sums = inside.to(features.dtype) @ features.flatten(2).mT  # (images, masks, dim)
    masks = torch.arange(len(image_index), device=image_index.device)
    return sums[image_index, masks] / area.to(features.dtype)


class PaperRefiner(nn.Module):
    """h + out(v(MAP)): the paper's cross-attention, written without what cannot act.

    MAP is one vector, so the attention has one key, its weight is always 1, and the query and key projections do
    nothing. What is left of it is two linear layers.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.v = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        for layer in (self.v, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor, features: Tensor, image_index: Tensor, low_res_logits: Tensor) -> Tensor:
        """Args: `tokens` (masks, dim), `features` (images, dim, h, w), `image_index` (masks,), `low_res_logits`
        (masks, H, W).

        Returns: refined tokens (masks, dim).
        """
        found: Tensor = self.out(self.v(mask_average(features, image_index, low_res_logits)))
        return tokens + found


class RegionRefiner(nn.Module):
    """h + CrossAttention(h, features inside the previous mask): one key a grid cell, so that the query matters.

    Ours, not the paper's. A mask that covers no cell adds nothing.
    """

    def __init__(self, dim: int, heads: int = 8) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)

    def forward(self, tokens: Tensor, features: Tensor, image_index: Tensor, low_res_logits: Tensor) -> Tensor:
        """Args and result as PaperRefiner's."""
        inside = (low_res_logits.detach() > 0).to(features.dtype)[:, None]  # (masks, 1, H, W)
        inside = F.interpolate(inside, size=features.shape[-2:], mode="area").flatten(1)  # (masks, h * w)
        outside = inside <= 0
        empty = outside.all(dim=1, keepdim=True)  # (masks, 1)
        keys = features.flatten(2).mT[image_index]  # (masks, h * w, dim)
        # An all-masked row would be nan: let it look anywhere and drop what it finds.
        found, _ = self.attention(
            tokens[:, None], keys, keys, key_padding_mask=outside & ~empty, need_weights=False
        )  # (masks, 1, dim)
        return tokens + torch.where(empty, torch.zeros_like(tokens), found[:, 0])


class PublishedRefiner(nn.Module):
    """h + LN(h + out(v(MAP))) with the published checkpoints' tensors, names and precision.

    Their attention has one key, so query and key projections act on nothing; they are kept so that an export gives
    back every number. Computed in fp32, with the mask's area in bfloat16 as there.
    """

    def __init__(self, dim: int, heads: int = 8) -> None:
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(dim, heads)
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor, features: Tensor, image_index: Tensor, low_res_logits: Tensor) -> Tensor:
        """Args and result as PaperRefiner's."""
        dim = tokens.shape[-1]
        # an area in bfloat16: this rounding shows at 1e-5
        average = mask_average(features.float(), image_index, low_res_logits, counted_in=torch.bfloat16)
        attention = self.multihead_attn
        weight, bias = attention.in_proj_weight[2 * dim :], attention.in_proj_bias[2 * dim :]
        value = F.linear(average, weight.float(), bias.float())
        found = F.linear(value, attention.out_proj.weight.float(), attention.out_proj.bias.float())
        h = tokens.float()
        norm = F.layer_norm(h + found, (dim,), self.norm.weight.float(), self.norm.bias.float(), self.norm.eps)
        return (h + norm).to(tokens.dtype)


def make_refiner(form: str, dim: int) -> nn.Module | None:
    """The refiner of a config's `refiner` field; None for `none`."""
    forms = {"paper": PaperRefiner, "published": PublishedRefiner, "region": RegionRefiner}
    return None if form == "none" else forms[form](dim)
