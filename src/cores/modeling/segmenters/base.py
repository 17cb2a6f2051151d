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

from cores.geometry import Fit
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
    repeats them per prompt, so that questions about one image cannot each bring a mask. Here features are taken by
    index instead, once for every mask.

    `parts`: how names of tensors begin, by the recipe's word for a part; `never_trained`: matches those that the
    chain's losses do not reach, of which a checkpoint never says that they were learned.
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

    config: Any
    prompt_encoder: Any
    mask_decoder: Any
    vision_encoder: Any
    get_image_wide_positional_embeddings: Any

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
        self, features: Features, tokens: Tensor, image_index: Tensor, mask_prompt: Tensor | None = None
    ) -> Tensor:
        """Low-res logits of every mask, in one call of the mask decoder.

        Args: `features` of the images; `tokens` (masks, prompts, dim), no padding point is added; `image_index`
        (masks,); `mask_prompt` (masks, H, W), raw logits, or None.
        Returns: (masks, H, W): the decoder's single-mask output.
        """
        masks = tokens.shape[0]
        if not masks:
            return tokens.new_zeros((0, self.mask_size, self.mask_size))
        embedding, rest = self.decoder_inputs(features, image_index)  # (masks, dim, h, w)
        if mask_prompt is None:
            dense = self.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand_as(embedding)
        else:
            dense = self.prompt_encoder.mask_embed(mask_prompt[:, None].to(embedding.dtype))
        positions = self.get_image_wide_positional_embeddings().to(embedding.dtype)
        low_res, *_ = self.mask_decoder(
            image_embeddings=embedding,
            image_positional_embeddings=positions.expand(masks, -1, -1, -1),
            sparse_prompt_embeddings=tokens[:, None].to(embedding.dtype),  # (masks, 1, prompts, dim)
            dense_prompt_embeddings=dense,
            multimask_output=False,
            **rest,
        )
        found: Tensor = low_res[:, 0, 0]
        return found

    def decoder_inputs(self, features: Features, image_index: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """The map that each mask's prompt attends to (masks, dim, h, w), and what else the family's decoder takes."""
        return features.coarse[image_index], {}

    def embed_boxes(self, boxes: Tensor) -> Tensor:
        """Prompt tokens (masks, prompts, dim) of `boxes` (masks, 4): x, y of two corners in pixels of the square."""
        found: Tensor = self.prompt_encoder._embed_boxes(boxes[:, None])
        return found[:, 0]


def image_size(config: Any) -> int:
    """Side of the square that a segmenter of this config looks at, in pixels."""
    return int(config.prompt_encoder_config.image_size)
