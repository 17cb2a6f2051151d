"""Gemma 3 and Gemma 4: sliding windows in some layers, and a picture whose tokens see each other both ways.

Each type of layer has its own mask; windows are counted within a conversation, not along the packed row.

Legend: as in `base`.
"""

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
    """Gemma 4: the picture is seen both ways in the layers with a window alone."""

    by_layer_type = True

    def masks(self, sight: Sight) -> Masks:
        near = sight.near(self.text_config.sliding_window)
        both_ways = self.text_config.use_bidirectional_attention == "vision"
        return {
            "full_attention": self.form(sight.seen),
            "sliding_attention": self.form(near | sight.picture() if both_ways else near),
        }
