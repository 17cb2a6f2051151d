"""One's own data in COCO's form: `coco:PATH`, an instances file with polygons or run lengths.

Annotations with a text are asked by it, each on its own; every class with annotations that have none is asked by its
name, for all of it in the image together. Pictures are looked for beside the file and below the data directory.
"""

import posixpath
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from cores.data.formats.coco_json import CocoFile, Id, read_coco, size_of, stated_size
from cores.data.formats.json_files import check, clipped, short, texts
from cores.data.formats.names import as_asked
from cores.data.formats.picture_headers import Header, read_header
from cores.data.formats.segmentation_field import check_segmentation, lost_mask, read_segmentation, union
from cores.data.index import Row, open_index
from cores.data.record import Question, Record
from cores.data.sample import Form, Target
from cores.data.sources.base import FileSource, is_file, locate, named_file
from cores.errors import DataError
from cores.prompts.forms import form_of

TEXTS = ("text", "query", "caption")  # where an annotation says what to ask; the first that is there
Members = list[tuple[Id, Any]]  # annotations: their ids and segmentations
Asked = tuple[str, str, Form, Members]  # a question: its text, its class, its form, what it asks for


class Coco(FileSource):
    """One item an image of the file.

    Raises DataError when the file cannot be used or has no images, and when its first picture is not found.
    """

    def __init__(self, name: str, path: Path, root: Path) -> None:
        super().__init__(name, path.stem, root)
        self.path = path
        self.index = open_index("coco", [path], partial(_rows, path))
        self.images = self._find_images()

    def _find_images(self) -> Path:
        """The folder below which the first picture lies."""
        if not len(self.index):
            raise DataError(f"{self.path}: images: is empty, expected at least one")
        beside, first = self.path.parent, self.index.image(0)
        places = (beside, beside / "images", beside.parent, beside.parent / "images", self.root, self.root / "coco")
        for place in places:
            if is_file(named_file(place, first)):
                return place
        looked = ", ".join(dict.fromkeys(map(str, places)))
        raise DataError(f"{self.path}: its first picture, {clipped(first)}, is in none of {looked}")

    def __len__(self) -> int:
        return len(self.index)

    def read_record(self, i: int) -> Record:
        """The record of image i. Raises DataError for an annotation without a mask, too: it cannot mean an absence."""
        row = self.index[i]
        (path,) = self.files(i)
        header = read_header(path)
        size = stated_size(row.record["size"], header, self.path)
        questions = []
        for text, category, form, members in row.record["questions"]:
            self._check(members, size, header)
            find = partial(self._targets, members, size, header)
            questions.append(Question(text, find, form, category=category))
        meta = {"source": self.name, "name": row.image}
        return Record(header.path, header.size, self.split, tuple(questions), meta=meta)

    def _check(self, members: Members, size: tuple[int, int] | None, header: Header) -> None:
        """Every annotation has a mask, at a place in the picture: an absence is not what this format can say."""
        for number, value in members:
            if value:
                check_segmentation(value, size, header, f"{self.path}: annotation {number}")
        if (lost := lost_mask(members, self.path)) is not None:
            raise DataError(lost)

    def _targets(self, members: Members, size: tuple[int, int] | None, header: Header) -> tuple[Target, ...]:
        found = [read_segmentation(v, size, header, f"{self.path}: annotation {number}") for number, v in members]
        rle = union([part for part in found if part is not None], header.size)
        return () if rle is None else (Target(rle),)

    def files(self, i: int) -> tuple[Path, ...]:
        return (named_file(self.images, self.index.image(i)),)


def _rows(path: Path) -> Iterator[Row]:
    """One row a picture: its questions as [text, category, form, [[annotation, segmentation], ...]].

    A picture that stands under several ids is one all the same.
    """
    coco = read_coco(path)
    pictures: dict[str, tuple[str, list[int] | None, list[dict[str, Any]]]] = {}
    for image, annotations in coco.by_image():
        size, name = size_of(image, f"{path}: image {clipped(image['id'])}"), str(image["file_name"])
        known, before, members = pictures.setdefault(posixpath.normpath(name.replace("\\", "/")), (name, size, []))
        if before != size:
            raise DataError(f"{path}: {clipped(known)}: stands under two ids, with the sizes {before} and {size}")
        members += annotations
    for name, size, annotations in pictures.values():
        yield Row(name, "", {"size": size, "questions": _questions(coco, annotations)})


def _questions(coco: CocoFile, annotations: list[dict[str, Any]]) -> list[Asked]:
    """Texts in the order of annotations, then classes that have annotations without one, all of the class together.

    Names that differ in case or blanks alone are one class, called as the first of them.
    """
    asked: list[Asked] = []
    classes: dict[str, tuple[str, Members]] = {}
    silent: set[str] = set()
    for annotation in annotations:
        category, member = coco.category(annotation), (annotation["id"], annotation.get("segmentation"))
        name = as_asked(category, coco.where(annotation))
        classes.setdefault(name, (category, []))[1].append(member)
        said = _texts(annotation, coco.where(annotation))
        asked += [(text, category, form_of(text), [member]) for text in said]
        if not said:
            silent.add(name)
    return asked + [
        (name, category, "phrase", members) for name, (category, members) in classes.items() if name in silent
    ]


def _texts(annotation: dict[str, Any], where: str) -> list[str]:
    """What an annotation is asked by; none when it does not say."""
    for key in TEXTS:
        if (value := annotation.get(key)) is not None:
            return texts([value] if isinstance(value, str) else check(value, list, where), f"{where}: {key}")
    return []


def open_coco(path: str, data_dir: Path | None, name: str) -> Coco:
    """Open `coco:PATH`, a file of one's own. Raises DataError when it cannot be used."""
    found, root = locate(path, data_dir)
    if not is_file(found):
        raise DataError(f"{name}: there is no file {short(str(found))}")
    return Coco(name, found, root)
