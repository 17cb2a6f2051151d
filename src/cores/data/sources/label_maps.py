"""Label maps, a class in every pixel: ADE20K, COCO-Stuff, Mapillary Vistas 2.0.

An image is asked every class in it, in the order of the class list; the target is all of that class. Pixels without a
class, and in COCO-Stuff those of classes with a hyphen in their name, are ignored.

Legend: h, w = height and width of the picture in pixels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cores import masks
from cores.data.formats.json_files import read_json, take
from cores.data.formats.names import is_blank
from cores.data.formats.picture_headers import Header, read_header, read_values
from cores.data.index import Row, open_index
from cores.data.record import Question, Record
from cores.data.sample import Target
from cores.data.sources.base import FileSource, folder, needs
from cores.errors import DataError

IGNORE = 255


@dataclass(frozen=True, slots=True)
class Layout:
    """Where one such set lies, and how its pixels are read.

    `first`: the pixel value of class 0; those before it have no class. `classes`: their names, from the data
    directory; `drops_hyphens`: those with a hyphen in their name are ignored.
    """

    images: Path
    labels: Path
    classes: Callable[[Path], tuple[str, ...]]
    first: int = 0
    drops_hyphens: bool = False


@cache
def class_list(name: str) -> tuple[str, ...]:
    """The names of a class list that comes with cores, by class. Lines with # say where it is from."""
    text = (resources.files("cores.data") / "classes" / f"{name}.txt").read_text("utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))


def ade20k_classes(data_dir: Path) -> tuple[str, ...]:
    """The list that comes with cores; nothing of the directory is read."""
    return class_list("ade20k")


def cocostuff_classes(data_dir: Path) -> tuple[str, ...]:
    """The list that comes with cores; nothing of the directory is read."""
    return class_list("cocostuff")


def mapillary_classes(data_dir: Path) -> tuple[str, ...]:
    """The readable names of Mapillary's own configuration. Raises DataError when it cannot be used."""
    path = data_dir / "mapillary" / "config_v2.0.json"
    labels = take(read_json(path), "labels", list, path)
    names = tuple(take(label, "readable", str, f"{path}: label {number}") for number, label in enumerate(labels))
    for number, name in enumerate(names):
        if is_blank(name):
            raise DataError(f"{path}: label {number}: readable: is blank, expected what the class is called")
    return names


LAYOUTS = {
    "ade20k": Layout(
        images=Path("ade20k", "images", "training"),
        labels=Path("ade20k", "annotations", "training"),
        classes=ade20k_classes,
        first=1,
    ),
    "cocostuff": Layout(
        images=Path("coco", "train2017"),
        labels=Path("cocostuff", "train2017"),
        classes=cocostuff_classes,
        drops_hyphens=True,
    ),
    "mapillary": Layout(
        images=Path("mapillary", "training", "images"),
        labels=Path("mapillary", "training", "v2.0", "labels"),
        classes=mapillary_classes,
    ),
}


class LabelMaps(FileSource):
    """Pictures x.jpg with label maps x.png. What is there is told by the label maps.

    Raises DataError when a folder or Mapillary's configuration is not there or cannot be used.
    """

    def __init__(self, name: str, layout: Layout, data_dir: Path) -> None:
        super().__init__(name, "train", data_dir)
        self.layout = layout
        self.images, self.labels = (folder(data_dir / part, name) for part in (layout.images, layout.labels))
        self.classes = layout.classes(data_dir)
        self.index = open_index("label maps, none hidden", [self.labels], partial(_rows, self.labels))

    def __len__(self) -> int:
        return len(self.index)

    def read_record(self, i: int) -> Record:
        """The record of image i; its whole label map is decoded. Raises DataError when a file cannot be used."""
        image, path = self.files(i)
        header = read_header(image)
        labels, found = self.read_labels(path, header)
        ignored = labels == IGNORE
        questions = []
        for value in found:
            name = self.classes[value]
            questions.append(Question(name.lower(), partial(_targets, labels, value), category=name))
        return Record(
            image=image,
            size=header.size,
            split=self.split,
            questions=tuple(questions),
            ignore=masks.encode(ignored) if ignored.any() else None,
            meta={"source": self.name, "name": image.name},
        )

    def look(self, i: int) -> None:
        """Only the sizes in both headers are compared. Raises DataError when they differ or a file cannot be used."""
        image, labels = self.files(i)
        read_header(image).turn(read_header(labels).stored, f"the label map {labels}")

    def read_labels(self, path: Path, header: Header) -> tuple[NDArray[np.uint8], list[int]]:
        """Classes (h, w) of the rotated picture, 255 where there is none, and which there are.

        Raises DataError when the map cannot be read, is of another size, or has values beyond the classes.
        """
        values = header.upright(read_values(path), f"the label map {path}")
        there = np.flatnonzero(np.bincount(values.ravel(), minlength=1 + IGNORE))
        count, first = len(self.classes), self.layout.first
        wrong = [value for value in there if value >= first + count and value != IGNORE]
        if wrong:
            raise DataError(f"{path}: has the values {', '.join(map(str, wrong[:5]))}, but there are {count} classes")
        meaning = np.full(1 + IGNORE, IGNORE, np.uint8)  # of each pixel value
        drops = self.layout.drops_hyphens
        kept = [number for number, name in enumerate(self.classes) if not (drops and "-" in name)]
        meaning[[first + number for number in kept]] = kept
        return meaning[values], sorted(int(meaning[value]) for value in there if meaning[value] != IGNORE)

    def files(self, i: int) -> tuple[Path, ...]:
        stem = self.index.image(i)
        return self.images / f"{stem}.jpg", self.labels / f"{stem}.png"


def _targets(labels: NDArray[np.uint8], value: int) -> tuple[Target, ...]:
    return (Target(masks.encode(labels == value)),)


def _rows(labels: Path) -> Iterator[Row]:
    for path in sorted(labels.glob("*.png")):
        if not path.name.startswith("."):  # what a Mac puts beside a file on a foreign disk
            yield Row(path.stem, "train", None)


def open_label_maps(parts: list[str], data_dir: Path | None, name: str) -> LabelMaps:
    """Open `ade20k`, `cocostuff` or `mapillary`, optionally with `|train`: there is no other split.

    Raises DataError for another split, and when its folders are not there or cannot be used.
    """
    if parts not in ([], ["train"]):
        raise DataError(f"{name}: has only the split train")
    return LabelMaps(name, LAYOUTS[name.partition("|")[0]], needs(data_dir, name))
