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
        query, key, value = qkv.permute(2, 0, 3, 1, 4).flatten(1, 2).unbind()  # (images x heads, cells, width)
        down, across = _by_pair(self.rel_pos_h, height), _by_pair(self.rel_pos_w, width)
        most = AT_ONCE.get(hidden_states.device.type, AT_ONCE["cuda"]) // (height * width**2)  # rows of one head
        rows = min(max(most, 1), height)
        few = max(most // rows, 1)  # heads: many queries of few take less time than few queries of many
        found = []
        for some, keys, values in zip(query.split(few), key.split(few), value.split(few), strict=True):
            grid = some.unflatten(1, (height, width))
            bands = zip(grid.split(rows, dim=1), down.split(rows), strict=True)
            found.append(torch.cat([_attended(band, keys, values, near, across) for band, near in bands], dim=1))
        whole = torch.cat(found).unflatten(0, (images, heads)).transpose(1, 2).reshape(images, height, width, -1)
        return self.proj(whole), None


def _by_pair(relative: Tensor, side: int) -> Tensor:
    """The rows of `relative` (2 side - 1, width of a head) by query and key along one side of the cells: (side, side,
    width of a head)."""
    place = torch.arange(side, device=relative.device)
    return relative[place[:, None] - place + side - 1]


def _attended(grid: Tensor, key: Tensor, value: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """What some rows of the grid (heads, rows, w, width of a head) find: (heads, rows x w, width of a head).

    Args: `key`, `value` (heads, cells, width of a head); `down` (rows, h, width of a head), `across` (w, w, the same):
    relative positions of these rows, and of all columns.
    """
    vertical = torch.einsum("nhwc,hkc->nhwk", grid, down)
    horizontal = torch.einsum("nhwc,wkc->nhwk", grid, across)
    bias = (vertical[..., None] + horizontal[..., None, :]).flatten(3).flatten(1, 2)
    query, bias = grid.flatten(1, 2)[None], bias[None]  # with an axis for pictures, which SDPA's fast kernels want
    return F.scaled_dot_product_attention(query, key[None], value[None], attn_mask=bias)[0]


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
