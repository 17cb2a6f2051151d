"""Large pictures read quickly, for training.

OpenCV decodes JPEGs to the pixels that Pillow makes, into an array that need not be copied before it is scaled. It
can also give a draft: a half, quarter or eighth of the rows and columns, in less time, with other greys at edges.
Other files, and JPEGs that it refuses or that were cut off, are left to Pillow, which says what is wrong.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from cores.data.sample import Raster
from cores.geometry import Size, resized_size
from cores.picture_errors import opened_picture
from cores.processing.pixels import open_picture
from cores.processing.stored import SQUARE, ProcessorSizes
from cores.segmenter_families import SEGMENTERS

KINDS, MODES = ("JPEG", "MPO"), ("RGB", "L")
END = b"\xff\xd9"  # of a JPEG that nobody cut off
AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
DRAFTS = {2: cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4, 8: cv2.IMREAD_REDUCED_GRAYSCALE_8}
SPARE = 1.5  # times as many rows and columns as are needed, at least, in a draft: see docs/train.md


@dataclass(frozen=True, slots=True)
class QuickReader:
    """Opens pictures for a processor of these sizes. `draft`: JPEGs may be decoded at fewer pixels than they have.

    There are no drafts for families whose language model sees a picture at its own resolution.
    """

    sizes: ProcessorSizes
    draft: bool = False

    def __call__(self, source: Path | Image.Image) -> Raster | Image.Image:
        """A raster of a picture that is larger than what is seen of it, else what `open_picture` gives.

        Raises DataError as `open_picture` does.
        """
        if isinstance(source, Path) and (found := self._jpeg(source)) is not None:
            return found
        image = open_picture(source)
        size = (image.height, image.width)
        return Raster(np.array(image), size) if self._spare(size) >= 1 else image

    def _jpeg(self, path: Path) -> Raster | None:
        """A large JPEG, decoded by OpenCV; None for everything else."""
        with opened_picture(path) as image:
            size = (image.height, image.width)
            if image.format not in KINDS or image.mode not in MODES or self._spare(size) < 1:
                return None
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            whole = END in path.read_bytes()[-64:]
        fewer = self._fewer(size)
        values = _decoded(path, (size[0] // fewer, size[1] // fewer), fewer) if whole else None
        if values is None:
            return None
        values = turned_upright(values, orientation)
        return Raster(values, (values.shape[0] * fewer, values.shape[1] * fewer))

    def _fewer(self, size: Size) -> int:
        """Of a picture (h, w), how many times fewer rows and columns do: without a rest, so that edges stay edges."""
        if not self.draft or self.sizes.pixel_rule != SQUARE:
            return 1
        spare = self._spare(size)
        return next((n for n in (8, 4, 2) if spare / n >= SPARE and not size[0] % n and not size[1] % n), 1)

    def _spare(self, size: Size) -> float:
        """How many times more rows and columns a picture (h, w) has than the segmenter and the language model see."""
        side = self.sizes.segmenter_image_size
        seen = resized_size(size, side, SEGMENTERS[self.sizes.segmenter].fit)
        spare = min(size[0] / seen[0], size[1] / seen[1])
        if self.sizes.pixel_rule != SQUARE:
            return spare
        longest = self.sizes.clip_fit == "pad"
        return min(spare, (max(size) if longest else min(size)) / self.sizes.mllm_image_size)


def _decoded(path: Path, size: Size, fewer: int) -> NDArray[np.uint8] | None:
    """A JPEG with so many times fewer rows and columns, (h, w, 3) as stored; None where OpenCV cannot.

    It is decoded in place: the pages of an array of its own take OpenCV as long again. But then OpenCV does not say
    whether it came to the end, so that the last row does: a picture that ends like it is Pillow's, too.
    """
    values = np.empty((*size, 3), np.uint8)
    values[-1].flat = unlikely = np.resize(np.array([1, 254, 85], np.uint8), values[-1].size)
    flags = AS_STORED if fewer == 1 else DRAFTS[fewer] | AS_STORED
    try:
        found = cv2.imread(str(path), values, flags)
    except (cv2.error, UnicodeError):
        return None
    whole = found is not None and np.shares_memory(found, values) and (values[-1].ravel() != unlikely).any()
    return values if whole else None


def turned_upright(values: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Pixels (rows, columns, 3) turned as EXIF's orientation says, if it is one of 1 to 8."""
    if orientation in (5, 6, 7, 8):
        values = cv2.transpose(values)  # type: ignore[assignment]
    down, right = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    if down or right:
        values = cv2.flip(values, -1 if down and right else 1 if right else 0)  # type: ignore[assignment]
    return values
