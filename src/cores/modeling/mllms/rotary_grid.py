"""Families whose positions have axes (M-RoPE): time, height and width for a picture, one number for text.

Qwen2-VL, Qwen2.5-VL, Qwen3-VL and GLM-4V. The picture's positions come from the family's own `get_rope_index`; a
picture takes fewer positions than tokens, so that the text behind it is shifted back.

Legend: as in `base`.
"""

from torch import Tensor

from cores.modeling.mllms.base import MultimodalLLM, Pixels


class GridPositions(MultimodalLLM):
    """A multimodal LLM with positions (3, rows, tokens)."""

    def place(self, input_ids: Tensor, order: Tensor, prefix: Tensor, pixels: Pixels) -> tuple[Tensor, Tensor]:
        """As `MultimodalLLM.place`; `pixels` with `image_grid_thw` (pictures, 3). Positions (3, rows, tokens)."""
        kinds = self.is_image(input_ids).to(input_ids.dtype)  # 0 text, 1 picture
        grid, delta = self.model.get_rope_index(
            input_ids, mm_token_type_ids=kinds, image_grid_thw=pixels["image_grid_thw"], attention_mask=prefix.long()
        )
        shift = delta.reshape(-1).to(order)
        return grid.where(prefix, self.follow(order, shift)), shift

    def follow(self, order: Tensor, shift: Tensor) -> Tensor:
        """One number on all axes: (3, rows, tokens)."""
        return (order + shift[:, None]).clamp(min=0).expand(3, -1, -1)


class WindowedGridPositions(GridPositions):
    """The same with a sliding window in some layers (Qwen2-VL, Qwen2.5-VL where their config says so)."""

    by_layer_type = True
