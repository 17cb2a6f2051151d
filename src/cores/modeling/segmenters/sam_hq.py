"""SAM-HQ (Ke et al. 2023): SAM, and an output token that reads an early layer of the image encoder too."""

from torch import Tensor, nn
from transformers import SamHQConfig, SamHQModel
from transformers.models.sam_hq.modeling_sam_hq import SamHQMaskDecoder

from cores.modeling.segmenters.base import Features, Segmenter
from cores.modeling.segmenters.mask_decoder import LeanMaskDecoder, Sizes, as_map
from cores.modeling.segmenters.relative_attention import attend_in_bands


class LeanSamHQMaskDecoder(LeanMaskDecoder, SamHQMaskDecoder):
    """SAM-HQ's. Its fine map, of the picture and of an early layer, is made once a picture."""

    own = ("iou_token", "mask_tokens", "hq_token")
    read = (1, 5)

    encoder_conv1: nn.Module
    encoder_norm: nn.Module
    encoder_conv2: nn.Module
    compress_vit_conv1: nn.Module
    compress_vit_norm: nn.Module
    compress_vit_conv2: nn.Module
    mask_conv1: nn.Module
    mask_norm: nn.Module
    mask_conv2: nn.Module
    hq_mask_mlp: nn.Module

    def extras(self, picture: Tensor, fine: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        found = self.encoder_conv2(self.activation(self.encoder_norm(self.encoder_conv1(picture))))
        for early in fine:  # (images, h, w, width)
            map_ = self.compress_vit_conv1(early.permute(0, 3, 1, 2))
            found = found + self.compress_vit_conv2(self.activation(self.compress_vit_norm(map_)))
        return (found,)

    def cells_of_masks(self, taken: Tensor, given: Tensor, size: Sizes) -> Tensor:
        """transformers makes masks of the cells that the decoder's transformer takes, rows for columns.

        The published program makes them of those that it gives, by its paper. Here transformers' own forward is the
        measure for every family.
        """
        found: Tensor = taken.expand_as(given).unflatten(1, size).transpose(1, 2).flatten(1, 2)
        return found

    def masks(self, asked: Tensor, cells: Tensor, extras: tuple[Tensor, ...], size: Sizes) -> Tensor:
        plain = as_map(self.upscaled(cells, self.doublings(), ()).flatten(1, 3), size)  # (masks, dim / 8, 4 h, 4 w)
        fine = self.mask_conv2(self.activation(self.mask_norm(self.mask_conv1(plain)))) + extras[0]
        by = (self.output_hypernetworks_mlps[0](asked[:, 0]), self.hq_mask_mlp(asked[:, 1]))
        found = [(one[:, None] @ seen.flatten(2)) for one, seen in zip(by, (plain, fine), strict=True)]
        both: Tensor = found[0] + found[1]
        return both.view(len(asked), 4 * size[0], 4 * size[1])


class SamHQSegmenter(Segmenter, SamHQModel):
    """A transformers SAM-HQ with the same weights under the same names.

    `Features.fine`: the first layer of the image encoder that sees the whole picture, (images, h, w, its width). A
    mask is the sum of SAM's own and that of the new token.
    """

    config: SamHQConfig
    decoder = LeanSamHQMaskDecoder

    def __init__(self, config: SamHQConfig) -> None:
        super().__init__(config)
        attend_in_bands(self.vision_encoder)

    def encode(self, pixels: Tensor) -> Features:
        found = self.vision_encoder(pixels.to(self.vision_encoder.dtype))
        return Features(found.last_hidden_state, tuple(found.intermediate_embeddings[:1]))
