"""Where an answer's picture may be found again: known, but not kept."""

from pathlib import Path
from typing import Any
from weakref import ref

import numpy as np
from PIL import Image

from cores.errors import UserError
from cores.geometry import Size
from cores.inference.picturelike import Picturelike, as_picture
from cores.processing.pixels import open_picture

Trace = Path | ref[Any]  # a file, or an object as long as somebody else has it


def trace_of(image: Picturelike) -> Trace | None:
    """Where this picture may be found again, without keeping it: its path, or a weak reference to what was given.

    None for bytes and files, which nobody else holds or which are read by now.
    """
    if isinstance(image, (str, Path)):
        return Path(image).absolute()
    return ref(image) if isinstance(image, (Image.Image, np.ndarray)) else None


def found_again(trace: Trace | None, size: Size) -> Image.Image | None:
    """The upright picture, as it is now; None when it is gone, cannot be read, or is not of this `size` (h, w)."""
    image = trace() if isinstance(trace, ref) else trace
    if image is None:
        return None
    try:
        opened = open_picture(as_picture(image))
    except UserError:
        return None
    return opened if (opened.height, opened.width) == size else None
