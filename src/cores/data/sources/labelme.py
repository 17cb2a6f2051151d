"""Folders of pictures and labelme's JSON files: `labelme:PATH`.

With a field `text` in ReasonSeg's manner, every text asks for the union of the file's shapes. Without it, as labelme
itself saves them, every label is asked for by name. Shapes labelled `flag` are dropped, those with `ignore` in their
label are neither target nor background.

Legend: h, w = height and width of the picture in pixels.
"""

import base64
import binascii
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cores import masks
from cores.data.formats.coordinates import drawn_on
from cores.data.formats.json_files import check, maybe, read_json, short, take, texts
from cores.data.formats.labelme_shapes import IGNORE, Shape, painted, read_shapes
from cores.data.formats.names import as_asked, named_file
from cores.data.formats.picture_headers import SUFFIXES, Header, Size, read_header
from cores.data.record import Question, Record
from cores.data.sample import Form, Target
from cores.data.sources.base import FileSource, folder, locate, relative
from cores.errors import DataError
from cores.picture_errors import picture_errors
from cores.prompts.forms import form_of


@dataclass(frozen=True, slots=True)
class Pair:
    """A picture and its annotations; either is None when it is missing.

    `embedded`: the picture is in the JSON file, `image` the name that it would have. `fault`: why its picture is
    unknown.
    """

    stem: str
    image: Path | None
    json: Path | None
    embedded: bool = False
    fault: str = ""


def files_in(path: Path) -> tuple[dict[str, list[Path]], dict[str, Path]]:
    """Pictures and JSON files of a folder by their names without suffix; a second JSON file by its whole name."""
    images: dict[str, list[Path]] = {}
    jsons: dict[str, Path] = {}
    for file in sorted(path.iterdir()):
        if file.suffix.lower() == ".json":
            jsons[file.name if file.stem in jsons else file.stem] = file
        elif file.suffix.lower() in SUFFIXES:
            images.setdefault(file.stem, []).append(file)
    return images, jsons


def labelled(path: Path) -> list[Pair]:
    """The JSON files of a folder with their pictures, and pictures that no JSON file speaks of, by name."""
    images, jsons = files_in(path)
    pairs = {}
    for stem, json in jsons.items():
        beside = images.get(stem, [])
        try:
            annotation = read_annotation(json)
            image = picture_of(json, annotation, beside)
            pairs[stem] = Pair(stem, image or _embedded_name(json, annotation), json, embedded=image is None)
        except DataError as error:  # said when the item is read, which others need not
            pairs[stem] = Pair(stem, None, json, fault=str(error))
    named = {pair.image for pair in pairs.values()}
    for stem, beside in images.items():
        if stem not in jsons and not named.intersection(beside):
            pairs[stem] = Pair(stem, beside[0], None)
    return [pairs[stem] for stem in sorted(pairs)]


def read_annotation(path: Path) -> dict[str, Any]:
    """What a labelme file holds. Raises DataError."""
    return check(read_json(path), dict, str(path))


def picture_of(path: Path, annotation: dict[str, Any], beside: Sequence[Path]) -> Path | None:
    """The picture of a labelme file; None when it is in the file itself.

    `imagePath` decides: the file of that name, seen from the JSON file or beside it, or what it was converted to.
    Without it, the one picture of the JSON file's name. Args: `beside`: pictures of its name. Raises DataError.
    """
    named = maybe(annotation, "imagePath", str, path)
    if named:
        there = named_file(path.parent, named)
        for found in (there, path.parent / there.name):
            if os.path.isfile(found):
                return Path(os.path.normpath(found))
        beside = [image for image in beside if image.stem.lower() == there.stem.lower()]
    if len(beside) == 1:
        return beside[0]
    if annotation.get("imageData") is not None:
        return None
    if beside:
        names = " and ".join(image.name for image in beside)
        raise DataError(f"{path}: {names} lie beside it: name the picture in imagePath")
    if named:
        raise DataError(
            f"{path}: imagePath: there is no {short(named)}: put it there, or name the picture that was labelled"
        )
    raise DataError(f"{path}: there is no {path.stem}.jpg beside it")


def _embedded_name(path: Path, annotation: dict[str, Any]) -> Path:
    """The file that a picture inside a labelme file would be."""
    return path.parent / PurePath(named_file(path.parent, annotation.get("imagePath") or f"{path.stem}.jpg").name)


def _embedded(path: Path, annotation: dict[str, Any]) -> tuple[Image.Image, Header]:
    """The picture that is inside a labelme file, not yet decoded. Raises DataError."""
    where = f"{path}: imageData"
    try:
        content = base64.b64decode(take(annotation, "imageData", str, path), validate=True)
    except (binascii.Error, ValueError):
        raise DataError(f"{where}: is no base64, expected a picture in it") from None
    header = read_header(Path(where), content)
    with picture_errors(where):
        return Image.open(BytesIO(content)), header


def missing_partner(pair: Pair) -> DataError:
    """What is said about half a pair."""
    there, missing = (pair.image, f"{pair.stem}.json") if pair.json is None else (pair.json, f"{pair.stem}.jpg")
    return DataError(f"{there}: there is no {missing} beside it")


class Drawing:
    """Shapes on a picture. `size` (h, w): of what they are drawn on, which may have to be turned with the picture."""

    def __init__(self, shapes: list[Shape], size: Size, header: Header) -> None:
        self.shapes, self.size, self.header = shapes, size, header
        self.all = self.canvas(shapes)

    def canvas(self, shapes: list[Shape]) -> NDArray[np.uint8]:
        """These shapes painted, (h, w) of the upright picture."""
        return self.header.upright(painted(shapes, self.size), "the size of its shapes")

    def questions(self, annotation: dict[str, Any], where: Path) -> tuple[Question, ...]:
        """What the file asks: its texts, or its labels. Raises DataError."""
        return self._by_text(annotation, where) if "text" in annotation else self._by_label()

    def ignore(self) -> masks.RLE | None:
        """What neither trains nor scores."""
        ignored = self.all == IGNORE
        return masks.encode(ignored) if ignored.any() else None

    def _by_text(self, annotation: dict[str, Any], where: Path) -> tuple[Question, ...]:
        """Every text asks for all target shapes together; without target shapes, for something that is not there."""
        sentence = take(annotation, "is_sentence", bool, where)
        asked = texts(annotation["text"], f"{where}: text")
        if not asked:
            raise DataError(f"{where}: text: is empty, expected at least one")
        there = any(not shape.ignored for shape in self.shapes)
        targets = (Target(masks.encode(self.all == 1)),) if there else ()
        form: Form = "sentence" if sentence else "phrase"
        return tuple(Question(text, lambda: targets, form, is_sentence=sentence) for text in asked)

    def _by_label(self) -> tuple[Question, ...]:
        """Every label asks for its own shapes together, however it is written."""
        names: dict[str, str] = {}
        for shape in self.shapes:
            if not shape.ignored:
                names.setdefault(as_asked(shape.label, "label"), shape.label)
        return tuple(
            Question(name, partial(self._of, name), form_of(name), category=label) for name, label in names.items()
        )

    def _of(self, name: str) -> tuple[Target, ...]:
        wanted = [shape for shape in self.shapes if shape.ignored or as_asked(shape.label, "label") == name]
        return (Target(masks.encode(self.canvas(wanted) == 1)),)


class Labelme(FileSource):
    """A folder of one's own. One item an annotation file."""

    def __init__(self, name: str, path: Path, root: Path) -> None:
        super().__init__(name, path.name, root)
        self.path = folder(path, name)
        self.pairs = labelled(path)
        if not self.pairs:
            raise DataError(f"{name}: {path} holds no JSON file and no picture")
        self.owners: dict[Path, Path | None] = {}
        for pair in self.pairs:
            if pair.image is not None:
                self.owners.setdefault(pair.image, pair.json)

    def __len__(self) -> int:
        return len(self.pairs)

    def read_record(self, i: int) -> Record:
        pair = self.pairs[i]
        if pair.fault:
            raise DataError(pair.fault)
        if pair.json is None or pair.image is None:
            raise missing_partner(pair)
        if (owner := self.owners[pair.image]) != pair.json:
            raise DataError(
                f"{pair.json}: imagePath: {pair.image} is the picture of {owner} too: label it in one file"
            )
        annotation = read_annotation(pair.json)
        image, header = _embedded(pair.json, annotation) if pair.embedded else (pair.image, read_header(pair.image))
        height, width = (maybe(annotation, side, float, pair.json) for side in ("imageHeight", "imageWidth"))
        size = drawn_on(height, width, header, f"{pair.json}: imageHeight x imageWidth")
        drawing = Drawing(read_shapes(annotation, size, pair.json), size, header)
        questions = drawing.questions(annotation, pair.json)
        meta = {"source": self.name, "name": pair.image.name}
        return Record(image, header.size, self.split, questions, ignore=drawing.ignore(), meta=meta)

    def files(self, i: int) -> tuple[Path, ...]:
        pair = self.pairs[i]
        return (pair.json,) if pair.json and (pair.embedded or pair.fault) else files_of(pair, self.path)

    def place(self, i: int) -> tuple[str, str]:
        return relative(files_of(self.pairs[i], self.path)[0], self.root), self.split


def files_of(pair: Pair, path: Path) -> tuple[Path, ...]:
    """Both files of a pair, under the names they should have."""
    return pair.image or path / f"{pair.stem}.jpg", pair.json or path / f"{pair.stem}.json"


def open_labelme(path: str, data_dir: Path | None, name: str) -> Labelme:
    """`labelme:PATH`. Raises DataError."""
    return Labelme(name, *locate(path, data_dir))
