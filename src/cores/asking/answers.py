"""From what a model said to what it points at: the chains of grounding tokens in answers, and their masks.

Legend: images = pictures asked about, levels = of the chain, chains = targets of one answer, masks = chains of all
answers on one flat axis, dim = of a prompt token, (h, w) = low-res masks.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cores.asking.thinking import NOTHING, Thought
from cores.modeling.generation import Said
from cores.modeling.model import CoresModel
from cores.modeling.segmenters.base import Features

Chain = tuple[int | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """One answer. `ids`: its tokens without the closing ones; `score`: their mean log-probability (closing counted).

    `cut`: it reached the most tokens allowed before it closed. `chains`: one for each target, where in `ids` each
    level's token stands (None: not said). `states` (levels, chains, width): the language model's, that predicted
    them; `tokens` (levels, chains, dim): prompt tokens made of those; zeros where not said.
    `low_res_logits`: (chains, h, w) a level, zeros (an empty mask) for a level that was not said.
    `predicted_iou`: the decoder's guess of each chain's last mask, as it comes; `sure`: the mean probability of its
    grounding tokens (geometric); `absent`: how much likelier a refusal's first words are than any others, 0 to 1. The
    first and the last are 0 where nobody asked for them. `thought`: free reasoning that was said before `ids`.
    """

    ids: list[int]
    score: float
    cut: bool
    chains: list[Chain]
    states: Tensor
    tokens: Tensor
    low_res_logits: list[Tensor]
    predicted_iou: Sequence[float]
    sure: Sequence[float]
    absent: float
    thought: Thought = field(default=NOTHING, kw_only=True)

    @property
    def length(self) -> int:
        """How many tokens were said."""
        return len(self.ids)


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
def segment_answers(
    model: CoresModel,
    features: Sequence[Features],
    said: Sequence[Said],
    of: Sequence[int],
    masks_per_pass: int,
    refine: bool = False,
    absent: Sequence[float] | None = None,
) -> list[Answered]:
    """Project the grounding tokens' states to prompt tokens and run the chains of all answers.

    Args: `features` of each image, from `model.encode`; `of`: each answer's image, by its number; `masks_per_pass`:
    most chains in one call of the mask decoder; `refine`: see `CoresModel.segment`; `absent`: of each answer; without
    it nothing is asked how sure it is. Returns: one `Answered` an answer, in order.
    """
    chains = [find_chains(one.ids, model.config.token_ids) for one in said]
    flat = [(row, chain) for row, found in enumerate(chains) for chain in found]
    states = _grounding_states(model, said, flat)
    tokens = _prompt_tokens(model, features[0], states, flat)
    size = model.segmenter.mask_size
    low_res = [features[0].new_zeros((len(flat), size, size)) for _ in tokens]
    whole = [n for n, (_, chain) in enumerate(flat) if None not in chain]
    guesses = torch.zeros(len(flat))
    bare = [n for n, (_, chain) in enumerate(flat) if None in chain]  # only the last level, as if it were the first
    for numbers, used in ((whole, slice(None)), (bare, slice(-1, None))):
        owners = [of[flat[n][0]] for n in numbers]
        rated: list[Tensor] | None = None if absent is None else []
        taken = tokens[used][:, numbers]
        found = decode(model, features, taken, owners, masks_per_pass, refine=refine, rated=rated)
        if rated:
            guesses[numbers] = torch.cat(rated).float().cpu()
        for target, logits in zip(low_res[used], found, strict=True):
            target[numbers] = logits.to(target.dtype)
    result, first = [], 0
    absent = [0.0] * len(said) if absent is None else absent
    for one, found_chains, refused in zip(said, chains, absent, strict=True):
        last = first + len(found_chains)
        parts = [level[first:last] for level in low_res]
        own = slice(first, last)
        signals = (guesses[own].tolist(), _sure(one.sure, found_chains), refused)
        about = (one.ids, one.score, one.cut, found_chains)
        result.append(Answered(*about, states[:, own], tokens[:, own], parts, *signals))
        first = last
    return result


def _sure(log_probabilities: Tensor, chains: Sequence[Chain]) -> list[float]:
    """The mean probability (geometric) of each chain's tokens, of those of an answer (tokens,)."""
    known = log_probabilities.tolist() if chains else []
    said = [[known[place] for place in chain if place is not None] for chain in chains]
    return [math.exp(sum(own) / len(own)) for own in said]


def _grounding_states(model: CoresModel, said: Sequence[Said], flat: Sequence[tuple[int, Chain]]) -> Tensor:
    """States (levels, masks, width) that predicted the grounding tokens of chains, each with its answer's number;
    zeros where a level is not said."""
    found = torch.zeros((len(model.config.levels), len(flat), model.mllm.width), device=model.device)
    for number, (row, chain) in enumerate(flat):
        for level, place in enumerate(chain):
            if place is not None:
                found[level, number] = said[row].states[place]
    return found.to(said[0].states.dtype) if said else found


def _prompt_tokens(model: CoresModel, like: Features, states: Tensor, flat: Sequence[tuple[int, Chain]]) -> Tensor:
    """Prompt tokens (levels, masks, dim) of grounding states (levels, masks, width); zeros where one is not said."""
    tokens = like.new_zeros((len(states), len(flat), model.segmenter.dim))
    told = torch.tensor([[place is not None for place in chain] for _, chain in flat], dtype=torch.bool).reshape(
        len(flat), len(states)
    )
    levels, numbers = told.T.nonzero().T.to(states.device)
    if len(levels):
        tokens[levels, numbers] = model.projection(states[levels, numbers]).to(tokens.dtype)
    return tokens


@torch.no_grad()
def decode(
    model: CoresModel,
    features: Sequence[Features],
    tokens: Tensor,
    of: Sequence[int],
    masks_per_pass: int,
    use_location: bool = True,
    refine: bool = False,
    rated: list[Tensor] | None = None,
) -> list[Tensor]:
    """Low-res logits (masks, h, w) of each level, of prompt tokens (levels, masks, dim).

    Args: `features` of each image; `of`: each mask's image, by its number; `use_location` False: the last level
    without mask prompt and refiner; `refine`, `rated`: see `CoresModel.segment`.
    """
    side = model.segmenter.mask_size
    parts = [[features[0].new_zeros((0, side, side)) for _ in tokens]]
    for some in passes(len(of), masks_per_pass):  # each with the features of its own images alone
        images = list(dict.fromkeys(of[some]))
        index = torch.tensor([images.index(image) for image in of[some]], device=tokens.device)
        seen = features[images[0]] if len(images) == 1 else Features.cat([features[image] for image in images])
        parts.append(model.segment(seen, tokens[:, some], index, use_location, masks_per_pass, refine, rated))
    return [torch.cat(level) for level in zip(*parts, strict=True)]


def passes(count: int, size: int) -> Iterator[slice]:
    """So many things in order, at most `size` at once."""
    return (slice(first, first + size) for first in range(0, count, size))
