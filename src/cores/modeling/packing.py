"""All questions about an image in one sequence: who sees whom, and which position each token has.

A packed row is: prefix (system text, exemplar, image; segment 0), then each conversation (segments 1, 2, ...), then
padding (segment -1). A conversation sees the prefix and itself, causally; its positions go on from the prefix's end,
as if the others were not there.

Legend: rows = images of the batch, or questions behind one prefix; queries, keys = tokens that look, and those that
can be looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cores.vocabulary import PADDING, PREFIX, UNSUPERVISED


@dataclass(frozen=True, eq=False)
class Sight:
    """Who sees whom, before it takes the form that an attention wants.

    `queries` (rows, queries), `keys` (rows, keys), int64: where a token stands in its own conversation, as if no other
    were there; 0 for padding. `image` (rows, keys), bool: keys that are the picture's, where the queries are the same
    tokens as the keys; None where no query is of a picture. `segments` (rows, tokens): of packed rows, see `pack`;
    `reads` (read,): places of the tokens whose last states are read, counted along all rows in turn; None: all;
    `known` (rows, queries, keys): who sees whom elsewhere.
    """

    queries: Tensor
    keys: Tensor
    image: Tensor | None = None
    segments: Tensor | None = None
    reads: Tensor | None = None
    known: Tensor | None = None

    @cached_property
    def seen(self) -> Tensor:
        """(rows, queries, keys), bool; of packed rows made when it is asked for, since it grows with their square."""
        if self.known is not None:
            return self.known
        assert self.segments is not None
        index = torch.arange(self.segments.shape[1], device=self.segments.device)
        asking, asked = self.segments[:, :, None], self.segments[:, None, :]
        return sees(asking, asked, index[:, None], index)

    def near(self, window: int) -> Tensor:
        """What is seen and less than `window` tokens before, within its own conversation: (rows, queries, keys)."""
        return self.seen & (self.queries[:, :, None] - self.keys[:, None, :] < window)

    def picture(self) -> Tensor:
        """Pairs of tokens of one picture: (rows, queries, keys), bool. A row holds one picture."""
        if self.image is None:
            return torch.zeros_like(self.seen)
        return self.image[:, :, None] & self.image[:, None, :]


def pack(segment_ids: Tensor, image: Tensor | None = None, reads: Tensor | None = None) -> Sight:
    """What makes a packed row equal to its conversations run one by one.

    Args: `segment_ids` (images, tokens), int: 0 the prefix, 1.. the conversations in order, -1 padding; `image`
    (images, tokens), bool: the picture's tokens; `reads`: see `Sight`.
    Raises ValueError when a row is not prefix, conversations in order, padding.
    """
    order = segment_ids.masked_fill(segment_ids == PADDING, torch.iinfo(segment_ids.dtype).max)
    require(
        (order[:, 1:] >= order[:, :-1]).all() & (segment_ids >= PADDING).all(),
        "segment ids must rise along a row: 0 for the prefix, 1, 2, ... and -1 for padding at the end",
    )
    index = torch.arange(segment_ids.shape[1], device=segment_ids.device)
    begins = F.pad(segment_ids[:, 1:] != segment_ids[:, :-1], (1, 0), value=True)
    start = (index * begins).cummax(dim=1).values  # (images, tokens): where a token's segment begins
    prefix = segment_ids == PREFIX
    positions = index - start + prefix.sum(dim=1, keepdim=True) * ~prefix  # other conversations do not count
    positions = positions.masked_fill(segment_ids == PADDING, 0)
    return Sight(positions, positions, image, segments=segment_ids, reads=reads)


def sees(asking: Tensor, asked: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """Does a token of a packed row see another? Args, of shapes that go together: segments of both, places of both.

    Nothing sees padding but padding, which has to see something: a row of nothing but -inf would be nan under softmax.
    """
    return ((asking == asked) | (asked == PREFIX)) & (query >= key)


def supervised_places(labels: Tensor) -> Tensor:
    """Where the states stand that predict supervised tokens: (supervised,), int64, counted along all rows in turn.

    Args: `labels` (images, tokens); a state predicts the label behind it in its row.
    """
    asked = F.pad(labels[:, 1:] != UNSUPERVISED, (0, 1))
    return asked.flatten().nonzero()[:, 0]


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """What rows have read so far, as a cache holds it side by side.

    `seen` (rows, keys), bool: False for padding, and for drafts that were not said; `keys` (rows, keys), int64: where
    each stands in its own conversation; `next`: where each row's next token will stand.
    """

    seen: Tensor
    keys: Tensor
    next: list[int]

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> "Past":
        """Rows that begin with so many tokens each, padded on the right."""
        index = torch.arange(max(lengths), device=device).expand(len(lengths), -1)
        seen = index < torch.tensor(lengths, device=device)[:, None]
        return cls(seen, index * seen, list(lengths))

    def behind(self, before: Sequence[Sequence[int]]) -> Sight:
        """The next tokens of every row, padded on the right: each sees what was read, what it follows, and itself.

        `before`: of each token, the number among them of the one that it follows, smaller than its own; -1 for those
        that follow what was read. So several drafts may go on from one token, and do not see each other.
        """
        rows, longest = len(before), max(map(len, before))
        own = np.zeros((rows, longest, longest), dtype=bool)
        own[:, range(longest), range(longest)] = True
        order = np.zeros((rows, longest), dtype=np.int64)
        for row, followed in enumerate(before):
            for number, parent in enumerate(followed):
                order[row, number] = self.next[row] if parent < 0 else order[row, parent] + 1
                if parent >= 0:
                    own[row, number] |= own[row, parent]
        device = self.seen.device
        places, sees = torch.from_numpy(order).to(device), torch.from_numpy(own).to(device)
        seen = self.seen[:, None].expand(-1, longest, -1)
        known = torch.cat([seen, sees], dim=2)
        return Sight(places, torch.cat([self.keys, places], dim=1), known=known)

    def grown(self, sight: Sight, said: Sequence[Sequence[int]]) -> "Past":
        """With the tokens of `behind`, of which a row's later ones see those that are `said` alone, by number."""
        kept = torch.zeros(sight.queries.shape, dtype=torch.bool)
        for row, numbers in enumerate(said):
            kept[row, list(numbers)] = True
        after = [place + len(numbers) for place, numbers in zip(self.next, said, strict=True)]
        return Past(torch.cat([self.seen, kept.to(self.seen.device)], dim=1), sight.keys, after)

    def __getitem__(self, rows: Sequence[int]) -> "Past":
        """Of these rows alone."""
        return Past(self.seen[rows], self.keys[rows], [self.next[row] for row in rows])


def require(holds: Tensor, message: str) -> None:
    """Raise ValueError unless `holds`, a bool scalar. On CUDA nobody waits for it: the device itself stops later."""
    if holds.device.type in ("cuda", "meta"):
        torch._assert_async(holds, message)
    elif not holds:
        raise ValueError(message)


def additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """The 4D mask (rows, 1, queries, keys) of what is seen (rows, queries, keys): 0, or the lowest number of `dtype`.

    Not a boolean one: eager and sdpa attention read that differently, without an error.
    """
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill(~seen, torch.finfo(dtype).min)[:, None]
