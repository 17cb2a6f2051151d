"""Group-relative policy optimisation (GRPO; Shao et al. 2024, DeepSeekMath, section 4.1): the loss of drawn answers.

Legend: tokens = of all drawn answers of a batch, on one flat axis, groups = questions, samples = answers of each.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

LEAST_SPREAD = 1e-4  # added to a group's standard deviation, as TRL does


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Drawn answers as a loss reads them, token by token.

    `places` (tokens,): where the states stand that predict them, counted along all rows of the batch in turn; `words`
    (tokens,): what was said; `advantages` (tokens,): of the answer that a token belongs to; `old` (tokens,): its
    log-probability by the model that drew it, None: the one that trains; `reference` (tokens,): by the model at the
    start, None without a KL term. `clip`: how far the ratio may go below and above 1; `kl`: weight of the divergence
    from the start; `temperature`: that the answers were drawn at, and that all of these log-probabilities are at.
    """

    places: Tensor
    words: Tensor
    advantages: Tensor
    old: Tensor | None = None
    reference: Tensor | None = None
    clip: tuple[float, float] = (0.2, 0.2)
    kl: float = 0.0
    temperature: float = 1.0


def advantages(rewards: Tensor, scaled: bool = True) -> Tensor:
    """How much better than its group each answer is: (groups, samples) of both.

    A group of equal rewards teaches nothing. `scaled`: by the group's standard deviation; without, an easy and a hard
    question weigh by how far their rewards are apart (Liu et al. 2025, Dr. GRPO).
    """
    centred = rewards - rewards.mean(-1, keepdim=True)
    return centred / (rewards.std(-1, keepdim=True) + LEAST_SPREAD) if scaled else centred


def policy_losses(log_probabilities: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over tokens: the loss, the divergence that is in it (unweighted), and how many tokens were clipped.

    Args: `log_probabilities` (tokens,): of `drawn.words` by the model that trains.
    The divergence from the start is estimated without bias and never below 0: r - log r - 1, r = start / now.
    """
    old = log_probabilities.detach() if drawn.old is None else drawn.old
    ratio = (log_probabilities - old).exp()
    low, high = drawn.clip
    clipped = ratio.clamp(1 - low, 1 + high)
    gain = torch.minimum(ratio * drawn.advantages, clipped * drawn.advantages)
    apart = torch.zeros_like(gain)
    if drawn.reference is not None:
        back = drawn.reference - log_probabilities
        apart = back.exp() - back - 1
    cut = (ratio * drawn.advantages > clipped * drawn.advantages).sum()
    return (drawn.kl * apart - gain).sum(), apart.sum(), cut
