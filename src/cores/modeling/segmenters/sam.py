"""SAM (Kirillov et al. 2023): one map of features, and the decoder's own low-res masks, four times as fine."""

from torch import Tensor
from transformers import SamConfig, SamModel

from cores.modeling.segmenters.base import Features, Segmenter
from cores.modeling.segmenters.relative_attention import attend_in_bands


class SamSegmenter(Segmenter, SamModel):
    """A transformers SAM with the same weights under the same names."""

    config: SamConfig

    def __init__(self, config: SamConfig) -> None:
        super().__init__(config)
        attend_in_bands(self.vision_encoder)

    def encode(self, pixels: Tensor) -> Features:
        return Features(self.vision_encoder(pixels.to(self.vision_encoder.dtype)).last_hidden_state)
