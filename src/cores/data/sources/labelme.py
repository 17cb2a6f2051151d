"""Folders of X.jpg + X.json with polygons, as ReasonSeg and labelme write them: `labelme:PATH`.

With a field `text` the file is ReasonSeg's: every text asks for the union of its shapes. Without it, as labelme itself
saves them, every label is asked for by name. Shapes labelled `flag` are dropped, those with `ignore` in their label
are neither target nor background.

Legend: h, w = height and width of the picture in pixels; points = vertices (x, y).
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cores import masks
from cores.data.formats.json_files import check, read_json, take, texts
from cores.data.formats.picture_headers import SUFFIXES, read_header
from cores.data.formats.polygons import paint, read_points
from cores.data.record import Question, Record
from cores.data.sample import Target
from cores.data.sources.base import FileSource, folder, locate
from cores.errors import DataError
from cores.prompts.forms import form_of

IGNORE = 255


@dataclass(frozen=True, slots=True)
class Pair:
    """A picture and its annotations; either is None when it is missing."""

    stem: str
    image: Path | None
    json: Path | None


@dataclass(frozen=True, slots=True)
class Shape:
    """A polygon (points, 2) with its label."""

    label: str
    points: NDArray[np.int32]


def pairs_in(path: Path) -> list[Pair]:
    """Pictures and annotations of a folder that share a name, sorted by it."""
    images: dict[str, Path] = {}
    jsons: dict[str, Path] = {}
    for file in sorted(path.iterdir()):
        if file.suffix.lower() == ".json":
            jsons[file.stem] = file
        elif file.suffix.lower() in SUFFIXES:
            images.setdefault(file.stem, file)
    return [Pair(stem, images.get(stem), jsons.get(stem)) for stem in sorted({**images, **jsons})]


def read_shapes(annotation: dict[str, Any], where: Path) -> list[Shape]:
    """The shapes that count, in the file's order: polygons, in labelme's own files also rectangles. Raises DataError.

    ReasonSeg's files are read as they always were: whatever the shape says it is, its points are a polygon.
    """
    found, own = [], "text" not in annotation
    for number, shape in enumerate(take(annotation, "shapes", list, where)):
        here = f"{where}: shape {number}"
        label = take(shape, "label", str, here)
        if label.lower() == "flag":
            continue
        points = read_points(take(shape, "points", list, here), f"{here}: points")
        kind = shape.get("shape_type", "polygon") if own else "polygon"
        if kind == "rectangle" and len(points) == 2:
            (left, top), (right, bottom) = points
            points = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.int32)
        elif kind != "polygon":
            raise DataError(f"{here}: is a {kind}; draw polygons or rectangles")
        found.append(Shape(label, points))
    return found


def painted(shapes: list[Shape], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A canvas (h, w): 0 background, 1 target, 255 ignored; large shapes lie under small ones, late under early."""
    areas = []
    for shape in shapes:
        alone = np.zeros(size, np.uint8)
        paint(alone, shape.points, 1)
        areas.append(int(alone.sum()))
    canvas = np.zeros(size, np.uint8)
    for number in sorted(range(len(shapes)), key=lambda n: (-areas[n], -n)):
        shape = shapes[number]
        paint(canvas, shape.points, IGNORE if "ignore" in shape.label.lower() else 1)
    return canvas


def read_pair(pair: Pair, split: str, meta: dict[str, Any]) -> Record:
    """The record of one picture. Raises DataError when either file is missing or cannot be used."""
    if pair.json is None or pair.image is None:
        there, missing = (pair.image, f"{pair.stem}.json") if pair.json is None else (pair.json, f"{pair.stem}.jpg")
        raise DataError(f"{there}: there is no {missing} beside it")
    header = read_header(pair.image)
    annotation = check(read_json(pair.json), dict, str(pair.json))
    shapes = read_shapes(annotation, pair.json)
    canvas = painted(shapes, header.size)
    if "text" in annotation:
        questions = _by_text(annotation, shapes, canvas, pair.json)
    else:
        questions = _by_label(shapes, header.size)
    ignored = canvas == IGNORE
    return Record(
        image=pair.image,
        size=header.size,
        split=split,
        questions=questions,
        ignore=masks.encode(ignored) if ignored.any() else None,
        meta=meta | {"name": pair.image.name},
    )


def _by_text(
    annotation: dict[str, Any], shapes: list[Shape], canvas: NDArray[np.uint8], where: Path
) -> tuple[Question, ...]:
    """Every text asks for all target shapes together; without target shapes, for something that is not there."""
    sentence = take(annotation, "is_sentence", bool, where)
    there = any("ignore" not in shape.label.lower() for shape in shapes)
    targets = (Target(masks.encode(canvas == 1)),) if there else ()
    return tuple(
        Question(text, lambda: targets, "sentence" if sentence else "phrase", is_sentence=sentence)
        for text in texts(annotation["text"], f"{where}: text")
    )


def _by_label(shapes: list[Shape], size: tuple[int, int]) -> tuple[Question, ...]:
    """Every label asks for its own shapes together."""
    labels = dict.fromkeys(shape.label for shape in shapes if "ignore" not in shape.label.lower())
    return tuple(
        Question(label.lower(), partial(_of_label, label, shapes, size), form_of(label), category=label)
        for label in labels
    )


def _of_label(label: str, shapes: list[Shape], size: tuple[int, int]) -> tuple[Target, ...]:
    wanted = [shape for shape in shapes if shape.label == label or "ignore" in shape.label.lower()]
    return (Target(masks.encode(painted(wanted, size) == 1)),)


class Labelme(FileSource):
    """A folder of one's own, or one of ReasonSeg's."""

    def __init__(self, name: str, path: Path, root: Path) -> None:
        super().__init__(name, path.name, root)
        self.path = folder(path, name)
        self.pairs = pairs_in(path)

    def __len__(self) -> int:
        return len(self.pairs)

    def read_record(self, i: int) -> Record:
        return read_pair(self.pairs[i], self.split, {"source": self.name})

    def files(self, i: int) -> tuple[Path, ...]:
        return files_of(self.pairs[i], self.path)


def files_of(pair: Pair, path: Path) -> tuple[Path, ...]:
    """Both files of a pair, under the names they should have."""
    return pair.image or path / f"{pair.stem}.jpg", pair.json or path / f"{pair.stem}.json"


def open_labelme(path: str, data_dir: Path | None, name: str) -> Labelme:
    """`labelme:PATH`. Raises DataError."""
    return Labelme(name, *locate(path, data_dir))
