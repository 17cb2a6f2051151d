"""Answers to all questions about one image: the prefix is read once, its cache serves every question.

Each question goes on from a copy of the prefix's cache, padded on the left so that all end at the same place, with
its padding masked and its positions said explicitly: positions that the model counts itself would count padding.

Legend: questions = of one image, prefix = tokens before them (image positions counted), length = of the longest
question (and answer), width = the language model's, dim = of a prompt token, chains = targets of one answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import DynamicCache

if TYPE_CHECKING:
    from cores.modeling.model import CoresModel

Chain = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer. `ids`: its tokens without the closing ones; `score`: their mean log-probability (closing counted).

    `chains`: one for each target, where in `ids` each level's token stands (None: not said). `tokens`
    (levels, chains, dim): prompt tokens, zeros where not said. `low_res_logits`: (chains, H, W) a level, zeros (an
    empty mask) for a level that was not said.
    """

    ids: list[int]
    score: float
    chains: list[Chain]
    tokens: Tensor
    low_res_logits: list[Tensor]


def find_chains(ids: Sequence[int], token_ids: Sequence[int]) -> list[Chain]:
    """For every last-level token of an answer: where its levels' tokens stand.

    A level goes with the nearest token of its kind before the last one, but not across the target before it.
    """
    found: list[Chain] = []
    start = 0
    for place, token in enumerate(ids):
        if token == token_ids[-1]:
            chain: list[int | None] = []
            for level in token_ids[:-1]:
                chain.append(next((k for k in range(place - 1, start - 1, -1) if ids[k] == level), None))
            found.append((*chain, place))
            start = place + 1
    return found


@torch.no_grad()
def answer(
    model: "CoresModel",
    pixel_values: Tensor,
    features: Tensor,
    prefix_ids: Tensor,
    questions: Sequence[Tensor],
    answers: Sequence[Tensor] | None = None,
    closing: Sequence[int] | None = None,
    max_new_tokens: int = 128,
) -> list[Answered]:
    """Answer questions about one image, greedily, and segment what the answers point to.

    Args: `pixel_values` (1, 3, side, side); `features` of this image (1, ...), from `model.encode`; `prefix_ids`
    (prefix,); `questions`: ids (length,) each, up to where the answer begins; `answers`: if given, ids (length,) that
    are read instead of generated (teacher-forced), closing tokens included or not; `closing`: the ids that end an
    answer, by default the end-of-sequence token.
    Returns: one `Answered` a question, in order.
    """
    if not questions:
        return []
    ends = list(closing) if closing is not None else [int(model.config.mllm_config.text_config.eos_token_id)]
    cache = _read_prefix(model, pixel_values, prefix_ids, len(questions))
    if answers is None:
        told, states, scores = _generate(model, cache, len(prefix_ids), questions, ends, max_new_tokens)
    else:
        told, states, scores = _force(model, cache, len(prefix_ids), questions, answers, ends)
    return _segment(model, features, told, states, scores)


def _read_prefix(model: "CoresModel", pixel_values: Tensor, prefix_ids: Tensor, copies: int) -> DynamicCache:
    """The prefix's cache, once for each question."""
    inputs = model.mllm.embed(prefix_ids[None], model.mllm.encode_images(pixel_values))
    positions = torch.arange(len(prefix_ids), device=prefix_ids.device)[None]
    cache = DynamicCache(config=model.config.mllm_config.text_config)
    model.mllm.hidden_states(inputs, torch.ones_like(positions), positions, past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(copies)
    return cache


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


def _generate(
    model: "CoresModel", cache: DynamicCache, prefix: int, questions: Sequence[Tensor], ends: list[int], most: int
) -> tuple[list[list[int]], list[Tensor], list[float]]:
    """Greedy answers; with each, the states (tokens, width) that predicted its tokens, and its score."""
    ids, mask, positions = _left_pad(questions, prefix)
    told: list[list[int]] = [[] for _ in questions]
    kept: list[list[Tensor]] = [[] for _ in questions]
    sums = [0.0] * len(questions)
    counts = [0] * len(questions)
    open_rows = set(range(len(questions)))
    at = positions[:, -1:]
    for _ in range(most):
        state = model.mllm.hidden_states(
            model.mllm.embed(ids), mask, positions, past_key_values=cache, use_cache=True
        ).last_hidden_state[:, -1]  # (questions, width)
        chances = model.mllm.logits(state).float().log_softmax(-1)
        best, ids = chances.max(-1)
        said, sure = ids.tolist(), best.tolist()  # the one wait for the device in a step
        for row in sorted(open_rows):
            told[row].append(said[row])
            kept[row].append(state[row])
            sums[row] += sure[row]
            counts[row] += 1
            if told[row][-len(ends) :] == ends:
                told[row] = told[row][: -len(ends)]
                open_rows.discard(row)
        if not open_rows:
            break
        ids = ids[:, None]
        at = at + 1
        positions = at
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
    states = [torch.stack(rows) for rows in kept]
    return told, states, [total / number for total, number in zip(sums, counts, strict=True)]


def _force(
    model: "CoresModel",
    cache: DynamicCache,
    prefix: int,
    questions: Sequence[Tensor],
    answers: Sequence[Tensor],
    ends: list[int],
) -> tuple[list[list[int]], list[Tensor], list[float]]:
    """As `_generate`, with given answers, in one pass."""
    rows = [torch.cat([question, given]) for question, given in zip(questions, answers, strict=True)]
    ids, mask, positions = _left_pad(rows, prefix)
    output = model.mllm.hidden_states(model.mllm.embed(ids), mask, positions, past_key_values=cache, use_cache=True)
    told, states, scores = [], [], []
    for row, given in enumerate(answers):
        state = output.last_hidden_state[row, -len(given) - 1 : -1]  # (tokens, width): each predicts its token
        chances = model.mllm.logits(state).float().log_softmax(-1)
        scores.append(float(chances.gather(1, given[:, None]).mean()))
        said = given.tolist()
        told.append(said[: -len(ends)] if said[-len(ends) :] == ends else said)
        states.append(state)
    return told, states, scores


def _segment(
    model: "CoresModel", features: Tensor, told: list[list[int]], states: list[Tensor], scores: list[float]
) -> list[Answered]:
    """Run the chains of all answers together: one call of the decoder a level, and one for chains without location."""
    levels = len(model.config.levels)
    chains = [find_chains(ids, model.config.token_ids) for ids in told]
    flat = [(row, chain) for row, found in enumerate(chains) for chain in found]
    size, dim = model.segmenter.mask_size, model.segmenter.dim
    tokens = features.new_zeros((levels, len(flat), dim))
    low_res = [features.new_zeros((len(flat), size, size)) for _ in range(levels)]
    for number, (row, chain) in enumerate(flat):
        for level, place in enumerate(chain):
            if place is not None:
                tokens[level, number] = model.projection(states[row][place]).to(tokens.dtype)
    whole = [n for n, (_, chain) in enumerate(flat) if None not in chain]
    bare = [n for n, (_, chain) in enumerate(flat) if None in chain]
    for numbers, used in ((whole, slice(None)), (bare, slice(-1, None))):
        if numbers:
            index = torch.zeros(len(numbers), dtype=torch.long, device=features.device)
            found = model.segment(features, tokens[used][:, numbers], index)
            for target, logits in zip(low_res[used], found, strict=True):
                target[numbers] = logits.to(target.dtype)
    result, first = [], 0
    for row, ids in enumerate(told):
        last = first + len(chains[row])
        parts = [level[first:last] for level in low_res]
        result.append(Answered(ids, scores[row], chains[row], tokens[:, first:last], parts))
        first = last
    return result
