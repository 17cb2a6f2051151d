"""Objects and their parts: PACO-LVIS, PASCAL-Part, PartImageNet, and `seg_part`, which asks for them in sentences.

In PACO and PASCAL-Part every annotation is a question of its own; in PartImageNet every class is, for all of its
annotations together. A part is asked for as "obj part", in training also as "the part of the obj".
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from cores.data.formats.coco_json import Id, read_coco, size_of, stated_size
from cores.data.formats.json_files import check, clipped, read_json
from cores.data.formats.names import as_asked, is_blank
from cores.data.formats.picture_headers import Header, read_header
from cores.data.formats.segmentation_field import lost_mask, read_segmentation, union
from cores.data.index import Row, open_index
from cores.data.record import Question, Record
from cores.data.sample import Target
from cores.data.sources.base import FileSource, needs
from cores.errors import DataError

log = logging.getLogger(__name__)


class Thing(NamedTuple):
    """An object, or a part of it."""

    object: str
    part: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What it is called, as questions and reason.json call it first."""
        if self.part is None:
            return (self.object,)
        return f"{self.object} {self.part}", f"the {self.part} of the {self.object}"


def paco_thing(category: str) -> Thing:
    """`car_(automobile):antenna` is the antenna of a car; the underscores of other names stay."""
    whole, _, part = category.strip().partition(":")
    return Thing(whole.split("_(")[0], part.split("_(")[0] or None)


def pascal_thing(category: str) -> Thing:
    """`bus:license plate` is the license plate of a bus."""
    whole, _, part = category.strip().partition(":")
    return Thing(whole, part or None)


def part_imagenet_thing(category: str) -> Thing:
    """`Car Side Mirror` is the side mirror of a car."""
    whole, _, part = category.strip().partition(" ")
    return Thing(whole, part or None)


def part_imagenet_image(file_name: str) -> str:
    """n02100583_7691.JPEG lies in the folder of its WordNet id."""
    name = PurePosixPath(file_name)
    return file_name if len(name.parts) > 1 else f"{name.stem.partition('_')[0]}/{file_name}"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where one such set lies; `{split}` in a path is filled in.

    `reasons`: sentences by name; `image`: a picture's path below `images` by its name in the file; `together`: one
    question a class instead of one an annotation.
    """

    json: str
    images: str
    reasons: str
    thing: Callable[[str], Thing]
    image: Callable[[str], str] = str
    together: bool = False


LAYOUTS = {
    "paco_lvis": Layout(
        json="vlpart/paco/annotations/paco_lvis_v1_{split}.json",
        images="coco",
        reasons="vlpart/paco/reason.json",
        thing=paco_thing,
    ),
    "pascal_part": Layout(
        json="vlpart/pascal_part/{split}.json",
        images="vlpart/pascal_part/VOCdevkit/VOC2010/JPEGImages",
        reasons="vlpart/pascal_part/reason.json",
        thing=pascal_thing,
    ),
    "part_imagenet": Layout(
        json="PartImageNet/{split}.json",
        images="PartImageNet/{split}",
        reasons="PartImageNet/reason.json",
        thing=part_imagenet_thing,
        image=part_imagenet_image,
        together=True,
    ),
}


class Parts(FileSource):
    """One such set in one split. `in_sentences`: ask for a thing by its sentence in reason.json, if there is one.

    Raises DataError when a file cannot be used.
    """

    def __init__(self, name: str, data_set: str, split: str, data_dir: Path, in_sentences: bool = False) -> None:
        super().__init__(name, split, data_dir)
        self.layout = LAYOUTS[data_set]
        self.json = data_dir / self.layout.json.format(split=split)
        self.images = data_dir / self.layout.images.format(split=split)
        self.reasons = read_reasons(data_dir / self.layout.reasons) if in_sentences else {}
        together = self.layout.together
        kind = "parts together" if together else "parts"
        self.index = open_index(kind, [self.json], partial(_rows, self.json, together))

    def __len__(self) -> int:
        return len(self.index)

    def read_record(self, i: int) -> Record:
        row = self.index[i]
        header = read_header(self._image(row.image))
        size = stated_size(row.record["size"], header, self.json)
        questions = tuple(
            self._question(category, partial(self._targets, members, size, header), lost_mask(members, self.json))
            for category, members in row.record["questions"]
        )
        meta = {"source": self.name, "name": row.image}
        return Record(header.path, header.size, self.split, questions, meta=meta)

    def problems(self) -> Iterator[tuple[Path, str]]:
        """Annotations without a mask; they are dumped without targets, and otherwise left out."""
        for i in range(len(self)):
            for _, members in self.index[i].record["questions"]:
                if (lost := lost_mask(members, self.json)) is not None:
                    yield self.json, f"not trained on and not scored: {lost}"

    def _question(self, category: str, find: Callable[[], tuple[Target, ...]], lost: str | None) -> Question:
        names = self.layout.thing(category).names
        text, *others = (name.lower() for name in names)
        question = Question(text, find, category=category, others=tuple(others), lost=lost)
        sentence = self.reasons.get(names[0], self.reasons.get(text))
        return question if sentence is None else replace(question, text=sentence, form="sentence", others=())

    def _targets(
        self, members: list[tuple[Id, Any]], size: tuple[int, int] | None, header: Header
    ) -> tuple[Target, ...]:
        """The union of annotations; nothing where all are empty, whose question is `lost`."""
        found = [read_segmentation(v, size, header, f"{self.json}: annotation {number}") for number, v in members]
        rle = union([part for part in found if part is not None], header.size)
        return () if rle is None else (Target(rle),)

    def _image(self, file_name: str) -> Path:
        return self.images / self.layout.image(file_name)

    def files(self, i: int) -> tuple[Path, ...]:
        return (self._image(self.index.image(i)),)


def read_reasons(path: Path) -> dict[str, str]:
    """Sentences by name; none, with a warning, when the file is not there. Raises DataError when it cannot be used."""
    if not path.exists():
        log.warning("%s is not there: what it would ask in sentences is asked by name", path)
        return {}
    found = check(read_json(path), dict, str(path))
    for name, sentence in found.items():
        if is_blank(check(sentence, str, f"{path}: {clipped(name)}")):
            raise DataError(f"{path}: {clipped(name)}: is blank, expected a sentence that asks for it")
    return found


def _rows(path: Path, together: bool) -> Iterator[Row]:
    """One row an image: its questions as [category, [[annotation, segmentation], ...]], by annotation."""
    coco = read_coco(path)
    for image, annotations in coco.by_image():
        groups: dict[Id, tuple[str, list[Any]]] = {}
        for annotation in annotations:
            category = coco.category(annotation)
            group = as_asked(category, coco.where(annotation)) if together else annotation["id"]
            groups.setdefault(group, (category, []))[1].append((annotation["id"], annotation.get("segmentation")))
        size = size_of(image, f"{path}: image {image['id']}")
        yield Row(image["file_name"], "", {"size": size, "questions": list(groups.values())})


class Joined(FileSource):
    """Several sources as one, one behind the other."""

    def __init__(self, name: str, split: str, parts: list[FileSource]) -> None:
        super().__init__(name, split, parts[0].root)
        self.parts = parts

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def _find(self, i: int) -> tuple[FileSource, int]:
        for part in self.parts:
            if i < len(part):
                return part, i
            i -= len(part)
        raise IndexError(i)

    def read_record(self, i: int) -> Record:
        part, i = self._find(i)
        return part.read_record(i)

    def files(self, i: int) -> tuple[Path, ...]:
        part, i = self._find(i)
        return part.files(i)

    def place(self, i: int) -> tuple[str, str]:
        part, i = self._find(i)
        return part.place(i)

    def problems(self) -> Iterator[tuple[Path, str]]:
        for part in self.parts:
            yield from part.problems()


def open_parts(parts: list[str], data_dir: Path | None, name: str) -> Parts:
    """Open `paco_lvis|train`, `pascal_part|train`, `part_imagenet|val`. Raises DataError when it cannot be used."""
    data_set = name.partition("|")[0]
    usual = "val" if data_set == "part_imagenet" else "train"
    if len(parts) > 1:
        raise DataError(f"{name}: expected {data_set}|{usual}")
    return Parts(name, data_set, parts[0] if parts else usual, needs(data_dir, name))


def open_seg_part(parts: list[str], data_dir: Path | None, name: str) -> Joined:
    """Open `seg_part`: PASCAL-Part and PACO, every thing asked for by its sentence in reason.json.

    When one of the two is not there, it is the other alone, with a warning. Raises DataError when neither is there,
    and when one cannot be used.
    """
    if parts not in ([], ["train"]):
        raise DataError(f"{name}: has only the split train")
    root = needs(data_dir, name)
    files = {kind: root / LAYOUTS[kind].json.format(split="train") for kind in ("pascal_part", "paco_lvis")}
    there = [kind for kind, path in files.items() if path.is_file()]
    if not there:
        raise DataError(f"{name}: there is no {' and no '.join(map(str, files.values()))}")
    for kind in set(files) - set(there):
        log.warning("%s: is without %s: there is no %s", name, kind, files[kind])
    return Joined(name, "train", [Parts(name, kind, "train", root, in_sentences=True) for kind in there])
