"""All questions about an image in one sequence: who sees whom, and which position each token has.

A packed row is: prefix (system text, exemplar, image; segment 0), then each conversation (segments 1, 2, ...), then
padding (segment -1). A conversation sees the prefix and itself, causally; its positions go on from the prefix's end,
as if the others were not there.

Legend: images = rows of the batch, tokens = length of the longest row.
"""

import torch
from torch import Tensor

from cores.vocabulary import PADDING, PREFIX


def pack(segment_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The attention mask and the positions that make a packed row equal to its conversations run one by one.

    The mask is additive (0 or the lowest number of `dtype`): a boolean one is read differently by eager and sdpa
    attention, without an error.

    Args: `segment_ids` (images, tokens), int: 0 the prefix, 1.. the conversations in order, -1 padding.
    Returns: mask (images, 1, tokens, tokens) of `dtype`, positions (images, tokens), int64; padding has position 0.
    Raises ValueError when a row is not prefix, conversations in order, padding.
    """
    order = torch.where(segment_ids == PADDING, torch.iinfo(segment_ids.dtype).max, segment_ids)
    if (order[:, 1:] < order[:, :-1]).any() or (segment_ids < PADDING).any():
        raise ValueError(
            "segment ids must rise along a row: 0 for the prefix, 1, 2, ... and -1 for padding at the end"
        )
    tokens = segment_ids.shape[1]
    index = torch.arange(tokens, device=segment_ids.device)

    same = segment_ids[:, :, None] == segment_ids[:, None, :]  # (images, tokens, tokens)
    prefix = (segment_ids == PREFIX)[:, None, :]  # (images, 1, tokens)
    causal = index[:, None] >= index[None, :]  # (tokens, tokens)
    real = (segment_ids != PADDING)[:, None, :]
    # A padding token sees itself: a row of nothing but -inf would be nan under softmax.
    seen = (causal & (same | prefix) & real) | torch.eye(tokens, dtype=torch.bool, device=segment_ids.device)
    mask = torch.zeros(seen.shape, dtype=dtype, device=segment_ids.device)
    mask = mask.masked_fill(~seen, torch.finfo(dtype).min)[:, None]  # (images, 1, tokens, tokens)

    before = (segment_ids[:, None, :] < segment_ids[:, :, None]) & (segment_ids[:, None, :] != PREFIX) & real
    positions = index[None] - before.sum(dim=-1)  # (images, tokens): other conversations' tokens do not count
    return mask, positions.masked_fill(segment_ids == PADDING, 0)
