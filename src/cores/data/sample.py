"""What every source makes and everything else takes: one image and its questions.

A source knows its files; nothing after the sample knows which data set it came from.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cores.errors import DataError
from cores.masks import RLE


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to segment: one chain of the answer.

    `mask`: run lengths at the picture's size. `location`: the same for the place where it stands, when known.
    `phrase`: the words that name it, when known.
    """

    mask: RLE
    location: RLE | None = None
    phrase: str | None = None


Form = Literal["phrase", "sentence", "explain", "raw"]


@dataclass(frozen=True, slots=True)
class Turn:
    """A query and, when the data set wrote one, its answer. `targets` are in the answer's order; none is text only.

    `form`: how the query is put into words. `phrase`: a name, into a question about it; `sentence`: a whole question,
    which gets a request for a mask behind it; `explain`: a sentence whose `answer` is the explanation, said after the
    mask; `raw`: as it stands. Without targets and without an answer the thing asked for is not there.
    """

    query: str
    answer: str | None = None
    targets: tuple[Target, ...] = ()
    form: Form = "phrase"


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns that see each other, causally. Two conversations about one image never do."""

    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Raster:
    """A decoded picture as an array, upright: `values` (rows, columns, 3), uint8, red first.

    `size`: (h, w) of its file, upright. A draft has whole-number times fewer rows and columns than that.
    """

    values: NDArray[np.uint8]
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Sample:
    """One image and its questions.

    `image`: a file, or a picture where there is no file. `size`: (h, w) in pixels of the picture *after* EXIF
    rotation; so are all masks. `ignore`: pixels that neither train nor score. `meta`: where it came from, for reports
    only. `raster`: the picture as training reads it quickly, where it does.

    Raises DataError when a mask is of another size than the picture.
    """

    image: Path | Image.Image
    size: tuple[int, int]
    conversations: tuple[Conversation, ...]
    ignore: RLE | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    raster: Raster | None = None

    @property
    def name(self) -> str:
        """What an error calls it: its file, or what its source calls it."""
        return str(self.image) if isinstance(self.image, Path) else str(self.meta.get("name", "a picture"))

    def __post_init__(self) -> None:
        masks = [] if self.ignore is None else [("ignore", self.ignore)]
        for conversation in self.conversations:
            for turn in conversation.turns:
                for target in turn.targets:
                    masks.append((f"target of {turn.query!r}", target.mask))
                    if target.location is not None:
                        masks.append((f"location of {turn.query!r}", target.location))
        wrong = [f"{name}: {tuple(rle['size'])}" for name, rle in masks if tuple(rle["size"]) != self.size]
        if wrong:
            raise DataError(f"{self.image}: the picture is {self.size} (h, w), but {'; '.join(wrong)}")
