"""Answers as `supervision.Detections`, which annotators, trackers and metrics there take."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cores.errors import UserError
from cores.outlines import box_of

if TYPE_CHECKING:
    from supervision import Detections

    from cores.inference.segmentation import Segmentation

NOTHING = (0, 0, 1, 1)  # the box of an empty mask


def to_supervision(results: Sequence["Segmentation"], compact: bool = True) -> "Detections":
    """The targets of answers about one picture, in their order, an empty mask among them, too.

    `class_name` in `data` is a target's phrase and `query` what was asked; `class_id` counts the phrases. Boxes are
    supervision's own: the right and bottom pixels are inside. `compact`: masks as `CompactMask`, run lengths that are
    made of ours without a pixel; else an array (targets, H, W) of bool.

    Raises UserError where supervision is not installed, or too old for compact masks.
    """
    try:
        import supervision
    except ImportError:
        raise UserError("supervision is not installed: pip install 'cores[tables]'") from None
    targets = [(found.query, target) for found in results for target in found.targets]
    if not targets:
        return supervision.Detections.empty()
    boxes = np.array([box_of(target.rle) or NOTHING for _, target in targets], np.float32)
    boxes[:, 2:] -= 1
    phrases = [target.phrase for _, target in targets]
    numbers = {phrase: number for number, phrase in enumerate(dict.fromkeys(phrases))}
    masks: Any
    if not compact:
        masks = np.stack([target.mask for _, target in targets])
    elif hasattr(supervision, "CompactMask"):
        masks = supervision.CompactMask.from_coco_rle([target.rle for _, target in targets], boxes, results[0].size)
    else:
        raise UserError(f"supervision {supervision.__version__} has no compact masks: update it, or say compact=False")
    return supervision.Detections(
        xyxy=boxes,
        mask=masks,
        confidence=np.array([target.score for _, target in targets], np.float32),
        class_id=np.array([numbers[phrase] for phrase in phrases]),
        data={"class_name": np.array(phrases), "query": np.array([query for query, _ in targets])},
    )
