"""LLaVA v1 and v1.5: one picture of fixed size, whose placeholder needs no row in the embedding table.

Legend: as in `base`; patches = positions that a picture takes.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, LlavaConfig, LlavaForConditionalGeneration

from cores.errors import CheckpointError
from cores.modeling.mllms.base import Masks, MultimodalLLM, Pixels, cached
from cores.modeling.packing import require

PROJECTORS = ("linear", "mlp2x_gelu")
PATCHES = "patches"  # in the place of `pixel_values`: what was made of them before


class LlavaMLLM(MultimodalLLM, LlavaForConditionalGeneration):
    """A transformers LLaVA with the same weights under the same names, and LLaVA v1's one-layer projector.

    `config.projector`: `mlp2x_gelu` (v1.5, the default) or `linear` (v1: `multi_modal_projector` is then one linear
    layer with `weight` and `bias`). Raises CheckpointError for any other.
    """

    config: LlavaConfig

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__(config)
        projector = getattr(config, "projector", "mlp2x_gelu")
        if projector not in PROJECTORS:
            raise CheckpointError(f"mllm_config.projector: found {projector!r}, expected {' or '.join(PROJECTORS)}")
        if projector == "linear":
            layer = nn.Linear(config.vision_config.hidden_size, config.text_config.hidden_size)
            self.model.multi_modal_projector = layer

    @property
    def image_tokens(self) -> int:
        """How many positions a picture takes."""
        vision = self.config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        return int(patches if self.config.vision_feature_select_strategy == "default" else patches + 1)

    def encode_images(self, pixels: Pixels) -> Tensor:
        """Projected patches (images, patches, width) of `pixel_values` (images, 3, side, side), or ready ones."""
        if (ready := pixels.get(PATCHES)) is not None:
            return ready
        found = self.model.get_image_features(
            pixel_values=pixels["pixel_values"].to(self.model.vision_tower.dtype),
            vision_feature_layer=self.config.vision_feature_layer,
            vision_feature_select_strategy=self.config.vision_feature_select_strategy,
            return_dict=True,
        )
        patches: Tensor = nn.utils.rnn.pad_sequence(list(found.pooler_output), batch_first=True)
        return patches

    def embed(self, input_ids: Tensor, patches: Tensor | None = None) -> Tensor:
        """Input vectors (images, tokens, width), each picture's positions filled with its patches, in order.

        Raises ValueError when a row has not as many positions for its picture as there are patches.
        """
        place = self.is_image(input_ids)
        inputs: Tensor = self.get_input_embeddings()(input_ids.masked_fill(place, 0))
        if patches is None:
            return inputs
        require(
            (place.sum(dim=1) == patches.shape[1]).all(),
            f"a row of input_ids has not {patches.shape[1]} positions for its picture, as many as there are patches",
        )
        number = (place.cumsum(dim=1) - 1).clamp(0, patches.shape[1] - 1)  # which patch stands where
        found = patches.gather(1, number[..., None].expand(-1, -1, patches.shape[2]))
        return torch.where(place[..., None], found.to(inputs.dtype), inputs)

    def hidden_states(
        self, input_ids: Tensor, seen: Any, mask: Masks | None, positions: Tensor | None, cache: Cache | None = None
    ) -> Tensor:
        """As `MultimodalLLM.hidden_states`; `seen`: patches (images, patches, width). The placeholder has no row."""
        decoder = self.model.language_model
        output = decoder(
            inputs_embeds=self.embed(input_ids, seen),
            attention_mask=mask,
            position_ids=positions,
            use_cache=cache is not None,
            **cached(decoder, cache),
        )
        states: Tensor = output.last_hidden_state
        return states
