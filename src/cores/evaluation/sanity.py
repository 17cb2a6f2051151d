"""Two questions to a model that scores well: does it use its tokens, and what is its location level worth?"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch

from cores.asking.answers import Answered
from cores.evaluation.result import Sanity
from cores.evaluation.sample_asker import Question, SampleAsker
from cores.masks import Mask


def pairs(truths: Sequence[Mask]) -> list[tuple[int, int]]:
    """Pairs of masks (H, W), by their numbers, that do not overlap and are not empty; each mask in one at most."""
    found: list[tuple[int, int]] = []
    taken: set[int] = set()
    for one, two in combinations(range(len(truths)), 2):
        if taken & {one, two} or not truths[one].any() or not truths[two].any():
            continue
        if not (truths[one] & truths[two]).any():
            found.append((one, two))
            taken |= {one, two}
    return found


def swap(asker: SampleAsker, questions: Sequence[Question], answered: Sequence[Answered], into: Sanity) -> None:
    """Exchange the prompt tokens of every level between two questions; count both with both, and the whole picture.

    The first chain stands for its question. A chain that lacks a level is left out: it has no token to give.
    """
    whole = [
        (question.truth[0], answer)
        for question, answer in zip(questions, answered, strict=True)
        if question.truth and answer.chains and None not in answer.chains[0]
    ]
    found = pairs([truth for truth, _ in whole])
    if not found:
        return
    order = [(one, other) for pair in found for one, other in (pair, pair[::-1])]
    swapped = asker.segment(torch.stack([whole[other][1].tokens[:, 0] for _, other in order], dim=1))
    for (one, _), theirs in zip(order, swapped, strict=True):
        truth, answer = whole[one]
        (mine,) = asker.full_size(answer.low_res_logits[-1][:1])
        into.own.update(mine, truth, asker.ignore)
        into.swapped.update(theirs, truth, asker.ignore)
        into.foreground.update(np.ones_like(truth), truth, asker.ignore)


def without_location(
    asker: SampleAsker, questions: Sequence[Question], answered: Sequence[Answered], into: Sanity
) -> None:
    """Score all targets with no mask prompt and no refiner step at the last level; nothing for chains of one level."""
    if len(asker.asker.levels) < 2 or not answered:
        return
    tokens = torch.cat([answer.tokens for answer in answered], dim=1)  # (levels, chains of all answers, dim)
    drawn = iter(asker.segment(tokens, use_location=False) if tokens.shape[1] else [])
    for question, answer in zip(questions, answered, strict=True):
        masks = [next(drawn) for _ in answer.chains]
        for i, truth in enumerate(question.truth):
            into.without_location.update(masks[i] if i < len(masks) else np.zeros_like(truth), truth, asker.ignore)
