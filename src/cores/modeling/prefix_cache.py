"""What stands before a question, read once: its keys and values, and rows that go on from them side by side.

Legend: rows = questions of one pass, each behind its own prefix (the same one for those about one picture), tokens =
of one pass, width = the language model's.
"""

from collections.abc import Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import Cache

from cores.modeling.drafting import Block
from cores.modeling.mllms.base import MultimodalLLM, Pixels
from cores.modeling.model import CoresModel
from cores.modeling.packing import Past, pack
from cores.vocabulary import PADDING, PREFIX


@dataclass(frozen=True, slots=True, eq=False)
class PrefixCache:
    """Keys and values of everything that stands before a question about one picture.

    `length`: its tokens; `shift` (1,): how much further on than that the text behind it begins (M-RoPE's pictures
    take fewer positions than tokens); `patches` (places, width): the last states of the picture's places.
    """

    cache: Cache
    length: int
    shift: Tensor
    patches: Tensor


def read_prefix(model: CoresModel, pixels: Pixels, prefix_ids: Tensor) -> PrefixCache:
    """Read the prefix of one picture. Args: `pixels`: of this picture; `prefix_ids` (prefix,)."""
    return read_prefixes(model, pixels, [prefix_ids])[0]


@torch.no_grad()
def read_prefixes(model: CoresModel, pixels: Pixels, prefix_ids: Sequence[Tensor]) -> list[PrefixCache]:
    """Read the prefixes of several pictures in one pass, for families that pack (of the others, one at a time).

    Args: `pixels`: of the pictures, joined; `prefix_ids` (prefix,) each. Returns: one a picture, in order.
    """
    mllm = model.mllm
    ids = pad_sequence(list(prefix_ids), batch_first=True)  # on the right, which ends no row's own tokens
    parts = [torch.full_like(one, PREFIX) for one in prefix_ids]
    segments = pad_sequence(parts, batch_first=True, padding_value=PADDING)
    of_picture = mllm.is_image(ids) & (segments == PREFIX)
    cache, sight = mllm.new_cache(), pack(segments, of_picture)
    positions, shift = mllm.place(ids, sight.queries, segments == PREFIX, pixels)
    states = mllm.hidden_states(ids, mllm.encode_images(pixels), mllm.masks(sight), positions, cache)
    patches = [own[places] for own, places in zip(states, of_picture, strict=True)]
    if len(prefix_ids) == 1:
        return [PrefixCache(cache, len(ids[0]), shift, patches[0])]
    found = []
    for row, one in enumerate(prefix_ids):
        own = [[part[row : row + 1, :, : len(one)].clone() for part in layer] for layer in _states(cache)]
        found.append(PrefixCache(_filled(cache, own), len(one), shift[row : row + 1], patches[row]))
    return found


@torch.no_grad()
def extend_prefix(model: CoresModel, prefix: PrefixCache, ids: Tensor) -> PrefixCache:
    """The prefix with these ids (tokens,) behind it, such as an earlier turn; it stays as it is itself."""
    rows = Rows(model.mllm, [prefix])
    rows.read([Block(ids.tolist())])
    return replace(prefix, cache=rows.cache, length=prefix.length + len(ids))


class Rows:
    """Questions that go on from their prefixes, side by side: padding is masked and positions are said explicitly,
    for positions that a model counts itself would count padding.

    Args: `prefixes`: one a row. A family that does not pack takes one row.
    """

    def __init__(self, mllm: MultimodalLLM, prefixes: Sequence[PrefixCache]) -> None:
        if len(prefixes) > 1 and not mllm.packs:
            raise ValueError("this family's layers carry a state along the row: give one row")
        self.mllm = mllm
        self.shift = torch.cat([prefix.shift for prefix in prefixes])
        self.past = Past.of([prefix.length for prefix in prefixes], self.shift.device)
        self.cache = (
            _side_by_side([prefix.cache for prefix in prefixes]) if mllm.packs else deepcopy(prefixes[0].cache)
        )

    def read(self, blocks: Sequence[Block]) -> Tensor:
        """The states (rows, tokens, width) of every row's next tokens, padded on the right.

        Say with `keep` which of them were said before the next ones are read.
        """
        self.sight = self.past.behind([block.before for block in blocks])
        ids = pad_sequence([torch.tensor(block.ids) for block in blocks], batch_first=True).to(self.shift.device)
        positions = self.mllm.follow(self.sight.queries, self.shift)
        return self.mllm.hidden_states(ids, None, self.mllm.masks(self.sight), positions, self.cache)

    def keep(self, said: Sequence[Sequence[int]], rows: Sequence[int]) -> None:
        """Go on with these `rows` alone, each behind those of its tokens, by number, that were `said`."""
        self.past = self.past.grown(self.sight, said)
        if len(rows) < len(said):
            self.keep_rows(rows)

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone."""
        index = torch.tensor(rows, device=self.shift.device)
        self.past, self.shift = self.past[rows], self.shift[index]
        self.cache.batch_select_indices(index)


def _side_by_side(caches: Sequence[Cache]) -> Cache:
    """Rows' caches as one, padded on the right. What is the same in all rows is not copied."""
    layers = zip(*map(_states, caches), strict=True)
    return _filled(caches[0], [[_stacked(states) for states in zip(*layer, strict=True)] for layer in layers])


def _stacked(states: Sequence[Tensor]) -> Tensor:
    """Keys or values (1, heads, tokens, dim) of several rows, padded on the right: (rows, heads, longest, dim)."""
    if all(one is states[0] for one in states):
        return states[0].expand(len(states), -1, -1, -1)
    longest = max(one.shape[2] for one in states)
    return torch.cat([F.pad(one, (0, 0, 0, longest - one.shape[2])) for one in states])


def _states(cache: Cache) -> list[list[Tensor]]:
    """Keys and values of every layer that has any: layers that share another's have none of their own."""
    return [[layer.keys, layer.values] for layer in cache.layers if layer.keys is not None]


def _filled(like: Cache, states: Sequence[Sequence[Tensor]]) -> Cache:
    """A cache of the same layers with these keys and values. Layers put new tensors in the place of what they grow."""
    found, given = copy(like), iter(states)
    found.layers = [copy(layer) for layer in like.layers]
    for layer in found.layers:
        if layer.keys is not None:
            layer.keys, layer.values = next(given)
    return found
