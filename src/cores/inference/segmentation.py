"""What an answer is, as plain values: no tensors, nothing that needs the model. Results compare by value.

Legend: H, W = the picture's own size in pixels; h, w = low-res logits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cores import masks, viz
from cores.errors import DataError
from cores.geometry import Fit, Size, restore_bands
from cores.inference.outlines import Box, Polygon, box_of, polygons_of
from cores.inference.picturelike import Picturelike, as_picture
from cores.masks import RLE, Mask
from cores.plain_json import dumps, without_nan
from cores.processing.pixels import open_picture
from cores.processing.reading import Status

LONGEST = 4096  # pixels of an overlay's longer side: more is drawn smaller


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Level:
    """One step of a chain.

    `name`: location, part or target. `rle`: compressed COCO run lengths of `mask`. `score`: mean probability of its
    pixels, from the threshold (0.5, unless it was asked for otherwise) to 1; 0 for an empty mask. `low_res` (h, w)
    float32: the decoder's own logits, over the square of side `canvas`, in pixels, that holds the picture at size
    `resized` (h, w), put there by `fit`.
    """

    name: str
    rle: RLE
    score: float
    low_res: NDArray[np.float32]
    canvas: int
    resized: Size
    fit: Fit

    @property
    def size(self) -> Size:
        """(H, W), the picture's own size."""
        height, width = self.rle["size"]
        return height, width

    @property
    def mask(self) -> Mask:
        """(H, W) bool, made when asked for, since many of them are large: `logits` > 0, unless it was asked for with
        another threshold, or with its holes filled."""
        return masks.decode(self.rle)

    @property
    def logits(self) -> NDArray[np.float32]:
        """(H, W) float32, at the picture's own size; made when asked for."""
        bands = restore_bands(torch.from_numpy(self.low_res), self.canvas, self.resized, self.size, self.fit)
        found: NDArray[np.float32] = np.concatenate([band.numpy() for band in bands])
        return found

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Level):
            return NotImplemented
        return self._values() == other._values() and np.array_equal(self.low_res, other.low_res)

    def __hash__(self) -> int:
        return hash(self._values())

    def _values(self) -> tuple[Any, ...]:
        return self.name, self.size, self.rle["counts"], self.score, self.canvas, self.resized, self.fit

    def __repr__(self) -> str:
        return f"Level({self.name}, score {self.score:.3f}, {_area(self.rle)})"


@dataclass(frozen=True, slots=True, repr=False)
class TargetMask:
    """One thing that was found. `phrase`: the words of the answer that name it, or, where it has none, what was asked.

    `levels`: in the chain's order; one that the answer left out is not there. The last is the target's own. `named`:
    did the answer name it? `span`: where its name stands in the answer's `text`, first character and the one behind
    the last; None where it has no name.
    """

    phrase: str
    levels: tuple[Level, ...]
    named: bool = False
    span: tuple[int, int] | None = None

    @property
    def rle(self) -> RLE:
        """The last level's, as compressed COCO run lengths."""
        return self.levels[-1].rle

    @property
    def mask(self) -> Mask:
        """(H, W) bool: the last level's."""
        return self.levels[-1].mask

    @property
    def score(self) -> float:
        """The last level's: mean probability of the mask's pixels, from 0.5 to 1; 0 for an empty mask."""
        return self.levels[-1].score

    @property
    def box(self) -> Box | None:
        """(left, top, right, bottom) in pixels, right and bottom just outside; None for an empty mask."""
        return box_of(self.rle)

    @property
    def polygons(self) -> list[Polygon]:
        """The outer outline of each piece of the mask, (points, 2) of x, y in whole pixels; holes are not in it."""
        return polygons_of(self.mask)

    def __repr__(self) -> str:
        return f"TargetMask({_short(self.phrase)!r}, score {self.score:.3f}, {_area(self.rle)})"


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Segmentation:
    """The answer to one query.

    `answer`: the model's sentence, with the checkpoint's own token strings; `text`: the same without them. `status`:
    `segmented`, it named at least one target, even if its mask is empty; `absent`, it says that there is no such
    thing; `text`, any other answer without a mask. `size` (H, W). `targets`: in the answer's order. `score`: mean log
    probability of the answer's `tokens`, at most 0. `cut`: the answer reached `max_new_tokens` before it ended.
    """

    query: str
    answer: str
    text: str
    status: Status
    size: Size
    targets: tuple[TargetMask, ...]
    score: float
    tokens: int
    cut: bool = False

    @property
    def rle(self) -> RLE:
        """`mask` as compressed COCO run lengths."""
        return masks.union_rle([target.rle for target in self.targets], self.size)

    @property
    def mask(self) -> Mask:
        """(H, W) bool: the union of the targets, all False when there is none."""
        return masks.decode(self.rle)

    @property
    def boxes(self) -> list[Box | None]:
        """Each target's `box`, in order."""
        return [target.box for target in self.targets]

    @property
    def polygons(self) -> list[list[Polygon]]:
        """Each target's `polygons`, in order."""
        return [target.polygons for target in self.targets]

    def __repr__(self) -> str:
        cut = ", cut" if self.cut else ""
        count = f"{len(self.targets)} target{'s' * (len(self.targets) > 1)}"
        found = f"{count}, {_area(self.rle)}" if self.targets else _short(self.text)
        return f"Segmentation({_short(self.query)!r}: {self.status}{cut}, {found})"

    def overlay(self, picture: Picturelike, longest: int = LONGEST) -> Image.Image:
        """The picture with each target in its colour, and query and answer below it.

        A target that the answer names has the colour of its name, in every picture. A picture whose longer side has
        more than `longest` pixels is drawn at that size. Raises DataError when it is not of this answer's size or
        cannot be read, UserError when it is no picture at all.
        """
        opened = open_picture(as_picture(picture))
        if (opened.height, opened.width) != self.size:
            found = f"the picture is {opened.height} x {opened.width} (h x w)"
            raise DataError(f"overlay: {found}, the answer is about one of {self.size[0]} x {self.size[1]}")
        if max(opened.size) > longest:
            opened, _ = viz.fit(opened, [], longest)
        colors = viz.colors_of([target.phrase if target.named else None for target in self.targets])
        drawn = viz.overlay(opened, (viz.fit_mask(target.mask, opened.size) for target in self.targets), colors)
        size = min(max(opened.width // 50, 12), 64)  # of the letters
        drawn = viz.caption(drawn, self.query, size)
        drawn = viz.caption(drawn, f"{self.answer} [cut]" if self.cut else self.answer, size)
        named = {target.phrase: color for target, color in zip(self.targets, colors, strict=True) if target.named}
        for phrase, color in named.items():
            drawn = viz.caption(drawn, phrase, size, color)
        return drawn

    def save(
        self,
        folder: str | Path,
        name: str = "answer",
        picture: Picturelike | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> list[Path]:
        """Write the answer's files into a folder, which is made where there is none; gives their paths.

        NAME.json (`about` and `to_dict`), the mask of each target N and level as NAME.N.LEVEL.png (white inside), and,
        given the picture, NAME.overlay.png. Files of these names are replaced. Raises DataError and UserError as
        `overlay`, OSError when a file cannot be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        if picture is not None:
            paths.append(folder / f"{name}.overlay.png")
            self.overlay(picture).save(paths[-1])
        for number, target in enumerate(self.targets, 1):
            for level in target.levels:
                paths.append(folder / f"{name}.{number}.{level.name}.png")
                Image.fromarray(level.mask).save(paths[-1])
        paths.append(folder / f"{name}.json")
        text = dumps({**(about or {}), **self.to_dict()}, indent=1, ensure_ascii=False)
        paths[-1].write_text(text + "\n", encoding="utf-8")
        return paths

    def to_dict(self) -> dict[str, Any]:
        """Everything but the logits, ready for JSON.

        Masks are compressed COCO run lengths; a score that is no number is None.
        """
        targets = [
            {
                "phrase": target.phrase,
                "span": target.span,
                "score": target.score,
                "box": target.box,
                "mask": target.rle,
                "levels": [{"name": level.name, "score": level.score, "mask": level.rle} for level in target.levels],
            }
            for target in self.targets
        ]
        found: dict[str, Any] = without_nan(
            {
                "query": self.query,
                "answer": self.answer,
                "text": self.text,
                "cut": self.cut,
                "status": self.status,
                "score": self.score,
                "size": self.size,
                "mask": self.rle,
                "targets": targets,
            }
        )
        return found


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _area(rle: RLE) -> str:
    height, width = rle["size"]
    return f"{masks.area(rle) / (height * width):.1%} of {height} x {width}"
