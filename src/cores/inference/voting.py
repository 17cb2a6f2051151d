"""Several answers to one question as one: the pixels that most of them have."""

import statistics
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cores.errors import UserError
from cores.inference.segmentation import Level, Segmentation
from cores.masks import Mask, encode

AGREES = 0.5  # IoU from which two masks are of the same thing
NOWHERE = -10.0  # logit of an answer that points nowhere


def vote(answers: Sequence[Segmentation]) -> Mask:
    """Pixel majority of the answers' masks: (H, W) bool, where more than half of them are True.

    A refusal votes for nothing, everywhere. Raises UserError for no answers, and for pictures of several sizes.
    """
    _check(answers)
    found = np.zeros(answers[0].size, dtype=np.int32)
    for answer in answers:
        found += answer.mask
    majority: Mask = 2 * found > len(answers)
    return majority


def joined(answers: Sequence[Segmentation]) -> Segmentation:
    """Several answers as one, whose mask is their `vote`.

    Its words are those of the first answer that did as most of them: found something, or nothing. What was found
    becomes one target, whose levels are votes, too; a level's `score` is the mean share of answers that have its
    pixels, its logits are the answers' (lower) median, and `confidence` is the mean of all targets'. Raises as `vote`.
    """
    _check(answers)
    found = [answer for answer in answers if answer.targets]
    if 2 * len(found) <= len(answers):
        return next(answer for answer in answers if not answer.targets)
    first = found[0].targets[0]
    levels = tuple(_level(answers, level) for level in first.levels)
    sure = statistics.mean(target.confidence for answer in found for target in answer.targets)
    voted = replace(first, levels=levels, confidence=sure)
    if len(found[0].targets) > 1:  # no name of one of them is that of all
        voted = replace(voted, phrase=found[0].query, named=False, span=None)
    return replace(found[0], targets=(voted,))


def agreement(answers: Sequence[Segmentation], mask: Mask) -> float:
    """The share of answers whose mask is that of the same thing, by IoU; two empty masks agree.

    Raises UserError for no answers.
    """
    if not answers:
        raise UserError("agreement: found no answers")
    return statistics.mean(_iou(answer.mask, mask) >= AGREES for answer in answers)


def _check(answers: Sequence[Segmentation]) -> None:
    sizes = {answer.size for answer in answers}
    if len(sizes) != 1:
        raise UserError(
            f"vote: found answers about {len(sizes)} sizes of pictures, expected several about one picture"
        )


def _iou(one: Mask, two: Mask) -> float:
    either = int((one | two).sum())
    return int((one & two).sum()) / either if either else 1.0


def _level(answers: Sequence[Segmentation], like: Level) -> Level:
    """The answers' vote on the level of this name."""
    votes, logits = np.zeros(like.size, dtype=np.int32), []
    for answer in answers:
        own = [level for target in answer.targets for level in target.levels if level.name == like.name]
        votes += np.logical_or.reduce([level.mask for level in own]) if own else 0
        nowhere = np.full_like(like.low_res, NOWHERE)
        logits.append(np.maximum.reduce([level.low_res for level in own]) if own else nowhere)
    mask = 2 * votes > len(answers)
    score = float(votes[mask].mean()) / len(answers) if mask.any() else 0.0
    median = np.sort(np.stack(logits), axis=0)[(len(answers) - 1) // 2]  # above 0 where most are
    return replace(like, rle=encode(mask), score=score, low_res=median)
