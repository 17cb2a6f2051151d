"""SAM's attention, without its whole bias, and with relative positions made where it runs.

The bias of relative positions has a number for every head and pair of cells: 4096 x 4096 of SAM's grid, most of an
encoder's memory. Queries do not depend on each other, so that it may be made for a few of them. The family makes the
index of relative positions on the CPU in every layer, and a GPU would be waited for until it is there.

Legend: cells = h x w of the feature grid or of a window, width = of the encoder's states, or of one head's.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.sam.modeling_sam import SamVisionSdpaAttention
from transformers.models.sam_hq.modeling_sam_hq import SamHQVisionSdpaAttention

AT_ONCE = {"cpu": 2**20, "cuda": 2**25}  # numbers of the bias: what a cache holds, and what keeps a GPU busy


class InBands:
    """The family's attention with the same weights, over the whole picture or in windows: as many rows of the grid, of
    one head or more, at a time as `AT_ONCE` allows."""

    num_attention_heads: int
    qkv: Any
    proj: Any
    rel_pos_h: Tensor
    rel_pos_w: Tensor

    def forward(self, hidden_states: Tensor, output_attentions: bool = False) -> tuple[Tensor, None]:
        """States (images or windows, h, w, width) after attention over all cells; no weights of it are kept."""
        images, height, width, _ = hidden_states.shape
        heads = self.num_attention_heads
        qkv = self.qkv(hidden_states).reshape(images, height * width, 3, heads, -1)
        asks = qkv.permute(2, 0, 3, 1, 4)  # (3, images, heads, cells, width)
        down, across = _by_pair(self.rel_pos_h, height), _by_pair(self.rel_pos_w, width)
        most = AT_ONCE.get(hidden_states.device.type, AT_ONCE["cuda"]) // (height * width**2)  # rows of one head
        rows = min(max(most, 1), height)
        few = max(most // rows, 1)  # heads: many queries of few take less time than few queries of many
        found = []
        for of_some in asks.split(max(few // heads, 1), dim=1):
            parts = [_attended(part, (height, width), rows, down, across) for part in of_some.split(few, dim=2)]
            found.append(torch.cat(parts, dim=1))
        whole = torch.cat(found).transpose(1, 2).reshape(images, height, width, -1)
        return self.proj(whole), None


def _attended(asks: Tensor, size: tuple[int, int], rows: int, down: Tensor, across: Tensor) -> Tensor:
    """What cells find in cells, so many rows of queries at a time: (images, heads, cells, width of a head).

    Args: `asks` (3, images, heads, cells, width of a head): queries, keys and values; `size` (h, w); `down` (h, h,
    width of a head), `across` (w, w, the same): relative positions.
    """
    query, key, value = asks.unbind()
    found = []
    for grid, near in zip(query.unflatten(2, size).split(rows, dim=2), down.split(rows), strict=True):
        vertical = torch.einsum("nmhwc,hkc->nmhwk", grid, near)
        horizontal = torch.einsum("nmhwc,wkc->nmhwk", grid, across)
        vertical = vertical.contiguous()  # so that the bias is, and need not be copied
        bias = (vertical[..., None] + horizontal[..., None, :]).flatten(4).flatten(2, 3)
        found.append(F.scaled_dot_product_attention(grid.flatten(2, 3), key, value, attn_mask=bias))
    return torch.cat(found, dim=2)


def _by_pair(relative: Tensor, side: int) -> Tensor:
    """The rows of `relative` (2 side - 1, width of a head) by query and key along one side of the cells: (side, side,
    width of a head)."""
    place = torch.arange(side, device=relative.device)
    return relative[place[:, None] - place + side - 1]


class SamInBands(InBands, SamVisionSdpaAttention):
    """SAM's."""


class SamHQInBands(InBands, SamHQVisionSdpaAttention):
    """SAM-HQ's."""


IN_BANDS: dict[type, type] = {SamVisionSdpaAttention: SamInBands, SamHQVisionSdpaAttention: SamHQInBands}


def attend_in_bands(encoder: Any) -> None:
    """Give the layers of an image encoder these attentions; `eager` ones stay as they are."""
    for layer in encoder.layers:
        if layer.attn.use_rel_pos and type(layer.attn) in IN_BANDS:
            layer.attn.__class__ = IN_BANDS[type(layer.attn)]  # the same weights, nothing is drawn anew
