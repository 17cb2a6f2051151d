"""Several answers to one question as one mask: the pixels that most of them have."""

from collections.abc import Sequence

import numpy as np

from cores.errors import UserError
from cores.inference.segmentation import Segmentation
from cores.masks import Mask


def vote(answers: Sequence[Segmentation]) -> Mask:
    """Pixel majority of the answers' masks: (H, W) bool, where more than half of them are True.

    A refusal votes for nothing, everywhere. Raises UserError for no answers, and for pictures of several sizes.
    """
    sizes = list({answer.size for answer in answers})
    if len(sizes) != 1:
        raise UserError(
            f"vote: found answers about {len(sizes)} sizes of pictures, expected several about one picture"
        )
    found = np.zeros(sizes[0], dtype=np.int32)
    for answer in answers:
        found += answer.mask
    majority: Mask = 2 * found > len(answers)
    return majority
