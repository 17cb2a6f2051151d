"""SAM's attention over the whole picture, without its whole bias: some queries at a time.

The bias of relative positions has a number for every head and pair of cells: 4096 x 4096 of SAM's grid, most of an
encoder's memory. Queries do not depend on each other, so that it may be made for a few of them.

Legend: cells = h x w of the feature grid, width = of the encoder's states.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.sam.modeling_sam import SamVisionSdpaAttention
from transformers.models.sam_hq.modeling_sam_hq import SamHQVisionSdpaAttention

QUERIES = 512  # at a time


class InBands:
    """The family's attention, with the same weights: rows of the grid that hold about `QUERIES` cells at a time."""

    num_attention_heads: int
    qkv: Any
    proj: Any
    rel_pos_h: Tensor
    rel_pos_w: Tensor
    get_rel_pos: Any

    def forward(self, hidden_states: Tensor, output_attentions: bool = False) -> tuple[Tensor, None]:
        """States (images, h, w, width) after attention over all cells; no weights of it are kept."""
        images, height, width, _ = hidden_states.shape
        heads = self.num_attention_heads
        qkv = self.qkv(hidden_states).reshape(images, height * width, 3, heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)  # (images, heads, cells, width of a head)
        down, across = self.get_rel_pos(height, height, self.rel_pos_h), self.get_rel_pos(width, width, self.rel_pos_w)
        rows, parts = max(1, QUERIES // width), []
        for first in range(0, height, rows):
            some = query[:, :, first * width : (first + rows) * width]
            grid = some.unflatten(2, (-1, width))  # (images, heads, rows, w, width of a head)
            vertical = torch.einsum("ijhwc,hkc->ijhwk", grid, down[first : first + rows])
            horizontal = torch.einsum("ijhwc,wkc->ijhwk", grid, across)
            bias = (vertical[..., None] + horizontal[..., None, :]).flatten(4).flatten(2, 3)
            parts.append(F.scaled_dot_product_attention(some, key, value, attn_mask=bias))
        found = torch.cat(parts, dim=2).transpose(1, 2).reshape(images, height, width, -1)
        return self.proj(found), None


class SamInBands(InBands, SamVisionSdpaAttention):
    """SAM's."""


class SamHQInBands(InBands, SamHQVisionSdpaAttention):
    """SAM-HQ's."""


IN_BANDS: dict[type, type] = {SamVisionSdpaAttention: SamInBands, SamHQVisionSdpaAttention: SamHQInBands}


def attend_in_bands(encoder: Any) -> None:
    """Give the layers of an image encoder that see the whole picture this attention; `eager` ones stay as they are."""
    for layer in encoder.layers:
        if layer.window_size == 0 and layer.attn.use_rel_pos and type(layer.attn) in IN_BANDS:
            layer.attn.__class__ = IN_BANDS[type(layer.attn)]  # the same weights, nothing is drawn anew
