"""Answers of the language model about one image: the prefix is read once, its cache serves every question.

Each question goes on from a copy of the prefix's cache, padded on the left so that all end at the same place, with
its padding masked and its positions said explicitly: positions that the model counts itself would count padding.
Families whose layers carry a state along the row cannot be padded: there, one question is read at a time.

Legend: questions = of one pass, prefix = tokens before them (image positions counted), length = of the longest
question (and answer), width = the language model's.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache

from cores.modeling.mllms.base import Pixels
from cores.modeling.model import CoresModel
from cores.modeling.packing import Sight, follow, grow, pack


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """One answer in tokens. `ids`: without the closing ones; `score`: mean log-probability (closing counted).

    `states` (tokens, width): at least one row an id, the hidden state that predicted it. `cut`: it reached the most
    tokens allowed before it closed.
    """

    ids: list[int]
    states: Tensor
    score: float
    cut: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class PrefixCache:
    """Keys and values of everything that stands before a question, read once.

    `length`: its tokens; `shift` (1,): how much further on than that the text behind it begins (M-RoPE's pictures
    take fewer positions than tokens).
    """

    cache: Cache
    length: int
    shift: Tensor

    def copies(self, questions: int) -> Cache:
        """A cache of its own for each of so many questions."""
        found = deepcopy(self.cache)
        if questions > 1:
            found.batch_repeat_interleave(questions)
        return found


@torch.no_grad()
def read_prefix(model: CoresModel, pixels: Pixels, prefix_ids: Tensor) -> PrefixCache:
    """Read the prefix of one image. Args: `pixels`: of this image; `prefix_ids` (prefix,)."""
    mllm, ids = model.mllm, prefix_ids[None]
    cache = mllm.new_cache()
    sight = pack(torch.zeros_like(ids), mllm.is_image(ids))
    positions, shift = mllm.place(ids, sight.queries, torch.ones_like(ids, dtype=torch.bool), pixels)
    mllm.hidden_states(ids, mllm.encode_images(pixels), mllm.masks(sight), positions, cache)
    return PrefixCache(cache, len(prefix_ids), shift)


@torch.no_grad()
def generate(
    model: CoresModel,
    prefix: PrefixCache,
    questions: Sequence[Tensor],
    closing: Sequence[int],
    max_new_tokens: int,
    choose: Callable[[Tensor], Tensor] | None = None,
) -> list[Said]:
    """Answer questions, all in one pass.

    Args: `questions`: ids (length,) each, up to where the answer begins, at least one question; `closing`: the ids
    that end an answer; `max_new_tokens`: at least 1; `choose`: log-probabilities (questions, vocabulary) to the ids
    (questions,) that are said next, None for the likeliest. Returns: one `Said` a question, in order.
    """
    mllm = model.mllm
    if not mllm.packs and len(questions) > 1:
        return [one for only in questions for one in generate(model, prefix, [only], closing, max_new_tokens)]
    ends, cache = list(closing), prefix.copies(len(questions))
    ids, sight = _left_pad(questions, prefix.length)
    told: list[list[int]] = [[] for _ in questions]
    kept: list[list[Tensor]] = [[] for _ in questions]
    sums = [0.0] * len(questions)
    open_rows = set(range(len(questions)))
    for _ in range(max_new_tokens):
        positions = mllm.follow(sight.queries, prefix.shift)
        state = mllm.hidden_states(ids, None, mllm.masks(sight), positions, cache)[:, -1]  # (questions, width)
        chances = mllm.logits(state).float().log_softmax(-1)
        ids = chances.argmax(-1) if choose is None else choose(chances)
        sure = chances.gather(1, ids[:, None])[:, 0].tolist()
        said = ids.tolist()
        for row in sorted(open_rows):
            told[row].append(said[row])
            kept[row].append(state[row])
            sums[row] += sure[row]
            if told[row][-len(ends) :] == ends:
                told[row] = told[row][: -len(ends)]
                open_rows.discard(row)
        if not open_rows:
            break
        ids, sight = ids[:, None], grow(sight)
    return [
        Said(told[row], torch.stack(states), sums[row] / len(states), cut=row in open_rows)
        for row, states in enumerate(kept)
    ]


@torch.no_grad()
def teacher_force(
    model: CoresModel,
    prefix: PrefixCache,
    questions: Sequence[Tensor],
    answers: Sequence[Tensor],
    closing: Sequence[int],
) -> list[Said]:
    """As `generate`, with given answers, ids (length,) each, read in one pass; closing tokens included or not."""
    mllm = model.mllm
    if not mllm.packs and len(questions) > 1:
        pairs = zip(questions, answers, strict=True)
        return [one for ask, told in pairs for one in teacher_force(model, prefix, [ask], [told], closing)]
    ends, cache = list(closing), prefix.copies(len(questions))
    rows = [torch.cat([question, given]) for question, given in zip(questions, answers, strict=True)]
    ids, sight = _left_pad(rows, prefix.length)
    positions = mllm.follow(sight.queries, prefix.shift)
    last = mllm.hidden_states(ids, None, mllm.masks(sight), positions, cache)
    found = []
    for row, given in enumerate(answers):
        states = last[row, -len(given) - 1 : -1]  # (tokens, width): each predicts its token
        chances = mllm.logits(states).float().log_softmax(-1)
        said = given.tolist()
        ids_said = said[: -len(ends)] if said[-len(ends) :] == ends else said
        found.append(Said(ids_said, states, float(chances.gather(1, given[:, None]).mean())))
    return found


def _left_pad(rows: Sequence[Tensor], prefix: int) -> tuple[Tensor, Sight]:
    """Ids (questions, length) of ragged rows that end at the same place, and who sees whom behind the prefix."""
    length = max(len(row) for row in rows)
    device = rows[0].device
    ids = torch.zeros((len(rows), length), dtype=torch.long, device=device)
    real = torch.zeros((len(rows), length), dtype=torch.bool, device=device)
    for number, row in enumerate(rows):
        ids[number, length - len(row) :] = row
        real[number, length - len(row) :] = True
    return ids, follow(prefix, real)
