"""What an answer is, as plain values: no tensors, nothing that needs the model.

Legend: H, W = the picture's own size in pixels; h, w = low-res logits.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cores import masks, viz
from cores.geometry import Size, restore
from cores.masks import Mask

Status = Literal["segmented", "absent", "text"]


@dataclass(frozen=True, slots=True)
class Level:
    """One step of a chain.

    `name`: location, part or target. `mask` (H, W) bool = `logits` > 0. `score`: mean probability of the mask's
    pixels, from 0.5 to 1; 0 for an empty mask. `low_res` (h, w) float32: the decoder's own logits, over the square of
    side `canvas` that holds the picture at size `resized` (h, w) in its upper left corner.
    """

    name: str
    mask: Mask
    score: float
    low_res: NDArray[np.float32]
    canvas: int
    resized: Size

    @property
    def logits(self) -> NDArray[np.float32]:
        """(H, W) float32, at the picture's own size; made when asked for, since many of them are large."""
        low_res = torch.from_numpy(self.low_res)[None]
        found: NDArray[np.float32] = restore(low_res, self.canvas, self.resized, self.mask.shape)[0].numpy()
        return found


@dataclass(frozen=True, slots=True)
class TargetMask:
    """One thing that was found. `phrase`: the words of the answer that name it, when there are any.

    `levels`: in the chain's order; one that the answer left out is not there. The last is the target's own.
    """

    phrase: str | None
    levels: tuple[Level, ...]

    @property
    def mask(self) -> Mask:
        """(H, W) bool: the last level's."""
        return self.levels[-1].mask

    @property
    def score(self) -> float:
        """The last level's."""
        return self.levels[-1].score


@dataclass(frozen=True, slots=True)
class Segmentation:
    """The answer to one query.

    `answer`: the model's sentence, with the checkpoint's own token strings. `status`: `segmented`, it named at least
    one target, even if its mask is empty; `absent`, it says that there is no such thing; `text`, any other answer
    without a mask. `mask` (H, W) bool: the union of the targets, all False when there is none. `targets`: in the
    answer's order. `score`: mean log probability of the answer's tokens, at most 0.
    """

    query: str
    answer: str
    status: Status
    mask: Mask
    targets: tuple[TargetMask, ...]
    score: float

    def overlay(self, picture: Image.Image) -> Image.Image:
        """The picture (W, H, after EXIF rotation) with each target in its own colour."""
        return viz.overlay(picture, [target.mask for target in self.targets])

    def to_dict(self) -> dict[str, Any]:
        """Everything but the logits, ready for JSON; masks as compressed COCO run lengths."""
        targets = [
            {
                "phrase": target.phrase,
                "score": target.score,
                "mask": masks.encode(target.mask),
                "levels": [
                    {"name": level.name, "score": level.score, "mask": masks.encode(level.mask)}
                    for level in target.levels
                ],
            }
            for target in self.targets
        ]
        return {
            "query": self.query,
            "answer": self.answer,
            "status": self.status,
            "score": self.score,
            "mask": masks.encode(self.mask),
            "targets": targets,
        }
