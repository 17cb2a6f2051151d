"""SAM 2 and 2.1 (Ravi et al. 2024) on single pictures, and what the families after it share with it.

Legend: as in `base`; levels = of the feature pyramid, fine to coarse: four times and twice as fine as the grid, and
the grid itself.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import Sam2Config, Sam2Model

from cores.modeling.segmenters.base import Features, Segmenter, SegmenterPart

LEVELS = 3


class PyramidSegmenter(Segmenter):
    """The interface of SAM 2, SAM 3's tracker and EdgeTAM, whose decoder reads three levels of a pyramid.

    `Features` holds the levels as the image encoder gives them. `conv_s0`, `conv_s1` and `no_memory_embedding`, which
    the family applies with the encoder, belong to the decoder here: they train with it.

    The decoder's exchange of an unstable mask for one of its other outputs is off: it happens in eval mode alone, and
    those outputs are never trained.
    """

    parts: ClassVar[Mapping[SegmenterPart, tuple[str, ...]]] = {
        **Segmenter.parts,
        "mask_decoder": ("mask_decoder.", "no_memory_embedding"),
    }
    never_trained: ClassVar[re.Pattern[str]] = re.compile(
        Segmenter.never_trained.pattern + r"|mask_decoder\.pred_obj_score_head"
    )
    no_memory_embedding: nn.Parameter

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # type: ignore[call-arg]  # of the transformers class that this is mixed into
        self.mask_decoder.dynamic_multimask_via_stability = False

    def encode(self, pixels: Tensor) -> Features:
        found = self.vision_encoder(pixels.to(self.vision_encoder.dtype))
        *fine, coarse = found.fpn_hidden_states[:LEVELS]
        return Features(coarse, tuple(fine))

    def decoder_inputs(self, features: Features, image_index: Tensor) -> tuple[Tensor, dict[str, Any]]:
        finest, finer = features.fine
        decoder = self.mask_decoder
        # on the few images, not on the many masks
        high = [decoder.conv_s0(finest)[image_index], decoder.conv_s1(finer)[image_index]]
        coarse = features.coarse + self.no_memory_embedding.reshape(1, -1, 1, 1)
        return coarse[image_index], {"high_resolution_features": high}


class Sam2Segmenter(PyramidSegmenter, Sam2Model):
    """A transformers SAM 2 with the same weights under the same names."""

    config: Sam2Config
