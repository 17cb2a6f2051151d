"""LLaVA behind the chain's interface: states of a sequence with pictures in it, and words only where they are asked.

Legend: images = rows of the batch, tokens = length of the longest row (image positions counted), width = the language
model's.
"""

import inspect
from typing import Any

from torch import Tensor, nn
from transformers import Cache, LlamaModel, LlavaConfig, LlavaForConditionalGeneration

from cores.errors import CheckpointError

PROJECTORS = ("linear", "mlp2x_gelu")
# transformers renamed the argument in 5.24
CACHE_ARGUMENT = "cache" if "cache" in inspect.signature(LlamaModel.forward).parameters else "past_key_values"


class LlavaMLLM(LlavaForConditionalGeneration):
    """A transformers LLaVA with the same weights under the same names, and LLaVA v1's one-layer projector.

    `config.projector`: `mlp2x_gelu` (v1.5, the default) or `linear` (v1: `multi_modal_projector` is then one linear
    layer with `weight` and `bias`). The image placeholder needs no row in the embedding table.
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

    @classmethod
    def is_custom_code(cls) -> bool:
        """No: names of tensors in older layouts are mapped as for the class that this one is made of."""
        return False

    @property
    def image_tokens(self) -> int:
        """How many positions a picture takes."""
        vision = self.config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        return int(patches if self.config.vision_feature_select_strategy == "default" else patches + 1)

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Projected patches (images, patches, width) of `pixel_values` (images, 3, side, side)."""
        found = self.model.get_image_features(
            pixel_values=pixel_values.to(self.model.vision_tower.dtype),
            vision_feature_layer=self.config.vision_feature_layer,
            vision_feature_select_strategy=self.config.vision_feature_select_strategy,
            return_dict=True,
        )
        patches: Tensor = nn.utils.rnn.pad_sequence(list(found.pooler_output), batch_first=True)
        return patches

    def embed(self, input_ids: Tensor, patches: Tensor | None = None) -> Tensor:
        """Input vectors (images, tokens, width), the image's positions filled with its patches, in order.

        Raises ValueError when positions and patches are not as many.
        """
        place = input_ids == self.config.image_token_id
        inputs: Tensor = self.get_input_embeddings()(input_ids.masked_fill(place, 0))
        if patches is None:
            return inputs
        if int(place.sum()) != patches.shape[0] * patches.shape[1]:
            raise ValueError(
                f"{int(place.sum())} image positions in input_ids, {patches.shape[0]} pictures of {patches.shape[1]} "
                "patches each: they must be as many"
            )
        return inputs.masked_scatter(place[..., None], patches.to(inputs.dtype))

    def hidden_states(
        self,
        inputs: Tensor,
        mask: Tensor | None,
        positions: Tensor,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
    ) -> Any:
        """The language model's output; `last_hidden_state` (images, tokens, width) is after the final norm.

        Args: `inputs` (images, tokens, width); `mask` additive 4D or 2D; `positions` (images, tokens);
        `past_key_values`: keys and values of what was read before, which grows by these tokens with `use_cache`.
        """
        cache = {} if past_key_values is None else {CACHE_ARGUMENT: past_key_values}
        return self.model.language_model(
            inputs_embeds=inputs, attention_mask=mask, position_ids=positions, use_cache=use_cache, **cache
        )

    def logits(self, hidden_states: Tensor) -> Tensor:
        """Logits (positions, vocabulary) of `hidden_states` (positions, width): only for those that are asked."""
        found: Tensor = self.lm_head(hidden_states)
        return found
