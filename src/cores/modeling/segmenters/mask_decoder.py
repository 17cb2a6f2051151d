"""The mask decoder of SAM and the families after it, with their weights, for many masks of few pictures.

The families' own program repeats the picture for every mask, projects all its cells for every attention, and makes
four masks of which one is read. Here a projection of cells is never made: tokens are few, so that they go through the
projection's transpose instead, q (W x) = (q W) x; the attention of cells to tokens likewise. Convolutions that double
the size are linear layers of each cell, so that channels stay last and nothing is laid out anew. Numbers differ from
the families' by rounding alone.

Legend: masks = all of the batch, on one axis; cells = h x w of the feature grid; dim = width of tokens and cells;
queries = a mask's tokens: the decoder's own, then its prompt; a picture's part is (cells, dim) where there is one
picture, and (masks, cells, dim) else: both go with (masks, ...) tensors.
"""

from itertools import repeat
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.sam.modeling_sam import SamMaskDecoder

Sizes = tuple[int, int]
Doubling = tuple[Tensor, Tensor | None]
Doublings = tuple[Doubling, Doubling]

TOGETHER = 2**21  # numbers in the cells of masks that are made at a time on a CPU: two masks of SAM's 64 x 64 x 256
PIECE = 1024  # cells that are made finer at a time on a CPU


class Places:
    """Positions (cells, dim) behind attentions' projections: made once for all masks of a call, and on a CPU, where
    nothing trains, once as long as both stay the same."""

    def __init__(self, positions: Tensor) -> None:
        self.positions = positions
        self.made: dict[int, Tensor] = {}

    def behind(self, attention: Any, weight: Tensor) -> Tensor:
        """(width, cells) behind `weight` (width, dim), the projection of cells of an attention."""
        if id(attention) not in self.made:
            learns = torch.is_grad_enabled() and (weight.requires_grad or self.positions.requires_grad)
            keeps = not learns and _on_cpu(weight) and not torch.is_autocast_enabled("cpu")
            self.made[id(attention)] = self._kept(attention, weight) if keeps else weight @ self.positions.mT
        return self.made[id(attention)]

    def _kept(self, attention: Any, weight: Tensor) -> Tensor:
        kept = attention.__dict__.get("_kept")
        if kept is None or kept[0] is not self.positions or not torch.equal(kept[1], weight):
            with torch.no_grad():
                kept = (self.positions, weight.clone(), weight @ self.positions.mT)
            attention.__dict__["_kept"] = kept
        found: Tensor = kept[2]
        return found


class LeanMaskDecoder:
    """A family's mask decoder: mixed into its class, whose tensors keep their names.

    `own`: names of the tables of the decoder's own tokens, in their order; `read`: which of all tokens say masks;
    `rates`: which says how good they are.
    """

    own: ClassVar[tuple[str, ...]] = ("iou_token", "mask_tokens")
    read: ClassVar[tuple[int, ...]] = (1,)
    rates: ClassVar[int] = 0

    transformer: Any
    upscale_conv1: nn.ConvTranspose2d
    upscale_conv2: nn.ConvTranspose2d
    upscale_layer_norm: nn.LayerNorm
    activation: nn.Module
    output_hypernetworks_mlps: nn.ModuleList
    iou_prediction_head: nn.Module

    def forward(self, *asked: Any, **family: Any) -> Any:
        """`decode`; called with the family's own names, the family's own forward.

        One forward for both: hooks, `compile` and sharding are of a module's forward.
        """
        return super().forward(**family) if family else self.decode(*asked)  # type: ignore[misc]

    def decode(
        self,
        picture: Tensor,
        positions: Tensor,
        tokens: Tensor,
        image_index: Tensor,
        dense: Tensor,
        fine: tuple[Tensor, ...] = (),
        rated: list[Tensor] | None = None,
    ) -> Tensor:
        """Low-res logits (masks, 4 h, 4 w).

        Args: `picture` (images, dim, h, w); `positions` (cells, dim); `tokens` (masks, prompts, dim); `image_index`
        (masks,); `dense`, added to the picture: (dim,), or (masks, cells, dim) of mask prompts; `fine`: the rest of
        the segmenter's features, (images, ...) each; `rated`: is given what the decoder takes for the masks' IoU
        (masks,).
        """
        size = (picture.shape[-2], picture.shape[-1])
        seen = picture.flatten(2).mT.contiguous()  # (images, cells, dim)
        seen = seen + dense if dense.ndim == 1 else seen  # the same for all masks: once a picture
        own = torch.cat([getattr(self, name).weight for name in self.own])
        points = torch.cat([own.expand(len(tokens), -1, -1), tokens], dim=1).to(own.dtype)  # (masks, queries, dim)
        most = _together(seen, len(tokens))
        maps = (seen, *self.extras(picture, fine))
        pictures = list(zip(*(each.unbind() for each in maps), strict=True))
        places = Places(positions)
        found = []
        # split, not sliced: the gradient of a slice is as large as all masks
        prompts = dense.split(most) if dense.ndim == 3 else repeat(None)
        for some, index, prompt in zip(points.split(most), image_index.split(most), prompts, strict=False):
            if len(pictures) == 1:
                cells, *beside = pictures[0]
            elif _on_cpu(seen) and len(index.unique()) == 1:
                cells, *beside = pictures[int(index[0])]  # a view, where a tensor as index copies it for every mask
            else:
                cells, *beside = (each[index] for each in maps)
            cells = cells if prompt is None else cells + prompt
            found.append(self._some(some, cells, places, tuple(beside), size, rated))
        return torch.cat(found)

    def _some(
        self,
        points: Tensor,
        taken: Tensor,
        places: Places,
        extras: tuple[Tensor, ...],
        size: Sizes,
        rated: list[Tensor] | None,
    ) -> Tensor:
        """Logits of some of the masks: `points` (masks, queries, dim), `taken` cells, and the rest as in `decode`."""
        queries, seen = points, taken
        for layer in self.transformer.layers:
            queries, seen = _two_way(layer, queries, points, seen, places)
        # indexed one by one: a tuple as an index is copied to the device, and the host waits for that
        read = self.read if rated is None else (*self.read, self.rates)
        asked, whose = (torch.stack([of[:, i] for i in read], dim=1) for of in (queries, points))
        last = self.transformer
        asked = asked + _token_to_image(last.final_attn_token_to_image, asked + whose, seen, places)
        asked = last.layer_norm_final_attn(asked)
        if rated is not None:
            rated.append(self.iou_prediction_head(asked[:, -1])[:, 0])
        return self.masks(asked, self.cells_of_masks(taken, seen, size), extras, size)

    def extras(self, picture: Tensor, fine: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What the family's decoder makes of the features beside that, once a picture: (images, ...) each."""
        return ()

    def cells_of_masks(self, taken: Tensor, given: Tensor, size: Sizes) -> Tensor:
        """The cells (masks, cells, dim) that masks are made of: those that the transformer gives."""
        return given

    def doublings(self) -> Doublings:
        """The two layers of `upscaled`."""
        return doubling(self.upscale_conv1), doubling(self.upscale_conv2)

    def upscaled(self, seen: Tensor, layers: Doublings, extras: tuple[Tensor, ...]) -> Tensor:
        """Four times as fine: (masks, cells, 4, 4, dim / 8), the quarters of the quarters of each cell."""
        twice = self.activation(norm_last(self.upscale_layer_norm, doubled(layers[0], seen)))
        found: Tensor = self.activation(doubled(layers[1], twice))
        return found

    def masks(self, asked: Tensor, cells: Tensor, extras: tuple[Tensor, ...], size: Sizes) -> Tensor:
        """Logits (masks, 4 h, 4 w) of the tokens that say masks, `asked` (masks, read, dim), on cells of masks."""
        by = self.output_hypernetworks_mlps[0](asked[:, 0])  # (masks, dim / 8)
        layers = self.doublings()  # once for all pieces: their weights are laid out anew
        found = []
        for some, *beside in zip(*map(_in_pieces, (cells, *extras)), strict=True):
            finer = self.upscaled(some, layers, tuple(beside)).flatten(1, 3)
            # Mask by mask: the gradient of one product of them all is much slower than theirs.
            found.append(torch.stack([each @ said for each, said in zip(finer, by, strict=True)]))
        return as_map(torch.cat(found, dim=1)[..., None], size)[:, 0]


class LeanSamMaskDecoder(LeanMaskDecoder, SamMaskDecoder):
    """SAM's."""


def by_cell(finer: Tensor, size: Sizes) -> Tensor:
    """A finer map by cells, in the order of `doubled`: (images, cells, 4 channels) of (images, channels, 2 h, 2 w),
    (images, cells, 16 channels) of one of (4 h, 4 w)."""
    h, w = size
    if finer.shape[-1] == 2 * w:
        parts: Tensor = finer.unflatten(3, (w, 2)).unflatten(2, (h, 2))  # (images, channels, h, 2, w, 2)
        return parts.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    parts = finer.unflatten(3, (w, 2, 2)).unflatten(2, (h, 2, 2))  # (images, channels, h, 2, 2, w, 2, 2)
    return parts.permute(0, 2, 5, 3, 6, 4, 7, 1).flatten(3).flatten(1, 2)


def as_map(parts: Tensor, size: Sizes) -> Tensor:
    """Channels (masks, 16 cells, channels), quarters of quarters of cells in order, as (masks, channels, 4 h, 4 w)."""
    (h, w), channels = size, parts.shape[-1]
    grid = parts.reshape(len(parts), h, w, 2, 2, 2, 2, channels).permute(0, 7, 1, 3, 5, 2, 4, 6)
    return grid.reshape(len(parts), channels, 4 * h, 4 * w)


def _together(seen: Tensor, masks: int) -> int:
    """How many masks are made at a time. On a CPU few: what is between their layers then stays in its cache, and
    small pieces of memory are used again where large ones come fresh from the system each time."""
    return max(1, TOGETHER // seen[0].numel()) if _on_cpu(seen) else masks


def _in_pieces(cells: Tensor) -> tuple[Tensor, ...]:
    """Cells (..., cells, channels) in pieces for the same reason; elsewhere one piece."""
    pieces: tuple[Tensor, ...] = cells.split(PIECE if _on_cpu(cells) else cells.shape[-2], dim=-2)
    return pieces


def _on_cpu(cells: Tensor) -> bool:
    """Is this worked on by a CPU, operation by operation? A compiler looks after its memory itself."""
    return cells.device.type == "cpu" and not torch.compiler.is_compiling()


def doubling(conv: nn.ConvTranspose2d) -> Doubling:
    """A 2 x 2 transposed convolution of stride 2 as a linear layer: weight (4 channels, dim), bias (4 channels,)."""
    return conv.weight.permute(2, 3, 1, 0).flatten(0, 2), None if conv.bias is None else conv.bias.repeat(4)


def doubled(layer: Doubling, seen: Tensor) -> Tensor:
    """What it makes of channels that are last: (..., 4, channels)."""
    found: Tensor = F.linear(seen, *layer).unflatten(-1, (4, -1))
    return found


def norm_last(norm: nn.LayerNorm, values: Tensor) -> Tensor:
    """A family's norm of channels that are first, on channels that are last."""
    return F.layer_norm(values, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def _two_way(layer: Any, queries: Tensor, points: Tensor, seen: Tensor, places: Places) -> tuple[Tensor, Tensor]:
    """One block: tokens among themselves, tokens to cells, an MLP on tokens, cells to tokens."""
    if layer.skip_first_layer_pe:
        queries = _self_attention(layer.self_attn, queries, queries)
    else:
        queries = queries + _self_attention(layer.self_attn, queries + points, queries)
    queries = layer.layer_norm1(queries)
    queries = layer.layer_norm2(
        queries + _token_to_image(layer.cross_attn_token_to_image, queries + points, seen, places)
    )
    queries = layer.layer_norm3(queries + layer.mlp(queries))
    seen = _image_to_token(layer.cross_attn_image_to_token, queries + points, queries, seen, places)
    return queries, layer.layer_norm4(seen)


def _self_attention(attention: Any, queries: Tensor, values: Tensor) -> Tensor:
    """The family's own attention among tokens (masks, queries, dim)."""
    found: Tensor = attention(query=queries[:, None], key=queries[:, None], value=values[:, None])[0]
    return found[:, 0]


def _token_to_image(attention: Any, queries: Tensor, seen: Tensor, places: Places) -> Tensor:
    """What tokens (masks, queries, dim) find in cells."""
    heads = attention.num_attention_heads
    asked = attention.q_proj(queries).unflatten(-1, (heads, -1)) * attention.scaling
    share = (
        _scores(attention, asked, attention.k_proj, seen, places).softmax(-1).flatten(1, 2)
    )  # (masks, heads x queries, cells)
    found = (share.to(seen.dtype) @ seen).unflatten(1, (heads, -1))
    value = attention.v_proj
    found = torch.einsum("mhqd,hcd->mqhc", found, value.weight.unflatten(0, (heads, -1))).flatten(2) + value.bias
    out: Tensor = _out(attention)(found)
    return out


def _image_to_token(attention: Any, keys: Tensor, values: Tensor, seen: Tensor, places: Places) -> Tensor:
    """Cells with what each finds in tokens (masks, queries, dim) added: (masks, cells, dim)."""
    heads = attention.num_attention_heads
    query, out = attention.q_proj, _out(attention)
    asked = attention.k_proj(keys).unflatten(-1, (heads, -1)) * attention.scaling
    share: Tensor = _scores(attention, asked, query, seen, places).softmax(2).flatten(1, 2)
    told: Tensor = attention.v_proj(values).unflatten(-1, (heads, -1))
    told = torch.einsum("mqhc,dhc->mhqd", told, out.weight.unflatten(1, (heads, -1))).flatten(1, 2)
    told = told + out.bias / heads  # the shares of a head add up to 1
    share = share.mT.to(told.dtype)
    if seen.dtype != told.dtype:  # under autocast the sum keeps the precision of the cells
        return seen + share @ told
    found: Tensor = torch.baddbmm(seen.expand(len(told), -1, -1), share, told)
    return found


def _scores(attention: Any, asked: Tensor, projection: nn.Linear, seen: Tensor, places: Places) -> Tensor:
    """Products of tokens (masks, queries, heads, width of a head) with projected cells (masks, heads, queries, cells).

    A bias of keys changes no share; it stays in the graph, since everything that trains must have a gradient.
    """
    heads = asked.shape[2]
    level = torch.einsum("mqhc,hc->mhq", asked, projection.bias.unflatten(0, (heads, -1))).flatten(1)
    tokens = torch.einsum("mqhc,hcd->mhqd", asked, projection.weight.unflatten(0, (heads, -1))).flatten(1, 2)
    # The sum of cells and positions is never made: it would be kept for every mask and attention.
    placed = places.behind(attention, projection.weight).unflatten(0, (heads, -1))
    scores = torch.einsum("mqhc,hcn->mhqn", asked, placed).flatten(1, 2).add_(level[..., None])
    seen = seen.expand(len(tokens), -1, -1)
    if torch.is_grad_enabled():  # turned round, so that cells get gradients laid out as they are
        scores = scores + (seen @ tokens.mT).mT
    elif scores.dtype == tokens.dtype == seen.dtype:
        scores = scores.baddbmm_(tokens, seen.mT)
    else:  # under autocast, which casts for what is not in place alone
        scores = torch.baddbmm(scores, tokens, seen.mT)
    found: Tensor = scores.unflatten(1, (heads, -1))
    return found


def _out(attention: Any) -> nn.Linear:
    """The last layer of an attention, which the families name differently."""
    found: nn.Linear = attention.out_proj if hasattr(attention, "out_proj") else attention.o_proj
    return found
