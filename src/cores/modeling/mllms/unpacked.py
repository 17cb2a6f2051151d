"""Families that cannot pack: their layers carry a state along the row (Qwen3.5, LFM2-VL) or count along it (Llama 4).

They read a row a conversation, padded on the right, and answer one question at a time from their own kind of cache:
right, and slower by the picture's tokens for each question.

Legend: as in `base`.
"""

import torch
from transformers import Cache, DynamicCache

from cores.modeling.mllms.base import Masks, MultimodalLLM
from cores.modeling.mllms.rotary_grid import GridPositions
from cores.modeling.packing import Sight


class Unpacked(MultimodalLLM):
    """A multimodal LLM that makes its masks itself, from which tokens are real."""

    packs = False

    def masks(self, sight: Sight) -> Masks:
        """(rows, keys) of ones: there is one question, and nothing to hide."""
        return torch.ones_like(sight.keys)

    def new_cache(self) -> Cache:
        return DynamicCache(config=self.text_config)


class UnpackedGridPositions(Unpacked, GridPositions):
    """The same with positions of several axes (Qwen3.5)."""
