"""SAM-HQ (Ke et al. 2023): SAM, and an output token that reads an early layer of the image encoder too."""

from typing import Any

from torch import Tensor
from transformers import SamHQConfig, SamHQModel

from cores.modeling.segmenters.base import Features, Segmenter


class SamHQSegmenter(Segmenter, SamHQModel):
    """A transformers SAM-HQ with the same weights under the same names.

    `Features.fine`: the first layer of the image encoder that sees the whole picture, (images, h, w, its width). A
    mask is the sum of SAM's own and that of the new token, as in the published program.
    """

    config: SamHQConfig

    def encode(self, pixels: Tensor) -> Features:
        found = self.vision_encoder(pixels.to(self.vision_encoder.dtype))
        return Features(found.last_hidden_state, tuple(found.intermediate_embeddings[:1]))

    def decoder_inputs(self, features: Features, image_index: Tensor) -> tuple[Tensor, dict[str, Any]]:
        early = [one[image_index] for one in features.fine]
        return features.coarse[image_index], {"hq_token_only": False, "intermediate_embeddings": early}
