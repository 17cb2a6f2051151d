"""A multimodal LLM behind the chain's interface: states of a sequence with a picture, logits where they are asked.

The adapter of a family is the family's own class in transformers with `MultimodalLLM` before it: the same weights
under the same names. The picture goes in through the family's own forward (`mm_encoder_outputs`), which scatters it,
scales embeddings and adds to deeper layers as the family does.

Legend: rows = images of a batch or questions behind one prefix, tokens = length of the longest row (the picture's
positions counted), width = of the language model's states, axes = 1, or more for positions in time, height and width.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Union

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

from cores.modeling.packed_attention import PackedMask, block_mask, find_conversations
from cores.modeling.packing import Sight, additive

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

Pixels = Mapping[str, Tensor]  # what a family's image processor gives of pictures
Form = Union[Tensor, "BlockMask"]
Masks = Form | dict[str, Form]


class MultimodalLLM:
    """What all families share; a family's own file says what it does otherwise.

    `packs`: can several conversations share a row? A family whose layers carry a state along the row, or count along
    it, cannot: `CoresModel` then gives it a row a conversation. `by_layer_type`: does it take a mask for each type of
    layer?
    """

    packs = True
    by_layer_type = False
    config: Any
    model: Any

    @classmethod
    def is_custom_code(cls) -> bool:
        """No: names of tensors in older layouts are mapped as for the class that this one is made of."""
        return False

    @property
    def text_config(self) -> Any:
        """The language model's part of the config."""
        return self.config.get_text_config()

    @property
    def width(self) -> int:
        """Of the language model's states."""
        return int(self.text_config.hidden_size)

    def is_image(self, input_ids: Tensor) -> Tensor:
        """Which tokens the picture's own vectors replace: bool, the shape of `input_ids`."""
        found: Tensor = input_ids == self.config.image_token_id
        return found

    def encode_images(self, pixels: Pixels) -> Any:
        """Pictures as the family's own forward takes them, opaque to everybody else. Do it once per picture."""
        dtype = self.get_input_embeddings().weight.dtype  # type: ignore[attr-defined]
        cast = {name: value.to(dtype) if value.is_floating_point() else value for name, value in pixels.items()}
        return self.model.get_image_features(**cast, return_dict=True)

    def repeat(self, seen: Any, counts: Sequence[int], index: Sequence[int]) -> Any:
        """The encoded pictures of these numbers, for families that read a picture once for each conversation.

        Args: `counts`: positions of each picture, which may be encoded in several tiles.
        """
        found = type(seen)(**seen)
        found["pooler_output"] = repeated(list(seen.pooler_output), counts, index)
        return found

    def place(self, input_ids: Tensor, order: Tensor, prefix: Tensor, pixels: Pixels) -> tuple[Tensor, Tensor]:
        """Positions of rows that begin with a picture's prefix, and how far what follows it is shifted.

        Args: `input_ids`, `order` (where each token stands in its conversation), `prefix` (bool): (rows, tokens);
        `pixels`: of the rows' pictures. Returns: positions ((axes,) rows, tokens), shift (rows,).
        """
        return order, order.new_zeros(len(order))

    def follow(self, order: Tensor, shift: Tensor) -> Tensor:
        """Positions ((axes,) rows, tokens) of text behind a prefix, of its `order` (rows, tokens)."""
        return order

    def masks(self, sight: Sight) -> Masks:
        """Who sees whom, in the form that the attention which is set takes."""
        window = getattr(self.text_config, "sliding_window", None)
        if window is None:
            whole = self.whole(sight)
            return {"full_attention": whole, "sliding_attention": whole} if self.by_layer_type else whole
        near = self.form(sight.near(window))
        return {"full_attention": self.form(sight.seen), "sliding_attention": near} if self.by_layer_type else near

    def whole(self, sight: Sight) -> Form:
        """The same without a window. Of packed rows it is no mask of tokens x tokens, where that can be avoided."""
        attention, segments = self.text_config._attn_implementation, sight.segments
        if segments is not None and attention == "flex_attention":
            return block_mask(segments)
        if segments is not None and attention == "sdpa" and (found := find_conversations(segments)) is not None:
            return PackedMask.of(found, segments, sight.reads)
        return self.form(sight.seen)

    def form(self, seen: Tensor) -> Form:
        """A boolean mask (rows, queries, keys) for the attention which is set: additive, or FlexAttention's blocks."""
        if self.text_config._attn_implementation != "flex_attention":
            return additive(seen, self.get_input_embeddings().weight.dtype)  # type: ignore[attr-defined]

        from torch.nn.attention.flex_attention import create_block_mask  # compiles things: where it is asked for

        def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return seen[row, query, key]

        rows, queries, keys = seen.shape
        return create_block_mask(sees, rows, None, queries, keys, device=str(seen.device))

    def grow_vocabulary(self, size: int) -> None:
        """Give embedding and head so many rows; new ones are as the family draws them."""
        self.resize_token_embeddings(size, mean_resizing=False)  # type: ignore[attr-defined]

    def new_cache(self) -> Cache:
        """An empty cache that keeps every token: masks of ours say what a window leaves out."""
        return DynamicCache()

    def hidden_states(
        self, input_ids: Tensor, seen: Any, mask: Masks | None, positions: Tensor | None, cache: Cache | None = None
    ) -> Tensor:
        """The language model's last states (rows, tokens, width), after the final norm.

        Args: `input_ids` (rows, tokens); `seen`: the rows' pictures from `encode_images`, or None; `mask` from
        `masks`, or (rows, tokens) of ones and zeros; `positions` from `place` or `follow`; `cache`: what was read
        before, which grows by these tokens.
        """
        pictures = {} if seen is None else {"mm_encoder_outputs": {"image": seen}}
        output = self.model(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=cache is not None,
            **cached(self.model, cache),
            **pictures,
        )
        states: Tensor = output.last_hidden_state
        return states

    def logits(self, states: Tensor) -> Tensor:
        """Logits (positions, vocabulary) of states (positions, width), with the family's final scaling."""
        found: Tensor = self.get_output_embeddings()(states)  # type: ignore[attr-defined]
        cap = getattr(self.text_config, "final_logit_softcapping", None)
        return found if cap is None else cap * torch.tanh(found / cap)


def repeated(tiles: Sequence[Tensor], counts: Sequence[int], index: Sequence[int]) -> list[Tensor]:
    """Vectors (positions, width) of the pictures of these numbers, from all pictures' tiles in a row."""
    pictures = torch.cat(list(tiles)).split(list(counts))
    return [pictures[number] for number in index]


def cached(module: Any, cache: Cache | None) -> dict[str, Cache]:
    """A cache under the name that a module's forward has for it: transformers renamed it in 5.24."""
    if cache is None:
        return {}
    return {"cache" if "cache" in inspect.signature(module.forward).parameters else "past_key_values": cache}
