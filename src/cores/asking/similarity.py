"""What a grounding token looks at: how like its state is to the state of each of the picture's patches.

Cosine similarity in the language model's last layer, of the state that predicts the token with the state at each of
the picture's places.

Legend: rows, columns = of patches; H, W = the picture's own size in pixels.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cores.errors import UserError
from cores.geometry import Size
from cores.processing.stored import SQUARE, ProcessorSizes


@dataclass(frozen=True, slots=True, eq=False)
class SimilarityMap:
    """`values` (rows, columns) float32, -1 to 1. `box` (left, top, right, bottom): what of the picture the patches
    cover, in its pixels, beyond its borders where it was made square. `size` (H, W)."""

    values: NDArray[np.float32]
    box: tuple[int, int, int, int]
    size: Size

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, to two decimals; `of_dict` reads it."""
        return {
            "values": [[round(float(v), 2) for v in row] for row in self.values],
            "box": self.box,
            "size": self.size,
        }

    @classmethod
    def of_dict(cls, found: dict[str, Any]) -> "SimilarityMap":
        """What `to_dict` gave, also after JSON."""
        height, width = found["size"]
        return cls(np.array(found["values"], dtype=np.float32), tuple(found["box"]), (height, width))

    def at_size(self) -> NDArray[np.float32]:
        """(H, W) float32, bilinear; nan where the language model saw nothing of the picture."""
        left, top, right, bottom = self.box
        square = torch.from_numpy(self.values)[None, None]
        whole = F.interpolate(square, size=(bottom - top, right - left), mode="bilinear")[0, 0].numpy()
        found = np.full(self.size, np.nan, dtype=np.float32)
        height, width = self.size
        inside = whole[max(0, -top) : height - top, max(0, -left) : width - left]
        found[max(0, top) : max(0, top) + len(inside), max(0, left) : max(0, left) + inside.shape[1]] = inside
        return found


def similarity_map(state: Tensor, patches: Tensor, sizes: ProcessorSizes, size: Size) -> SimilarityMap:
    """Of one grounding token.

    Args: `state` (width,) that predicts it; `patches` (places, width), the states of the picture's places; `sizes`:
    how the picture is seen; `size` (H, W) of the picture.
    Raises UserError where the picture's places are not one square of patches.
    """
    side = math.isqrt(len(patches))
    if sizes.pixel_rule != SQUARE or side * side != len(patches):
        raise UserError(
            f"similarity: {sizes.pixel_rule} lays a picture out in pieces, not in one square of patches: take "
            "a LLaVA v1 or 1.5"
        )
    values = F.cosine_similarity(state[None].float(), patches.float(), dim=1)
    length = max(size) if sizes.clip_fit == "pad" else min(size)
    top, left = ((of - length) // 2 for of in size)
    grid = values.reshape(side, side).cpu().numpy()
    return SimilarityMap(grid, (left, top, left + length, top + length), size)
