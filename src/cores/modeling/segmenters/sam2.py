"""SAM 2 and 2.1 (Ravi et al. 2024) on single pictures, and what the families after it share with it.

Legend: as in `base`; levels = of the feature pyramid, fine to coarse: four times and twice as fine as the grid, and
the grid itself.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import Sam2Config, Sam2Model
from transformers.models.sam2.modeling_sam2 import Sam2MaskDecoder

from cores.modeling.segmenters.base import Features, Segmenter, SegmenterPart
from cores.modeling.segmenters.mask_decoder import Doublings, LeanMaskDecoder, by_cell, doubled, norm_last

LEVELS = 3


class LeanPyramidDecoder(LeanMaskDecoder):
    """The decoder of these families: two finer maps are added where the picture gets finer."""

    own = ("obj_score_token", "iou_token", "mask_tokens")
    read = (2,)
    rates = 1

    conv_s0: nn.Module
    conv_s1: nn.Module

    def extras(self, picture: Tensor, fine: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        size = (picture.shape[-2], picture.shape[-1])
        finest, finer = fine
        return by_cell(self.conv_s0(finest), size), by_cell(self.conv_s1(finer), size)

    def upscaled(self, seen: Tensor, layers: Doublings, extras: tuple[Tensor, ...]) -> Tensor:
        finest, finer = extras
        once = doubled(layers[0], seen)  # (masks, cells, 4, channels)
        twice = self.activation(norm_last(self.upscale_layer_norm, once + finer.unflatten(-1, once.shape[-2:])))
        thrice = doubled(layers[1], twice)  # (masks, cells, 4, 4, channels)
        found: Tensor = self.activation(thrice + finest.unflatten(-1, thrice.shape[-3:]))
        return found


class LeanSam2MaskDecoder(LeanPyramidDecoder, Sam2MaskDecoder):
    """SAM 2's."""


class PyramidSegmenter(Segmenter):
    """The interface of SAM 2, SAM 3's tracker and EdgeTAM, whose decoder reads three levels of a pyramid.

    `Features` holds the levels as the image encoder gives them. `conv_s0`, `conv_s1` and `no_memory_embedding`, which
    the family applies with the encoder, belong to the decoder here: they train with it.

    The decoder's exchange of an unstable mask for one of its other outputs is not made: the families make it in eval
    mode alone, and those outputs are never trained.
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
        super().__init__(config)
        self.mask_decoder.dynamic_multimask_via_stability = False  # of the family's own forward, too

    def encode(self, pixels: Tensor) -> Features:
        found = self.vision_encoder(pixels.to(self.vision_encoder.dtype))
        *fine, coarse = found.fpn_hidden_states[:LEVELS]
        return Features(coarse, tuple(fine))

    def picture(self, features: Features) -> Tensor:
        return features.coarse + self.no_memory_embedding.reshape(1, -1, 1, 1)


class Sam2Segmenter(PyramidSegmenter, Sam2Model):
    """A transformers SAM 2 with the same weights under the same names."""

    config: Sam2Config
    decoder = LeanSam2MaskDecoder
