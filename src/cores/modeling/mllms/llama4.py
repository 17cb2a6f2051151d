"""Llama 4: no `model` inside, and attention that is scaled by a token's place in the row, so that it cannot pack.

Legend: as in `base`; tiles = parts that a picture is cut into.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from cores.modeling.mllms.base import Masks, Pixels, cached, repeated
from cores.modeling.mllms.unpacked import Unpacked


class Llama4(Unpacked):
    """Llama 4."""

    language_model: Any
    vision_model: Any
    multi_modal_projector: Any

    def encode_images(self, pixels: Pixels) -> list[Tensor]:
        """Projected patches (patches, width) of each tile of `pixel_values` (tiles, 3, s, s)."""
        values = pixels["pixel_values"]
        found = self.vision_model(values.to(self.multi_modal_projector.linear_1.weight.dtype)).last_hidden_state
        patches: Tensor = self.multi_modal_projector(found.flatten(0, 1)).unflatten(0, found.shape[:2])
        return list(patches)

    def repeat(self, seen: Sequence[Tensor], counts: Sequence[int], index: Sequence[int]) -> list[Tensor]:
        return repeated(seen, counts, index)

    def hidden_states(
        self, input_ids: Tensor, seen: Any, mask: Masks | None, positions: Tensor | None, cache: Cache | None = None
    ) -> Tensor:
        inputs: Tensor = self.get_input_embeddings()(input_ids)  # type: ignore[attr-defined]
        if seen is not None:
            place = self.is_image(input_ids)
            inputs = inputs.masked_scatter(place[..., None], torch.cat(list(seen)).to(inputs.dtype))
        decoder = self.language_model.model
        output = decoder(
            inputs_embeds=inputs,
            attention_mask=mask,
            position_ids=positions,
            use_cache=cache is not None,
            **cached(decoder, cache),
        )
        states: Tensor = output.last_hidden_state
        return states
