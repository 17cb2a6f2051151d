"""One picture's conversations as one row of ids, and rows as a batch.

Legend: images = rows, tokens = length of the longest row, levels = of the chain, masks = all targets on one axis,
h, w = a picture's own size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict

import torch
from torch import Tensor

from cores.data.sample import Sample, Target
from cores.errors import DataError
from cores.geometry import Size
from cores.processing.pixels import Picture
from cores.processing.tokens import Tokens
from cores.processing.truth import nothing, truth_of
from cores.vocabulary import PADDING, UNSUPERVISED


class Batch(TypedDict):
    """What `CoresModel.forward` takes, by its parameters' names: a plain dict, so that any Trainer can move it.

    `input_ids`, `segment_ids`, `labels` (images, tokens), int64; `pixel_values` for the language model: (images, 3, s,
    s) of squares, else as its family has them, with what goes with them (grids, sizes) in `pixel_extras`;
    `segmenter_pixels` (images, 3, S, S), without pictures whose features are known; `token_positions` (levels, masks):
    the positions that predict each grounding token; `image_index` (masks,): the row of each mask; `truth`,
    `location_truth`: one (h, w) bool a mask, or None where no location is known; `ignore`: one (h, w) bool or None an
    image; where losses are taken at the low resolution, these are of cells: the share that is inside, (h', w'), fp32,
    and which of them are ignored; `sizes`, `resized`: (h, w) of each picture, and of it inside the segmenter's square.
    So that no loss asks the device, and waits:
    `supervised` (supervised,), int64: where the states stand that predict supervised tokens, counted along all rows in
    turn; `rows`: `image_index` as plain numbers; `counts`: of each of `loss_keys.COUNTED`, how many are here.
    `dropped`: conversations left out or cut, for the log alone.
    """

    input_ids: Tensor
    segment_ids: Tensor
    labels: Tensor
    pixel_values: Tensor
    pixel_extras: dict[str, Tensor]
    segmenter_pixels: Tensor
    token_positions: Tensor
    image_index: Tensor
    truth: list[Tensor]
    location_truth: list[Tensor | None]
    ignore: list[Tensor | None]
    sizes: list[Size]
    resized: list[Size]
    supervised: Tensor
    rows: list[int]
    counts: dict[str, int]
    dropped: NotRequired[int]


@dataclass(frozen=True, slots=True)
class Asked:
    """One conversation: its tokens, and for each of its chains the target, or None for an empty mask."""

    tokens: Tokens
    targets: tuple[Target | None, ...]


@dataclass(slots=True)
class Row:
    """One picture's tokens; `places`: a list a level, of the positions that predict its tokens."""

    ids: list[int]
    segments: list[int]
    labels: list[int]
    places: list[list[int]]
    targets: list[Target | None] = field(default_factory=list)

    @classmethod
    def of(cls, prefix: Sequence[int], asked: Sequence[Asked], token_ids: Sequence[int]) -> "Row":
        """The prefix, then each conversation. Raises DataError when an answer lacks a token of a chain."""
        row = cls(list(prefix), [0] * len(prefix), [UNSUPERVISED] * len(prefix), [[] for _ in token_ids])
        for number, one in enumerate(asked, 1):
            first = len(row.ids)
            for level, places in zip(row.places, places_of(one, token_ids), strict=True):
                level += [first + place - 1 for place in places]  # the state before a token predicts it
            row.ids += one.tokens.ids
            row.labels += one.tokens.labels
            row.segments += [number] * len(one.tokens.ids)
            row.targets += one.targets
        return row


def places_of(asked: Asked, token_ids: Sequence[int]) -> list[list[int]]:
    """Where each level's token of each chain stands in a conversation's answers: levels x chains.

    Raises DataError when there are not as many chains as targets, each with every level in order.
    """
    chains: list[list[int]] = []
    latest: dict[int, int] = {}
    for place, label in enumerate(asked.tokens.labels):
        if label in token_ids:
            latest[label] = place
        if label == token_ids[-1]:
            chains.append([latest.get(token, -1) for token in token_ids])
            latest = {}
    if len(chains) != len(asked.targets) or any(chain != sorted(chain) or chain[0] < 0 for chain in chains):
        raise DataError(
            f"an answer holds {len(chains)} chains for {len(asked.targets)} targets, or a chain without all of its "
            "levels in order: write {loc} and {seg} for each target, or leave the answer's tokens out"
        )
    return [[chain[level] for chain in chains] for level in range(len(token_ids))]


def fit(asked: Asked, room: int, token_ids: Sequence[int]) -> Asked | None:
    """The conversation in at most `room` tokens, None when it cannot be had.

    One with targets may lose what comes after its last chain, never a grounding token; one without is cut at the
    last whole turn (reference: the published programs cut anywhere, and stop at a lost [SEG]).
    """
    ids, labels, ends = asked.tokens.ids, asked.tokens.labels, asked.tokens.ends
    if len(ids) <= room:
        return asked
    if asked.targets:
        last = max(level[-1] for level in places_of(asked, token_ids)) + 1
        kept = room if last <= room else 0
    else:
        kept = max((end for end in ends if end <= room), default=0)
    if not kept:
        return None
    return Asked(Tokens(ids[:kept], labels[:kept], [end for end in ends if end <= kept]), asked.targets)


def make_batch(
    rows: Sequence[Row],
    pictures: Sequence[Picture],
    samples: Sequence[Sample],
    pixels: Mapping[str, Tensor],
    pad: int,
    cells: Sequence[Size | None],
) -> Batch:
    """Rows as padded tensors, and the masks of all rows on one axis.

    Args: `pixels`: of all pictures, as their rule says; `cells` (h', w') of each picture's masks, None for its pixels.
    """
    longest = max(len(row.ids) for row in rows)
    levels = len(rows[0].places)

    def padded(parts: Sequence[list[int]], filler: int) -> Tensor:
        return torch.tensor([[*part, *[filler] * (longest - len(part))] for part in parts])

    supervised = [
        number * longest + place - 1
        for number, row in enumerate(rows)
        for place, label in enumerate(row.labels)
        if place and label != UNSUPERVISED
    ]
    of_mask = [number for number, row in enumerate(rows) for _ in row.targets]
    places = [[place for row in rows for place in row.places[level]] for level in range(levels)]
    truth, locations = [], []
    for row, picture, size in zip(rows, pictures, cells, strict=True):
        for target in row.targets:
            truth.append(nothing(picture.size, size) if target is None else truth_of(target.mask, size))
            location = None if target is None else target.location
            locations.append(None if location is None else truth_of(location, size))
    ignored = [
        None if sample.ignore is None else truth_of(sample.ignore, size) > 0.5
        for sample, size in zip(samples, cells, strict=True)
    ]
    return {
        "input_ids": padded([row.ids for row in rows], pad),
        "segment_ids": padded([row.segments for row in rows], PADDING),
        "labels": padded([row.labels for row in rows], UNSUPERVISED),
        "pixel_values": pixels["pixel_values"],
        "pixel_extras": {name: value for name, value in pixels.items() if name != "pixel_values"},
        "segmenter_pixels": _seen([picture.segmenter_pixels for picture in pictures]),
        "token_positions": torch.tensor(places, dtype=torch.long),  # (levels, masks)
        "image_index": torch.tensor(of_mask, dtype=torch.long),
        "truth": truth,
        "location_truth": locations,
        "ignore": ignored,
        "sizes": [picture.size for picture in pictures],
        "resized": [picture.resized for picture in pictures],
        "supervised": torch.tensor(supervised, dtype=torch.long),
        "rows": of_mask,
        "counts": {
            "tokens": len(supervised),
            "masks": len(truth),
            "locations": len(truth) - locations.count(None),
            "drawn": 0,
            "answers": 0,
        },
    }


def _seen(squares: Sequence[Tensor]) -> Tensor:
    """Those (3, S, S) that the segmenter is to see, together; of the others there is nothing, (0, S, S)."""
    side = squares[0].shape[-1]
    return torch.cat([square.view(-1, 3, side, side) for square in squares])
