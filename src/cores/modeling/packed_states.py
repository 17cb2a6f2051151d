"""A batch of packed rows read by a language model: as it is, or unpacked for families that need a row a conversation.

Legend: images = rows of the batch, tokens = length of the longest row, rows = conversations, width = of a state.
"""

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cores.modeling.mllms.base import MultimodalLLM, Pixels
from cores.modeling.packing import pack
from cores.vocabulary import PREFIX


def packed_states(
    mllm: MultimodalLLM, input_ids: Tensor, segment_ids: Tensor, pixels: Pixels, reads: Tensor | None = None
) -> Tensor:
    """The states (images, tokens, width) of packed rows: those of each conversation run alone behind its picture.

    Args: `input_ids`, `segment_ids` (images, tokens), see `packing`; `pixels`: of the rows' pictures; `reads`: places
    of the states that are read, of which others need not be right, see `Sight`.
    """
    seen = mllm.encode_images(pixels)
    if not mllm.packs:
        return _unpacked(mllm, input_ids, segment_ids, pixels, seen)
    sight = pack(segment_ids, mllm.is_image(input_ids), reads)
    positions, shift = mllm.place(input_ids, sight.queries, segment_ids == PREFIX, pixels)
    return mllm.hidden_states(input_ids, seen, mllm.masks(sight), positions)


def _unpacked(mllm: MultimodalLLM, input_ids: Tensor, segment_ids: Tensor, pixels: Pixels, seen: object) -> Tensor:
    """One row a conversation, padded on the right, each with its prefix; the states back where the tokens were."""
    owners, places = [], []  # of each row: whose picture it is, and where its tokens were
    for image, segments in enumerate(segment_ids):
        prefix = (segments == PREFIX).nonzero()[:, 0]
        for number in range(1, max(1, int(segments.max())) + 1):  # a picture without a question is read once, too
            owners.append(image)
            places.append(torch.cat([prefix, (segments == number).nonzero()[:, 0]]))
    index = torch.tensor(owners, device=input_ids.device)
    rows = [input_ids[image, place] for image, place in zip(owners, places, strict=True)]
    ids = pad_sequence(rows, batch_first=True)  # (rows, longest)
    real = pad_sequence([torch.ones_like(row, dtype=torch.bool) for row in rows], batch_first=True)
    order = (real.cumsum(1) - 1) * real
    prefix = order < (segment_ids[index] == PREFIX).sum(1, keepdim=True)
    repeated = {name: value[index] for name, value in pixels.items() if len(value) == len(segment_ids)}
    positions, _ = mllm.place(ids, order, prefix & real, repeated)
    counts = mllm.is_image(input_ids).sum(1).tolist()
    found = mllm.hidden_states(ids, mllm.repeat(seen, counts, owners), real.long(), positions)
    states = found.new_zeros((*input_ids.shape, found.shape[-1]))
    for row, (image, place) in enumerate(zip(owners, places, strict=True)):
        states[image, place] = found[row, : len(place)]
    return states
