"""What the chain asks of a promptable segmenter: look at an image once, then decode any number of masks.

Legend: images = pictures of the batch, masks = all masks of the batch on one flat axis, prompts = tokens of one mask's
prompt, dim = width of prompts and features, (h, w) = the feature grid, (H, W) = low-res masks.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from cores.geometry import Fit
from cores.modeling.segmenters.mask_decoder import LeanMaskDecoder, LeanSamMaskDecoder
from cores.segmenter_families import SEGMENTERS

SegmenterPart = Literal["image_encoder", "prompt_encoder", "mask_decoder"]


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What a segmenter keeps of pictures: everything that comes before its trainable decoder.

    `coarse` (images, dim, h, w): the map that prompts attend to; `fine`: whatever else the family's decoder reads,
    (images, ...) each. Indexed by picture like a tensor.
    """

    coarse: Tensor
    fine: tuple[Tensor, ...] = ()

    def __getitem__(self, images: Any) -> "Features":
        """The features of these pictures: a slice, a mask or numbers, as often as they are named."""
        return Features(self.coarse[images], tuple(one[images] for one in self.fine))

    def __len__(self) -> int:
        return len(self.coarse)

    def new_zeros(self, *size: Any) -> Tensor:
        """As `Tensor.new_zeros`: where the features are, of their type."""
        return self.coarse.new_zeros(*size)

    @staticmethod
    def cat(parts: "list[Features]") -> "Features":
        """The pictures of all parts, in order."""
        fine = zip(*(part.fine for part in parts), strict=True)
        return Features(torch.cat([part.coarse for part in parts]), tuple(torch.cat(level) for level in fine))


class Segmenter:
    """A promptable segmenter's side of the chain, mixed into a transformers class of its family.

    Weights keep the family's names. The family's own `forward` adds a mask prompt to the image features *before* it
    repeats them per prompt, so that questions about one image cannot each bring a mask. Here the mask decoder is a
    `LeanMaskDecoder` of the family's, which takes pictures by index.

    `parts`: how names of tensors begin, by the recipe's word for a part; `never_trained`: matches those that the
    chain's losses do not reach, of which a checkpoint never says that they were learned; `decoder`: the class that the
    family's mask decoder becomes.
    """

    parts: ClassVar[Mapping[SegmenterPart, tuple[str, ...]]] = {
        "image_encoder": ("vision_encoder.",),
        "prompt_encoder": ("prompt_encoder.",),
        "mask_decoder": ("mask_decoder.",),
    }
    # The Gaussian matrix of positions is a constant. The decoder's guess of its own IoU and its outputs for several
    # masks a prompt are read by no loss, points and boxes are not asked with.
    never_trained: ClassVar[re.Pattern[str]] = re.compile(
        r"positional_embedding|prompt_encoder\.(not_a_)?point_embed"
        r"|mask_decoder\.(iou_prediction_head|output_hypernetworks_mlps\.[1-9])"
    )

    decoder: ClassVar[type[LeanMaskDecoder]] = LeanSamMaskDecoder

    config: Any
    prompt_encoder: Any
    mask_decoder: Any
    vision_encoder: Any
    shared_image_embedding: Any
    get_image_wide_positional_embeddings: Any
    _made: tuple[Tensor, Any, Tensor] | None = None  # a matrix, its state, and the positions that were made of it

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # type: ignore[call-arg]  # of the transformers class that this is mixed into
        self.mask_decoder.__class__ = self.decoder  # the same weights under the same names; nothing is drawn anew

    @classmethod
    def is_custom_code(cls) -> bool:
        """No: names of tensors in older layouts are mapped as for the class that this one is made of."""
        return False

    @classmethod
    def check(cls, stored: Mapping[str, Any]) -> None:
        """Raise CheckpointError for a config of this family, as its file has it, that no model is to be made of."""

    @property
    def fit(self) -> Fit:
        """How a picture is put into the square that it looks at."""
        return SEGMENTERS[self.config.model_type].fit

    @property
    def image_size(self) -> int:
        """Side of the square it looks at, in pixels."""
        return image_size(self.config)

    @property
    def mask_size(self) -> int:
        """Side of its low-res masks: four times as fine as the feature grid."""
        prompts = self.config.prompt_encoder_config
        return 4 * (int(prompts.image_size) // int(prompts.patch_size))

    @property
    def dim(self) -> int:
        """Width of a prompt token."""
        return int(self.config.prompt_encoder_config.hidden_size)

    def encode(self, pixels: Tensor) -> Features:
        """Features of `pixels` (images, 3, side, side), normalised. Once per image.

        It ends before everything that trains with the mask decoder, so that features may be kept meanwhile.
        """
        raise NotImplementedError

    def grid(self, features: Features) -> Tensor:
        """The features as (images, dim, h, w), for the refiner."""
        return features.coarse

    def decode(
        self,
        features: Features,
        tokens: Tensor,
        image_index: Tensor,
        mask_prompt: Tensor | None = None,
        rated: list[Tensor] | None = None,
    ) -> Tensor:
        """Low-res logits of every mask, in one call of the mask decoder.

        Args: `features` of the images; `tokens` (masks, prompts, dim), no padding point is added; `image_index`
        (masks,); `mask_prompt` (masks, H, W), raw logits, or None; `rated`: is given the decoder's guess of each
        mask's IoU (masks,), which no loss trains.
        Returns: (masks, H, W): the decoder's single-mask output.
        """
        if not len(tokens):
            if rated is not None:
                rated.append(tokens.new_zeros(0))
            return tokens.new_zeros((0, self.mask_size, self.mask_size))
        picture = self.picture(features)
        dense = self.no_mask() if mask_prompt is None else self.embed_masks(mask_prompt.to(picture.dtype))
        positions, tokens = self.positions().to(picture.dtype), tokens.to(picture.dtype)
        found: Tensor = self.mask_decoder(picture, positions, tokens, image_index, dense, features.fine, rated)
        return found

    def picture(self, features: Features) -> Tensor:
        """The map that prompts attend to (images, dim, h, w), with whatever of it trains with the decoder."""
        return features.coarse

    def no_mask(self) -> Tensor:
        """What is added to every cell (dim,) where there is no mask prompt."""
        found: Tensor = self.prompt_encoder.no_mask_embed.weight[0]
        return found

    def embed_masks(self, logits: Tensor) -> Tensor:
        """What mask prompts (masks, H, W) add to cells: (masks, cells, dim)."""
        embed = self.prompt_encoder.mask_embed
        small = embed.activation(embed.layer_norm1(embed.conv1(logits[:, None])))
        small = embed.activation(embed.layer_norm2(embed.conv2(small)))  # (masks, channels, h, w)
        return F.linear(small.flatten(2).mT, embed.conv3.weight[..., 0, 0], embed.conv3.bias)

    def positions(self) -> Tensor:
        """Where each cell lies: (cells, dim). Made once for a matrix of positions that does not change."""
        matrix = self.shared_image_embedding.positional_embedding
        if torch.is_grad_enabled() and matrix.requires_grad:
            return self._positions()
        state = (matrix._version, matrix.device, matrix.dtype)
        if self._made is None or self._made[0] is not matrix or self._made[1] != state:
            self._made = (matrix, state, self._positions().detach())
        return self._made[2]

    def _positions(self) -> Tensor:
        found: Tensor = self.get_image_wide_positional_embeddings()
        return found[0].flatten(1).mT.contiguous()

    def embed_boxes(self, boxes: Tensor) -> Tensor:
        """Prompt tokens (masks, prompts, dim) of `boxes` (masks, 4): x, y of two corners in pixels of the square."""
        found: Tensor = self.prompt_encoder._embed_boxes(boxes[:, None])
        return found[:, 0]


def image_size(config: Any) -> int:
    """Side of the square that a segmenter of this config looks at, in pixels."""
    return int(config.prompt_encoder_config.image_size)
