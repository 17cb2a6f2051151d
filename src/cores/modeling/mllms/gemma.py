"""Gemma 3 and Gemma 4: sliding windows in some layers, and a picture whose tokens see each other both ways.

Each type of layer has its own mask; windows are counted within a conversation, not along the packed row.

Legend: as in `base`.
"""

import torch
from torch import nn

from cores.modeling.mllms.base import Masks, MultimodalLLM
from cores.modeling.packing import Sight


class Gemma3(MultimodalLLM):
    """Gemma 3: the picture is seen both ways in every layer."""

    by_layer_type = True

    def masks(self, sight: Sight) -> Masks:
        near = sight.near(self.text_config.sliding_window)
        return {
            "full_attention": self.form(sight.seen | sight.picture()),
            "sliding_attention": self.form(near | sight.picture()),
        }


class Gemma4(MultimodalLLM):
    """Gemma 4: the picture is seen both ways in the layers with a window alone; every layer has its own embeddings."""

    by_layer_type = True

    def grow_vocabulary(self, size: int) -> None:
        super().grow_vocabulary(size)
        old = self.model.get_per_layer_input_embeddings() if self.text_config.hidden_size_per_layer_input else None
        if old is not None and size > old.num_embeddings:
            weight = old.weight.data
            new = torch.cat([weight, weight.new_empty(size - len(weight), weight.shape[1]).normal_(0, weight.std())])
            old.weight, old.num_embeddings = nn.Parameter(new), size
            self.text_config.vocab_size_per_layer_input = size

    def masks(self, sight: Sight) -> Masks:
        near = sight.near(self.text_config.sliding_window)
        both_ways = self.text_config.use_bidirectional_attention == "vision"
        return {
            "full_attention": self.form(sight.seen),
            "sliding_attention": self.form(near | sight.picture() if both_ways else near),
        }
