"""Answers drawn by chance: temperature, nucleus (top-p), and a source of chance that belongs to one answer alone.

What an answer draws depends on its own key, never on what is answered beside it, on the prefix cache or on the rank.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from cores.modeling.generation import Choose


@dataclass(frozen=True, slots=True)
class Sampling:
    """How words are drawn. `temperature`: divides the logits; 0 takes the likeliest word always.

    `top_p`: the likeliest words that have so much of the probability together are drawn from, and no others (nucleus
    sampling, Holtzman et al. 2020). Raises ValueError for numbers that cannot be used.
    """

    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature: found {self.temperature!r:.40}, expected a number from 0")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: found {self.top_p!r:.40}, expected more than 0 and at most 1")


def sampler(sampling: Sampling, keys: Sequence[Hashable], never: Sequence[int] = ()) -> Choose | None:
    """A `Choose` for answers with these keys, such as (seed, step, question, number); None where nothing is drawn.

    `never`: ids that are not drawn, such as a picture's placeholder. Equal keys draw the same. Each word takes one
    number of an answer's own chance, so that an answer draws the same words in whatever company.
    """
    if sampling.temperature == 0:
        return None
    chances = [Random(repr(key)) for key in keys]

    def choose(log_probabilities: Tensor, numbers: Sequence[int]) -> Tensor:
        shut = [word for word in never if word < log_probabilities.shape[-1]]
        open_ = log_probabilities.index_fill(-1, torch.tensor(shut, device=log_probabilities.device).long(), -math.inf)
        drawn = torch.tensor([chances[number].random() for number in numbers], dtype=torch.float64)
        return draw(open_, drawn, sampling)

    return choose


def draw(log_probabilities: Tensor, chance: Tensor, sampling: Sampling) -> Tensor:
    """The words (rows,) at which the cumulated probability passes `chance` (rows,), numbers from 0 to below 1.

    Args: `log_probabilities` (rows, vocabulary). Probability is cumulated in the order of the vocabulary: in that of
    probability, two words that are alike in it but for rounding would change places, and the word that is drawn with
    them. The nucleus holds at least the likeliest.
    """
    wide = log_probabilities.double()
    held = ((wide - wide.amax(-1, keepdim=True)) / sampling.temperature).softmax(-1)  # however small it is
    if sampling.top_p < 1:
        sorted_, words = torch.sort(held, dim=-1, descending=True, stable=True)
        inside = sorted_.cumsum(-1) - sorted_ < sampling.top_p  # what comes before a word leaves room for it
        inside[:, 0] = True
        held = torch.zeros_like(held).scatter(-1, words, sorted_ * inside)
    upto = held.cumsum(-1)
    wanted = chance.to(upto.device, upto.dtype)[:, None] * upto[:, -1:]
    last = held.shape[-1] - 1 - (held.flip(-1) > 0).int().argmax(-1)  # that can be drawn at all
    return torch.minimum((upto <= wanted).sum(-1), last)
