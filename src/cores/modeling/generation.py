"""Answers of the language model about one image: the prefix is read once, its cache serves every question.

Each question goes on from a copy of the prefix's cache, padded on the left so that all end at the same place, with
its padding masked and its positions said explicitly: positions that the model counts itself would count padding.

Legend: questions = of one pass, prefix = tokens before them (image positions counted), length = of the longest
question (and answer), width = the language model's.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from cores.modeling.model import CoresModel


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
    """Keys and values of everything that stands before a question, read once. `length`: its tokens."""

    cache: DynamicCache
    length: int

    def copies(self, questions: int) -> DynamicCache:
        """A cache of its own for each of so many questions."""
        found = deepcopy(self.cache)
        found.batch_repeat_interleave(questions)
        return found


@torch.no_grad()
def read_prefix(model: CoresModel, pixel_values: Tensor, prefix_ids: Tensor) -> PrefixCache:
    """Read the prefix of one image. Args: `pixel_values` (1, 3, side, side); `prefix_ids` (prefix,)."""
    inputs = model.mllm.embed(prefix_ids[None], model.mllm.encode_images(pixel_values))
    positions = torch.arange(len(prefix_ids), device=prefix_ids.device)[None]
    cache = DynamicCache(config=model.config.mllm_config.text_config)
    model.mllm.hidden_states(inputs, torch.ones_like(positions), positions, past_key_values=cache, use_cache=True)
    return PrefixCache(cache, len(prefix_ids))


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
    ends, cache = list(closing), prefix.copies(len(questions))
    ids, mask, positions = _left_pad(questions, prefix.length)
    told: list[list[int]] = [[] for _ in questions]
    kept: list[list[Tensor]] = [[] for _ in questions]
    sums = [0.0] * len(questions)
    open_rows = set(range(len(questions)))
    at = positions[:, -1:]
    for _ in range(max_new_tokens):
        state = model.mllm.hidden_states(
            model.mllm.embed(ids), mask, positions, past_key_values=cache, use_cache=True
        ).last_hidden_state[:, -1]  # (questions, width)
        chances = model.mllm.logits(state).float().log_softmax(-1)
        ids = chances.argmax(-1) if choose is None else choose(chances)
        said, sure = (
            ids.tolist(),
            chances.gather(1, ids[:, None])[:, 0].tolist(),
        )  # the one wait for the device in a step
        for row in sorted(open_rows):
            told[row].append(said[row])
            kept[row].append(state[row])
            sums[row] += sure[row]
            if told[row][-len(ends) :] == ends:
                told[row] = told[row][: -len(ends)]
                open_rows.discard(row)
        if not open_rows:
            break
        ids = ids[:, None]
        at = at + 1
        positions = at
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
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
    ends, cache = list(closing), prefix.copies(len(questions))
    rows = [torch.cat([question, given]) for question, given in zip(questions, answers, strict=True)]
    ids, mask, positions = _left_pad(rows, prefix.length)
    output = model.mllm.hidden_states(model.mllm.embed(ids), mask, positions, past_key_values=cache, use_cache=True)
    found = []
    for row, given in enumerate(answers):
        states = output.last_hidden_state[row, -len(given) - 1 : -1]  # (tokens, width): each predicts its token
        chances = model.mllm.logits(states).float().log_softmax(-1)
        said = given.tolist()
        ids_said = said[: -len(ends)] if said[-len(ends) :] == ends else said
        found.append(Said(ids_said, states, float(chances.gather(1, given[:, None]).mean())))
    return found


def _left_pad(rows: Sequence[Tensor], prefix: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids (questions, length), mask (questions, prefix + length) and positions (questions, length) of ragged rows."""
    length = max(len(row) for row in rows)
    device = rows[0].device
    ids = torch.zeros((len(rows), length), dtype=torch.long, device=device)
    real = torch.zeros((len(rows), length), dtype=torch.long, device=device)
    for number, row in enumerate(rows):
        ids[number, length - len(row) :] = row
        real[number, length - len(row) :] = 1
    positions = (prefix + real.cumsum(1) - 1).clamp(min=0) * real
    seen = torch.ones((len(rows), prefix), dtype=torch.long, device=device)
    return ids, torch.cat([seen, real], dim=1), positions
