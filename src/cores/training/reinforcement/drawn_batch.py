"""Drawn answers in a packed batch: a conversation each, behind their picture's prefix, which is read once for all.

Legend: images = rows, tokens = length of the longest row, drawn = tokens of all drawn answers, on one flat axis.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cores.training.reinforcement.rollout import Rolled
from cores.vocabulary import PADDING, UNSUPERVISED


def with_thoughts(batch: dict[str, Any], rolled: Sequence[Rolled], pad: int) -> dict[str, Any]:
    """A batch of the processor whose given answers stand behind a thought that was drawn to their question.

    What is supervised are the answers' words as before, not the thoughts'. `pad`: id of padding. Conversations whose
    question was not asked stay as they are.
    """
    thoughts = {(one.row, tuple(one.question)): one.answer[: one.behind] for one in reversed(rolled)}  # the first's
    rows, moved = [], batch["token_positions"].clone()
    for number, row in enumerate(batch["segment_ids"]):
        names, length = ("input_ids", "segment_ids", "labels"), int((row != PADDING).sum())
        ids, segments, labels = (batch[name][number, :length].tolist() for name in names)
        own = batch["image_index"] == number
        for conversation in range(1, max(segments) + 1):
            first = segments.index(conversation)
            place = next(k for k in range(first, len(ids)) if labels[k] != UNSUPERVISED)
            thought = thoughts.get((number, tuple(ids[first:place])), [])
            ids[place:place] = thought
            segments[place:place] = [conversation] * len(thought)
            labels[place:place] = [UNSUPERVISED] * len(thought)
            moved[:, own] += len(thought) * (moved[:, own] >= place - 1)
        rows.append((ids, segments, labels))
    longest = max(len(ids) for ids, _, _ in rows)
    ids, segments, labels = (
        _padded([torch.tensor(row[k]) for row in rows], longest, filler)
        for k, filler in enumerate((pad, PADDING, UNSUPERVISED))
    )
    supervised = (labels.flatten()[1:] != UNSUPERVISED).nonzero()[:, 0]
    made = {"input_ids": ids, "segment_ids": segments, "labels": labels}
    return {**batch, **made, "token_positions": moved, "supervised": supervised}


def with_drawn(batch: dict[str, Any], rolled: Sequence[Rolled], pad: int) -> dict[str, Any]:
    """A batch of the processor with drawn answers behind each row's own conversations.

    `drawn`: `places`, `words` and `advantages` (drawn,), as `modeling.policy.Drawn` has them. `pad`: id of padding.
    What the batch supervises stays as it is; of drawn answers nothing is supervised.
    """
    ids, segments, labels = ([row for row in batch[name]] for name in ("input_ids", "segment_ids", "labels"))
    lengths = [int((row != PADDING).sum()) for row in segments]
    ids, segments, labels = (
        [row[:n] for row, n in zip(rows, lengths, strict=True)] for rows in (ids, segments, labels)
    )
    numbers = [int(row.max()) for row in segments]  # of conversations, from 1
    starts = []  # of each answer, in its row
    for one in rolled:
        numbers[one.row] += 1
        words = torch.tensor([*one.question, *one.answer])
        starts.append(len(ids[one.row]) + len(one.question))
        ids[one.row] = torch.cat([ids[one.row], words])
        segments[one.row] = torch.cat([segments[one.row], torch.full_like(words, numbers[one.row])])
        labels[one.row] = torch.cat([labels[one.row], torch.full_like(words, UNSUPERVISED)])
    before, longest = batch["input_ids"].shape[1], max(map(len, ids))
    places = [one.row * longest + start - 1 + k for one, start in zip(rolled, starts, strict=True) for k in one.chosen]
    counts = {**batch["counts"], "drawn": len(places), "answers": len(rolled)}
    return {
        **batch,
        "input_ids": _padded(ids, longest, pad),
        "segment_ids": _padded(segments, longest, PADDING),
        "labels": _padded(labels, longest, UNSUPERVISED),
        "supervised": batch["supervised"] // before * longest + batch["supervised"] % before,
        "counts": counts,
        "drawn": {
            "places": torch.tensor(places, dtype=torch.long),
            "words": torch.tensor([one.answer[k] for one in rolled for k in one.chosen], dtype=torch.long),
            "advantages": torch.tensor([one.advantage for one in rolled for _ in one.chosen], dtype=torch.float),
        },
    }


def _padded(rows: Sequence[Tensor], longest: int, filler: int) -> Tensor:
    return torch.stack([F.pad(row, (0, longest - len(row)), value=filler) for row in rows])
