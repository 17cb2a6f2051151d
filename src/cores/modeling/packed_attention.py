"""Attention over packed rows that never makes a mask of tokens x tokens.

Every token of a row sees the prefix, and those of its own conversation before it. So the prefix attends to itself,
and each conversation to the prefix and itself, all conversations together as a batch. Where FlexAttention runs, its
blocks say the same.

Legend: rows, tokens = as in `packing`; conversations = of all rows, on one axis; prefix, own = tokens of the longest
prefix, and of the longest conversation; places = of tokens, counted along all rows in turn.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from cores.modeling.packing import sees
from cores.vocabulary import PADDING, PREFIX

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

SAVES = 1.5  # so many times fewer pairs of tokens, or the mask is made
WORTH_A_WAIT = 2**27  # pairs of tokens from which a GPU is waited for, to know where the conversations are
BLOCK = 128  # tokens, FlexAttention's own


@dataclass(frozen=True, slots=True, eq=False)
class Conversations:
    """Where the conversations of packed rows are.

    `prefix`: tokens of the longest one; `asks` (conversations, own): places of the tokens that look, any for those
    that a shorter conversation lacks; `seen` (conversations, prefix + own): places of what they look at; `mask`, bool:
    what of it each of them sees, (own, prefix + own), or (conversations, 1, own, prefix + own) of unequal prefixes;
    `back` (rows x tokens): where a token's result is among those of (rows, prefix) and (conversations, own) in turn;
    `prefix_asks`: do prefixes look, too? If not, theirs are left out.
    """

    prefix: int
    asks: Tensor
    seen: Tensor
    mask: Tensor
    back: Tensor
    prefix_asks: bool = field(default=True, kw_only=True)

    def narrowed(self, reads: Tensor, rows: int) -> "Conversations":
        """The same where the tokens at the places `reads` (read,), which rise, look alone; others find anything."""
        firsts, (conversations, own), place = rows * self.prefix, self.asks.shape, self.back[reads]
        asking, told = reads[place >= firsts], place[place >= firsts] - firsts
        number, step = told // own, told % own  # the conversation of each that asks, and which of its tokens it is
        counts = number.bincount(minlength=conversations)
        most = max(1, int(counts.max()))  # tokens of a conversation that ask
        order = torch.arange(len(asking), device=reads.device) - (counts.cumsum(0) - counts)[number]
        steps = reads.new_zeros((conversations, most))
        steps[number, order] = step
        each = torch.arange(conversations, device=reads.device)[:, None]
        mask = self.mask[steps] if self.mask.dim() == 2 else self.mask[each, 0, steps]
        prefix_asks = len(asking) < len(reads)
        back = torch.zeros_like(self.back)
        back[reads] = place  # right for those of prefixes
        back[asking] = number * most + order + firsts * prefix_asks
        asks = self.asks.gather(1, steps)
        return Conversations(self.prefix, asks, self.seen, mask[:, None], back, prefix_asks=prefix_asks)


def find_conversations(segments: Tensor) -> Conversations | None:
    """The conversations of packed rows; None where attention by them saves too little, or is not worth a wait.

    Args: `segments` (rows, tokens), see `packing.pack`.
    """
    (rows, tokens), device = segments.shape, segments.device
    dense = rows * tokens**2
    if device.type != "cpu" and (device.type != "cuda" or dense < WORTH_A_WAIT):
        return None
    segments = segments.cpu()
    begins = F.pad(segments[:, 1:] != segments[:, :-1], (1, 0), value=True) & (segments > PREFIX)
    row, start = begins.nonzero().T  # (conversations,)
    prefixes = (segments == PREFIX).sum(dim=1)  # (rows,)
    number = begins.flatten().cumsum(0)[segments.flatten() > PREFIX] - 1  # of each token's conversation
    lengths = number.bincount(minlength=len(row))
    prefix, own = int(prefixes.max()), int(lengths.max()) if len(row) else 0
    if not prefix or not own or SAVES * (rows * prefix**2 + len(row) * own * (prefix + own)) > dense:
        return None

    step, before = torch.arange(own), torch.arange(prefix)
    asks = row[:, None] * tokens + (start[:, None] + step).clamp(max=tokens - 1)
    seen = torch.cat([row[:, None] * tokens + before, asks], dim=1)
    causal = torch.ones((own, own), dtype=torch.bool).tril()  # hides what a shorter conversation lacks, too
    known = before < prefixes[row, None]  # (conversations, prefix)
    if bool(known.all()):
        mask = torch.cat([causal.new_ones((own, prefix)), causal], dim=1)
    else:
        parts = [known[:, None].expand(-1, own, -1), causal.expand(len(row), -1, -1)]
        mask = torch.cat(parts, dim=2)[:, None]

    back = torch.zeros(rows * tokens, dtype=torch.long)
    inside, real = before < prefixes[:, None], step < lengths[:, None]
    firsts = torch.arange(rows)[:, None]
    back[(firsts * tokens + before)[inside]] = (firsts * prefix + before)[inside]
    back[asks[real]] = (rows * prefix + torch.arange(asks.numel()).view_as(asks))[real]
    return Conversations(prefix, *(one.to(device) for one in (asks, seen, mask, back)))


class PackedMask(Tensor):
    """Stands for the mask (rows, 1, tokens, tokens) of packed rows and holds none of its numbers.

    `scaled_dot_product_attention` attends by conversations, given it. For anybody else it says that nothing is seen.
    `last`: what the last layer takes in its place, if some states alone are read; it knows their places, `reads`
    (read,), which rise.
    """

    conversations: Conversations
    reads: Tensor
    last: Self | None

    @classmethod
    def of(cls, conversations: Conversations, segments: Tensor, reads: Tensor | None = None) -> Self:
        """Args: `segments` (rows, tokens); `reads`: places of the tokens whose states are read, in any order."""
        rows, tokens = segments.shape
        nothing = torch.zeros((), dtype=torch.bool, device=segments.device)
        found = nothing.expand(rows, 1, tokens, tokens).as_subclass(cls)
        found.conversations, found.last = conversations, None
        if reads is not None:
            reads = reads.unique()
            found.last = cls.of(conversations.narrowed(reads, rows), segments)
            found.last.reads = reads
        return found

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return _masked(*args, **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]


def _masked(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: PackedMask, *, is_causal: bool, **how: Any
) -> Tensor:
    """`scaled_dot_product_attention` with its own arguments."""
    return attend(query, key, value, attn_mask.conversations, how)


def attend(query: Tensor, key: Tensor, value: Tensor, at: Conversations, how: dict[str, Any]) -> Tensor:
    """Attention (rows, heads, tokens, width) of packed rows; what padding finds means nothing.

    Args: `query`, `key`, `value` (rows, heads, tokens, width); `how`: what else `scaled_dot_product_attention` takes.
    """
    attention, prefix = F.scaled_dot_product_attention, at.prefix
    found: list[Tensor] = []
    if at.prefix_asks:
        first = attention(query[:, :, :prefix], key[:, :, :prefix], value[:, :, :prefix], is_causal=True, **how)
        found.append(_by_place(first))
    asked = _gathered(query, at.asks)
    keys, values = _gathered(key, at.seen), _gathered(value, at.seen)
    with _gathered_again({keys: key, values: value}, at.seen):
        told = attention(asked, keys, values, attn_mask=at.mask, **how)
    found.append(_by_place(told))
    placed: Tensor = torch.cat(found).index_select(0, at.back).unflatten(0, (len(query), -1))
    return placed.transpose(1, 2)


def _gathered_again(gathered: dict[Tensor, Tensor], places: Tensor) -> saved_tensors_hooks:
    """Inside, what would be kept for gradients of one gathered tensor is gathered again: it holds the prefix once for
    every conversation.

    Args: `gathered`: by the tensor what it was gathered from.
    """
    sources = {one.data_ptr(): source.detach() for one, source in gathered.items()}

    def keep(saved: Tensor) -> Tensor | Kept:
        source = sources.get(saved.data_ptr())
        return saved if source is None else Kept(source)

    def give(kept: Tensor | Kept) -> Tensor:
        return _gathered(kept.source, places) if isinstance(kept, Kept) else kept

    return saved_tensors_hooks(keep, give)


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """Kept for gradients in the place of what is gathered from it."""

    source: Tensor


def _gathered(values: Tensor, places: Tensor) -> Tensor:
    """Of (rows, heads, tokens, width) the tokens at (conversations, n) places: (conversations, heads, n, width)."""
    # by `index_select`: with its gradient it takes an eighth of the time of `[places]` on a CPU
    found: Tensor = _by_place(values).index_select(0, places.flatten()).unflatten(0, places.shape)
    return found.transpose(1, 2)


def _by_place(values: Tensor) -> Tensor:
    """(rows, heads, tokens, width) as (rows x tokens, heads, width)."""
    return values.transpose(1, 2).flatten(0, 1)


def block_mask(segments: Tensor) -> "BlockMask":
    """FlexAttention's blocks of packed rows, found by the lowest and highest segment of each block of tokens.

    Args: `segments` (rows, tokens), see `packing.pack`.
    """
    from torch.nn.attention.flex_attention import BlockMask  # compiles things: where it is asked for

    beyond = torch.iinfo(segments.dtype).max
    order = segments.masked_fill(segments == PADDING, beyond - 1)  # as if it were a last conversation
    tail = order.new_full((len(order), -order.shape[1] % BLOCK), beyond)
    blocks = torch.cat([order, tail], dim=1).unflatten(1, (-1, BLOCK))
    low, high = blocks.amin(dim=2), blocks.amax(dim=2)  # (rows, blocks)
    asking_low, asking_high, low, high = low[:, :, None], high[:, :, None], low[:, None], high[:, None]
    number = torch.arange(blocks.shape[1], device=segments.device)
    before = number[:, None] > number
    some = before & ((low == PREFIX) | (high >= asking_low))
    one_segment = (low == high) & (asking_low == asking_high) & (low == asking_low)
    full = before & ((high == PREFIX) | one_segment) & (asking_high != beyond)
    part = (some | (number[:, None] == number)) & ~full

    def seen(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return sees(segments[row, query], segments[row, key], query, key)

    tokens = segments.shape[1]
    lists = (*_listed(part), *_listed(full))
    return BlockMask.from_kv_blocks(*lists, BLOCK_SIZE=BLOCK, mask_mod=seen, seq_lengths=(tokens, tokens))


def _listed(kind: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of keys there are for each of queries, and their numbers first, with an axis for heads: from
    (rows, blocks, blocks)."""
    found = kind[:, None].int()
    return found.sum(dim=3, dtype=torch.int32), found.argsort(dim=3, descending=True, stable=True).int()
