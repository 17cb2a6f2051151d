"""SAM's attention, over the whole picture without its whole bias, and with relative positions made where it runs.

The bias of relative positions has a number for every head and pair of cells: 4096 x 4096 of SAM's grid, most of an
encoder's memory. Queries do not depend on each other, so that it may be made for a few of them. The family makes the
index of relative positions on the CPU in every layer, and a GPU would be waited for until it is there.

Legend: cells = h x w of the feature grid or of a window, width = of the encoder's states.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.sam.modeling_sam import SamVisionSdpaAttention
from transformers.models.sam_hq.modeling_sam_hq import SamHQVisionSdpaAttention

AT_ONCE = {"cpu": 2**20, "cuda": 2**25}  # numbers of the bias: what a cache holds, and what keeps a GPU busy


class OnDevice:
    """The family's attention, with the same weights."""

    def get_rel_pos(self, q_size: int, k_size: int, rel_pos: Tensor) -> Tensor:
        """The rows of `rel_pos` (2 side - 1, width of a head) by query and key along one side of the cells: (side,
        side, width of a head). Both sizes are the side that the encoder is made for."""
        place = torch.arange(q_size, device=rel_pos.device)
        return rel_pos[place[:, None] - place + k_size - 1]


class InBands(OnDevice):
    """The family's attention over the whole picture: as many rows of the grid at a time as `AT_ONCE` allows."""

    num_attention_heads: int
    qkv: Any
    proj: Any
    rel_pos_h: Tensor
    rel_pos_w: Tensor

    def forward(self, hidden_states: Tensor, output_attentions: bool = False) -> tuple[Tensor, None]:
        """States (images, h, w, width) after attention over all cells; no weights of it are kept."""
        images, height, width, _ = hidden_states.shape
        heads = self.num_attention_heads
        qkv = self.qkv(hidden_states).reshape(images, height * width, 3, heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)  # (images, heads, cells, width of a head)
        down, across = self.get_rel_pos(height, height, self.rel_pos_h), self.get_rel_pos(width, width, self.rel_pos_w)
        most = AT_ONCE.get(hidden_states.device.type, AT_ONCE["cuda"])
        rows, parts = max(1, most // (images * heads * height * width**2)), []
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


class SamOnDevice(OnDevice, SamVisionSdpaAttention):
    """SAM's in windows."""


class SamHQOnDevice(OnDevice, SamHQVisionSdpaAttention):
    """SAM-HQ's in windows."""


IN_BANDS: dict[type, type] = {SamVisionSdpaAttention: SamInBands, SamHQVisionSdpaAttention: SamHQInBands}
IN_WINDOWS: dict[type, type] = {SamVisionSdpaAttention: SamOnDevice, SamHQVisionSdpaAttention: SamHQOnDevice}


def attend_in_bands(encoder: Any) -> None:
    """Give the layers of an image encoder these attentions; `eager` ones stay as they are."""
    for layer in encoder.layers:
        ours = IN_WINDOWS if layer.window_size else IN_BANDS
        if layer.attn.use_rel_pos and type(layer.attn) in ours:
            layer.attn.__class__ = ours[type(layer.attn)]  # the same weights, nothing is drawn anew
