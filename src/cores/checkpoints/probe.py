"""The proof that two models say the same: three given answers about a drawn picture, compared level by level.

Legend: levels = of the chain, masks = one a question, h, w = low-res logits.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cores.asking.answerer import Query
from cores.asking.asker import Asker
from cores.errors import CheckpointError
from cores.modeling.model import CoresModel
from cores.processing.processor import CoresProcessor

TOLERANCE = 1e-4  # of low-res logits in fp32, relative to the largest
QUERIES = ("disc", "bright corner", "stripe")


@torch.no_grad()
def probe(model: CoresModel, processor: CoresProcessor, seed: int = 0) -> list[Tensor]:
    """Low-res logits (masks, h, w) of each level: three given answers about a drawn picture."""
    asker = Asker(model, processor, seed)
    queries: list[Query] = [(query, "phrase") for query in QUERIES]
    answered = asker.teacher_force(asker.encode_image(drawn_picture()), queries, [None] * len(queries))
    return [torch.cat(level).float().cpu() for level in zip(*(a.low_res_logits for a in answered), strict=True)]


def refuse_silent(where: object, names: Sequence[str], levels: Sequence[Tensor]) -> None:
    """Raise CheckpointError when a level's logits (masks, h, w) are no masks: not finite, or the same everywhere."""
    for name, logits in zip(names, levels, strict=True):
        if not bool(logits.isfinite().all()):
            raise CheckpointError(f"{where}: the {name} mask of a given answer is NaN: weights or config are broken")
        if any(bool((mask == mask.flatten()[0]).all()) for mask in logits):
            raise CheckpointError(
                f"{where}: the {name} mask of a given answer is the same everywhere: the segmenter does not see"
            )


def drawn_picture(height: int = 96, width: int = 128) -> Image.Image:
    """A disc and a stripe on a slope of brightness: the same picture everywhere, from no file. Sizes in pixels."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], axis=-1).astype(np.uint8)
    pixels[(x - width // 3) ** 2 + (y - height // 2) ** 2 < (height // 4) ** 2] = (220, 60, 40)
    pixels[:, width * 3 // 4 : width * 3 // 4 + 8] = (30, 60, 200)
    return Image.fromarray(pixels)


def largest_difference(one: Sequence[Tensor], two: Sequence[Tensor]) -> float:
    """The largest difference of two lists of tensors, pair by pair of one shape; nan where one has it.

    Each is relative to the largest number of the first of the two.
    """
    found = [(a - b).abs().max() / a.abs().max().clamp(min=1e-12) for a, b in zip(one, two, strict=True)]
    return float(torch.stack(found).max())


def smallest_iou(one: Sequence[Tensor], two: Sequence[Tensor]) -> float:
    """The smallest IoU of two lists of logits (masks, h, w), cut at 0; two empty masks count 1, NaN counts 0."""
    found = []
    for a, b in zip(one, two, strict=True):
        union = ((a > 0) | (b > 0)).flatten(1).sum(1)
        same = ((a > 0) & (b > 0)).flatten(1).sum(1)
        known = (a.isfinite() & b.isfinite()).flatten(1).all(1)
        found.append(torch.where(union > 0, same / union.clamp(min=1), 1.0).where(known, 0.0).min())
    return float(torch.stack(found).min())
