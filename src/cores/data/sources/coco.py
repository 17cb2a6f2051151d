"""One's own data in COCO's form: `coco:PATH`, an instances file with polygons or run lengths.

Annotations with a text are asked by it, each on its own; in a file without any text, every class in an image is asked
by its name, for all of it together. Pictures are looked for beside the file and below the data directory.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from cores.data.formats.coco_json import read_coco, size_of, stated_size
from cores.data.formats.json_files import check, short, texts
from cores.data.formats.picture_headers import Header, read_header
from cores.data.formats.segmentation_field import read_segmentation, union
from cores.data.index import Row, open_index
from cores.data.record import Question, Record
from cores.data.sample import Target
from cores.data.sources.base import FileSource, locate
from cores.errors import DataError
from cores.prompts.forms import form_of

TEXTS = ("text", "query", "caption")  # where an annotation says what to ask; the first that is there


class Coco(FileSource):
    """One item an image of the file."""

    def __init__(self, name: str, path: Path, root: Path) -> None:
        super().__init__(name, path.stem, root)
        self.path = path
        self.index = open_index("coco", [path], partial(_rows, path))
        self.images = self._find_images()

    def _find_images(self) -> Path:
        """The folder below which the first picture lies."""
        beside = self.path.parent
        places = (beside, beside / "images", beside.parent, beside.parent / "images", self.root, self.root / "coco")
        for place in places if len(self.index) else places[:1]:
            if not len(self.index) or (place / self.index.image(0)).is_file():
                return place
        looked = ", ".join(dict.fromkeys(map(str, places)))
        raise DataError(f"{self.path}: its first picture, {self.index.image(0)}, is in none of {looked}")

    def __len__(self) -> int:
        return len(self.index)

    def read_record(self, i: int) -> Record:
        row = self.index[i]
        header = read_header(self.images / row.image)
        size = stated_size(row.record["size"], header, self.path)
        questions = []
        for text, category, members in row.record["questions"]:
            find = partial(self._targets, members, size, header)
            questions.append(Question(text, find, form_of(text), category=category))
        meta = {"source": self.name, "name": row.image}
        return Record(header.path, header.size, self.split, tuple(questions), meta=meta)

    def _targets(
        self, members: list[tuple[int, Any]], size: tuple[int, int] | None, header: Header
    ) -> tuple[Target, ...]:
        found = [read_segmentation(v, size, header, f"{self.path}: annotation {number}") for number, v in members]
        rle = union([part for part in found if part is not None], header.size)
        return () if rle is None else (Target(rle),)

    def files(self, i: int) -> tuple[Path, ...]:
        return (self.images / self.index.image(i),)


def _rows(path: Path) -> Iterator[Row]:
    """One row an image: its questions as [text, category, [[annotation, segmentation], ...]]."""
    coco = read_coco(path)
    named = any(key in annotation for annotation in coco.annotations.values() for key in TEXTS)
    for image, annotations in coco.by_image():
        questions: list[tuple[str, str, list[Any]]] = []
        classes: dict[str, list[Any]] = {}
        for annotation in annotations:
            category, member = coco.category(annotation), (annotation["id"], annotation.get("segmentation"))
            classes.setdefault(category, []).append(member)
            questions += [(text, category, [member]) for text in _texts(annotation, path)]
        if not named:
            questions = [(category.lower(), category, members) for category, members in classes.items()]
        size = size_of(image, f"{path}: image {image['id']}")
        yield Row(image["file_name"], "", {"size": size, "questions": questions})


def _texts(annotation: dict[str, Any], path: Path) -> list[str]:
    where = f"{path}: annotation {annotation['id']}"
    for key in TEXTS:
        if (value := annotation.get(key)) is not None:
            return texts([value] if isinstance(value, str) else check(value, list, where), f"{where}: {key}")
    return []


def open_coco(path: str, data_dir: Path | None, name: str) -> Coco:
    """`coco:PATH`. Raises DataError."""
    found, root = locate(path, data_dir)
    if not found.is_file():
        raise DataError(f"{name}: there is no file {short(str(found))}")
    return Coco(name, found, root)
