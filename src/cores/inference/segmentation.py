"""What an answer is, as plain values: no tensors, nothing that needs the model. Results compare by value.

Legend: H, W = the picture's own size in pixels; h, w = low-res logits.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cores import masks, viz
from cores.geometry import Fit, Size, restore_bands
from cores.inference.exports import to_labelme, to_pandas, to_supervision
from cores.inference.exports.files import KINDS, SUFFIXES, save_file, save_set
from cores.inference.exports.pictures import LONGEST, as_html, captioned, plot
from cores.inference.picturelike import Picturelike
from cores.inference.traces import Trace, found_again, trace_of
from cores.masks import RLE, Mask
from cores.outlines import Box, Piece, Polygon, box_of, pieces_of, polygons_of
from cores.plain_json import without_nan
from cores.processing.reading import Status

if TYPE_CHECKING:
    from pandas import DataFrame
    from supervision import Detections


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
    the last; None where it has no name. `confidence`: how good the mask is, 0 to 1 (docs/confidence.md): the IoU to be
    expected, where the checkpoint was fitted for it.
    """

    phrase: str
    levels: tuple[Level, ...]
    named: bool = False
    span: tuple[int, int] | None = None
    confidence: float = 0.0

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
        """The outer outline of each piece of the mask, (points, 2) of x, y in whole pixels; `pieces` has the holes."""
        return polygons_of(self.mask)

    @property
    def pieces(self) -> list[Piece]:
        """Each piece of the mask: its outline, and the outlines of its holes (see `pieces_of`)."""
        return pieces_of(self.mask)

    def __repr__(self) -> str:
        return f"TargetMask({_short(self.phrase)!r}, score {self.score:.3f}, {_area(self.rle)})"


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Segmentation:
    """The answer to one query.

    `answer`: the model's sentence, with the checkpoint's own token strings; `text`: the same without them. `status`:
    `segmented`, it named at least one target, even if its mask is empty; `absent`, it says that there is no such
    thing; `text`, any other answer without a mask. `size` (H, W). `targets`: in the answer's order. `score`: mean log
    probability of the answer's `tokens`, at most 0. `cut`: the answer reached `max_new_tokens` before it ended.
    `refusal`: how probable it is that nothing there is what was asked for (docs/confidence.md). `thought`: the free
    reasoning before the answer, where it was asked for (`think`).
    `trace`: where its picture may be found again. The picture itself is not kept, nor is the trace compared or
    pickled: results stay small, equal by what they say, and tell nobody where somebody's pictures are.
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
    refusal: float = 0.0
    thought: str = ""
    trace: Trace | None = field(default=None, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "trace"}
        return _made, (values,)

    def about(self, picture: Picturelike) -> "Segmentation":
        """The same answer, which finds its picture again as long as somebody else has it: a file or an object."""
        return replace(self, trace=trace_of(picture))

    @property
    def picture(self) -> Image.Image | None:
        """The upright picture as it is now; None where it is not known, gone, or of another size by now."""
        return found_again(self.trace, self.size)

    @property
    def rle(self) -> RLE:
        """`mask` as compressed COCO run lengths."""
        return masks.union_rle([target.rle for target in self.targets], self.size)

    @property
    def mask(self) -> Mask:
        """(H, W) bool: the union of the targets, all False when there is none."""
        return masks.decode(self.rle)

    @property
    def colors(self) -> list[viz.Color]:
        """Each target's colour in `overlay`: one that the answer names has that of its name, in every picture."""
        return viz.colors_of([target.phrase if target.named else None for target in self.targets])

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

    def overlay(self, picture: Picturelike | None = None, longest: int = LONGEST) -> Image.Image:
        """The picture with each target in its colour, and query and answer below it.

        Without a picture it is this answer's own, or a plain ground where that is not known. A target that the answer
        names has the colour of its name, in every picture. A picture whose longer side has more than `longest` pixels
        is drawn at that size. Raises DataError when it is not of this answer's size or cannot be read, UserError when
        it is no picture at all.
        """
        return captioned(self, picture, longest)

    def plot(self, picture: Picturelike | None = None, axes: Any = None) -> Any:
        """Draw `overlay` on matplotlib's `axes`, or new ones, and give them.

        Where matplotlib is not installed Pillow's viewer shows it, and nothing is given. Raises as `overlay`.
        """
        return plot(self, picture, axes)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return as_html(self)

    def save(
        self,
        place: str | Path,
        name: str = "answer",
        picture: Picturelike | None = None,
        about: Mapping[str, Any] | None = None,
        kinds: Collection[str] = KINDS,
    ) -> list[Path]:
        """Write one file, by its suffix, or the answer's files into a folder; gives their paths.

        A picture's suffix writes `overlay`, .json `about` and `to_dict`, .npz `to_numpy` as `masks` with the
        `phrases`, .csv a row a target. Any other `place`, and a folder that is there, is a folder, made where there is
        none: of `kinds`, `json` writes NAME.json, `mask` the mask of each target N and level as NAME.N.LEVEL.png
        (white inside), `overlay`, given the picture, NAME.overlay.png. Files of these names are replaced.

        Raises DataError and UserError as `overlay`, OSError when a file cannot be written.
        """
        place = Path(place)
        if place.suffix.lower() in SUFFIXES and not place.is_dir():
            save_file(self, place, picture, about)
            return [place]
        return save_set(self, place, name, picture, about, kinds)

    def to_numpy(self) -> NDArray[np.bool_]:
        """(targets, H, W) bool: each target's mask."""
        stack = [target.mask for target in self.targets]
        return np.stack(stack) if stack else np.zeros((0, *self.size), dtype=bool)

    def to_pil(self) -> list[Image.Image]:
        """Each target's mask as a picture of mode 1, white inside."""
        return [Image.fromarray(target.mask) for target in self.targets]

    def to_labelme(self, picture: str, tolerance: float = 1.0) -> dict[str, Any]:
        """See `exports.to_labelme`, which takes several answers about a picture."""
        return to_labelme([self], picture, tolerance)

    def to_pandas(self) -> "DataFrame":
        """See `exports.to_pandas`, which takes several answers and pictures."""
        return to_pandas([self])

    def to_supervision(self, compact: bool = True) -> "Detections":
        """See `exports.to_supervision`, which takes several answers about a picture."""
        return to_supervision([self], compact)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the logits, ready for JSON.

        Masks are compressed COCO run lengths; a score that is no number is None.
        """
        targets = [
            {
                "phrase": target.phrase,
                "span": target.span,
                "confidence": target.confidence,
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
                "refusal": self.refusal,
                "size": self.size,
                "mask": self.rle,
                "targets": targets,
            }
            | ({"thought": self.thought} if self.thought else {})
        )
        return found


def _made(values: dict[str, Any]) -> Segmentation:
    return Segmentation(**values)


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _area(rle: RLE) -> str:
    height, width = rle["size"]
    return f"{masks.area(rle) / (height * width):.1%} of {height} x {width}"
