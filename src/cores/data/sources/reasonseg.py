"""ReasonSeg: reason_seg/ReasonSeg/{train,val,test}/X.jpg + X.json, with explanations for some of train.

`ReasonSeg|train`, `val`, `test`, several joined by `_`; `explanatory`: the images of train that have an explanation;
`testshort`, `testlong`: the images of test whose texts are phrases, or sentences.
"""

from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Self

from cores.data.formats.json_files import check, read_json, take
from cores.data.formats.picture_headers import read_header
from cores.data.record import Record
from cores.data.sources.base import FileSource, folder, needs
from cores.data.sources.labelme import Pair, pairs_in, read_shapes
from cores.errors import DataError

FOLDER = Path("reason_seg", "ReasonSeg")
EXPLANATIONS = Path("explanatory", "train.json")
ENCODING = "cp1252"  # of files that are no UTF-8: some of the published ones
FILTERS = {"testshort": False, "testlong": True}


class ReasonSeg(FileSource):
    """Items in the order of splits and names. When evaluated, an image is asked its first text only."""

    def __init__(self, name: str, split: str, data_dir: Path) -> None:
        """Raises DataError when a split's folder is not there, or what lists its images cannot be read."""
        super().__init__(name, split, data_dir)
        self.first_only = False
        home = folder(data_dir / FOLDER, name)
        self.explanations = read_explanations(home / EXPLANATIONS)
        if split == "explanatory":
            self.items = [("train", pair) for pair in _pairs(home / "train", name) if self._explained(pair)]
        elif split in FILTERS and not (home / split).is_dir():
            wanted = "sentences" if FILTERS[split] else "phrases"
            self.note = f"{split} is the images of test whose texts are {wanted}"
            self.items = [("test", pair) for pair in _pairs(home / "test", name) if _kept(pair, FILTERS[split])]
        else:
            parts = [part for part in split.split("_") if part]
            if not parts:
                raise DataError(f"{name}: which split? Take ReasonSeg|train, val, test or several joined by _")
            self.items = [(part, pair) for part in parts for pair in _pairs(home / part, name)]
        self.home = home

    def __len__(self) -> int:
        return len(self.items)

    def read_record(self, i: int) -> Record:
        split, pair = self.items[i]
        record = read_pair(pair).of(split, {"source": self.name})
        if self.first_only:
            return record.first()
        explained = self.explanations.get(record.meta["name"], ()) if split == "train" else ()
        return replace(record, explanations=explained)

    def files(self, i: int) -> tuple[Path, ...]:
        split, pair = self.items[i]
        home = self.home / split
        return pair.images[0] if pair.images else home / f"{pair.stem}.jpg", pair.json or home / f"{pair.stem}.json"

    def place(self, i: int) -> tuple[str, str]:
        """The name of image i and its own split: several splits may be joined."""
        return super().place(i)[0], self.items[i][0]

    def for_evaluation(self) -> Self:
        """Only the first text of an image is asked, as the published figures are."""
        view = copy(self)
        view.first_only = True
        return view

    def problems(self) -> Iterator[tuple[Path, str]]:
        """Explanations of images that are not there: in the published file, some are of no image of train."""
        there = {pair.images[0].name for _, pair in self.items if pair.images}
        if self.split in ("train", "explanatory"):
            for name in self.explanations:
                if name not in there:
                    yield self.home / EXPLANATIONS, f"explains {name}, which is not in train"

    def _explained(self, pair: Pair) -> bool:
        return bool(pair.images) and pair.images[0].name in self.explanations


def _pairs(path: Path, name: str) -> list[Pair]:
    return pairs_in(folder(path, name))


def read_pair(pair: Pair) -> Record:
    """The record of one picture, read as the published programs do: points are a polygon, whatever a shape says it is.

    Raises DataError when either file is missing or cannot be used.
    """
    if pair.json is None or not pair.images:
        there, missing = (pair.images[0], f"{pair.stem}.json") if pair.images else (pair.json, f"{pair.stem}.jpg")
        raise DataError(f"{there}: there is no {missing} beside it")
    image = pair.images[0]
    annotation = check(read_json(pair.json, ENCODING), dict, str(pair.json))
    return read_shapes(annotation, image, read_header(image), pair.json, published=True).of("", {"name": image.name})


def _kept(pair: Pair, sentence: bool) -> bool:
    """Does a pair belong to a filtered split? One that cannot be read does: then it is reported, not lost."""
    if pair.json is None:
        return True
    try:
        return take(read_json(pair.json, ENCODING), "is_sentence", bool, pair.json) == sentence
    except DataError:
        return True


def read_explanations(path: Path) -> dict[str, tuple[str, ...]]:
    """Explanations by the image's file name; none when there is no such file. Raises DataError when it is unusable."""
    if not path.exists():
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for number, record in enumerate(check(read_json(path, ENCODING), list, str(path))):
        where = f"{path}: record {number}"
        image, text = take(record, "image", str, where), take(record, "outputs", str, where)
        found[image] = (*found.get(image, ()), text)
    return found


def open_reasonseg(splits: list[str], data_dir: Path | None, name: str) -> ReasonSeg:
    """Open `ReasonSeg|SPLIT`. Raises DataError when no or several splits are named, and when it cannot be used."""
    if len(splits) != 1:
        raise DataError(f"{name}: which split? Take ReasonSeg|train, val, test, train_val, testshort or explanatory")
    return ReasonSeg(name, splits[0], needs(data_dir, name))
