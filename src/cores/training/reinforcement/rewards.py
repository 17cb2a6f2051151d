"""What an answer is worth: the overlap of its masks with the truth, its form, and whether it refused rightly.

Legend: (H, W) = the picture's own size in pixels.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cores import masks
from cores.asking.answers import Answered
from cores.data.sample import Target
from cores.masks import Mask
from cores.processing.reading import Status


class Parts(NamedTuple):
    """Rewards of one answer, each from 0 to 1.

    `iou`: of its masks with the targets', in their order; nothing asked for and nothing drawn is 1. `form`: it ended
    by itself, as a refusal or in whole chains. `refusal`: it refused what is not there, and nothing else. `location`:
    IoU of the first level's masks with the known locations; where none is known, as `iou`. `thought`: how much of its
    room free reasoning took, which is no reward but a cost.
    """

    iou: float
    form: float
    refusal: float
    location: float
    thought: float = 0.0

    def total(self, weights: Mapping[str, float]) -> float:
        """The weighted sum of the rewards."""
        return float(sum(weight * getattr(self, name) for name, weight in weights.items()))


def reward_parts(
    answer: Answered, status: Status, drawn: Sequence[Mask], located: Sequence[Mask], targets: Sequence[Target]
) -> Parts:
    """Compare an answer with what was asked for.

    Args: `drawn`, `located`: (H, W) bool, the last and the first level's mask of each of the answer's chains.
    """
    refused, whole = status == "absent", all(None not in chain for chain in answer.chains)
    iou = overlap(drawn, [masks.decode(target.mask) for target in targets])
    known = [masks.decode(target.location) for target in targets if target.location is not None]
    return Parts(
        iou=iou,
        form=float(not answer.cut and (refused or (status == "segmented" and whole))),
        refusal=float(refused == (not targets)),
        location=overlap(located, known) if known and len(known) == len(targets) else iou,
    )


def overlap(found: Sequence[Mask], truth: Sequence[Mask]) -> float:
    """Mean IoU of masks (H, W) in order; one too many or too few counts 0.

    Of nothing with nothing, or with empty masks alone, it is 1: the rule of gIoU.
    """
    if not truth:
        return float(not any(mask.any() for mask in found))
    each = [_iou(one, other) for one, other in zip(found, truth, strict=False)]
    return sum(each) / max(len(found), len(truth))


def _iou(one: Mask, other: Mask) -> float:
    union = np.count_nonzero(one | other)
    return float(np.count_nonzero(one & other) / union) if union else 1.0
