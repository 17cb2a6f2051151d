"""The refer sets: refCOCO, refCOCO+, refCOCOg, refCLEF, gRefCOCO.

refer_seg/NAME/{refs(SPLITBY).p | .json, instances.json}; `refcoco|unc|testA`, `refcocog|umd|val`, `grefcoco|val`. An
image is asked every sentence of every ref of the split. In gRefCOCO a ref has several objects, or none.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from cores.data.bad import EmptySplit
from cores.data.formats.coco_json import CocoFile, Id, read_coco, size_of, stated_size
from cores.data.formats.json_files import check, listed, read_json, short, take, take_id
from cores.data.formats.names import is_blank
from cores.data.formats.picture_headers import Header, read_header
from cores.data.formats.segmentation_field import lost_mask, read_segmentation
from cores.data.formats.unpickle import read_pickle, repaired
from cores.data.index import Row, open_index
from cores.data.record import Question, Record
from cores.data.sample import Target
from cores.data.sources.base import FileSource, folder, needs
from cores.errors import DataError

FOLDER = Path("refer_seg")
COCO_IMAGES = FOLDER / "images" / "mscoco" / "images" / "train2014"
CLEF_IMAGES = FOLDER / "images" / "saiapr_tc-12"
SPLIT_BY = {"refcocog": "umd"}  # the others: unc
NOTHING = -1  # gRefCOCO's annotation of what is not there
EXACT = ("train", "val", "testAB", "testAC", "testBC")
LETTERED = ("testA", "testB", "testC")


class Refer(FileSource):
    """One refer set, split by one rule, in one split.

    Raises EmptySplit when it has no ref, another DataError when a file is not there or cannot be used.
    """

    def __init__(self, name: str, data_set: str, split_by: str, split: str, data_dir: Path) -> None:
        super().__init__(name, split, data_dir)
        home = folder(data_dir / FOLDER / data_set, name)
        refs, instances = _refs_file(home, data_set, split_by), home / "instances.json"
        self.images = data_dir / (CLEF_IMAGES if data_set == "refclef" else COCO_IMAGES)
        self.instances = instances
        rows = partial(_rows, refs, instances, data_set == "grefcoco")
        self.index = open_index(f"refer {data_set} {split_by}", [refs, instances], rows)
        self.rows = self.index.where(partial(in_split, split))
        if not len(self.rows):
            raise EmptySplit(f"{name}: no ref is in this split; there are {listed(self.index.splits())}")

    def __len__(self) -> int:
        return len(self.rows)

    def read_record(self, i: int) -> Record:
        row = self.index[int(self.rows[i])]
        header = read_header(self.images / row.image)
        size = stated_size(row.record["size"], header, self.instances)
        questions = []
        for where, sentences, segmentations in row.record["refs"]:
            find = partial(self._targets, segmentations, size, header)
            lost = lost_mask(segmentations, self.instances)
            for number, sentence in enumerate(sentences):
                if is_blank(sentence):
                    raise DataError(f"{where}: sentence {number}: sent: is blank: remove it, or say what to look for")
                questions.append(Question(sentence, find, lost=lost))
        meta = {"source": self.name, "name": row.image}
        return Record(header.path, header.size, row.split, tuple(questions), meta=meta)

    def problems(self) -> Iterator[tuple[Path, str]]:
        """Refs whose annotation has no mask; they are dumped without targets, and otherwise left out."""
        for i in self.rows:
            for where, _, segmentations in self.index[int(i)].record["refs"]:
                if (lost := lost_mask(segmentations, self.instances)) is not None:
                    yield self.instances, f"{where} is not trained on and not scored: {lost}"

    def _targets(
        self, segmentations: list[tuple[Id, Any]], size: tuple[int, int] | None, header: Header
    ) -> tuple[Target, ...]:
        """One target an annotation; none of an empty one, whose question is `lost`."""
        found = [
            read_segmentation(value, size, header, f"{self.instances}: annotation {number}")
            for number, value in segmentations
        ]
        return tuple(Target(rle) for rle in found if rle is not None)

    def files(self, i: int) -> tuple[Path, ...]:
        return (self.images / self.index.image(int(self.rows[i])),)

    def place(self, i: int) -> tuple[str, str]:
        return super().place(i)[0], self.index.split(int(self.rows[i]))


def in_split(wanted: str, split: str) -> bool:
    """Does a ref of this split belong to the wanted one? By the rules of the sets' own program."""
    if wanted in EXACT:
        return split == wanted
    if wanted in LETTERED:
        return wanted[-1] in split
    return "test" in split


def _refs_file(home: Path, data_set: str, split_by: str) -> Path:
    stem = f"grefs({split_by})" if data_set == "grefcoco" else f"refs({split_by})"
    for suffix in (".p", ".json"):
        if (home / f"{stem}{suffix}").is_file():
            return home / f"{stem}{suffix}"
    raise DataError(f"{home}: there is no {stem}.p and no {stem}.json")


def _rows(refs_file: Path, instances_file: Path, says_absent: bool) -> Iterator[Row]:
    """One row an image and split, in the order of their first refs. `says_absent`: -1 is what is not there."""
    refs = check(read_pickle(refs_file) if refs_file.suffix == ".p" else read_json(refs_file), list, str(refs_file))
    instances = read_coco(instances_file)
    groups: dict[tuple[Id, str], list[Any]] = {}
    for number, ref in enumerate(refs):
        where = f"{refs_file}: ref {number}"
        key = (take_id(ref, "image_id", where), _text(ref, "split", where))
        groups.setdefault(key, []).append(_ref(ref, instances, says_absent, where))
    for (image_id, split), members in groups.items():
        if image_id not in instances.images:
            raise DataError(f"{refs_file}: image_id: {short(image_id)} is no image of {instances_file}")
        image = instances.images[image_id]
        size = size_of(image, f"{instances_file}: image {image_id}")
        yield Row(image["file_name"], split, {"size": size, "refs": members})


def _ref(
    ref: dict[str, Any], instances: CocoFile, says_absent: bool, where: str
) -> tuple[str, list[str], list[tuple[Id, Any]]]:
    """Where a ref stands, its sentences, as they are asked, and its annotations' segmentations."""
    members = take(ref, "sentences", list, where)
    sentences = [_text(sentence, "sent", f"{where}: sentence").strip().lower() for sentence in members]
    found = ref.get("ann_id")
    numbers = found if isinstance(found, list) else [found]
    if not numbers:
        absent = f", or {NOTHING} for what is not there" if says_absent else ""
        raise DataError(f"{where}: ann_id: found [], expected annotations{absent}")
    if says_absent and numbers == [NOTHING]:
        return where, sentences, []
    segmentations = []
    for number in numbers:
        known = take_id({"ann_id": number}, "ann_id", where)
        if known not in instances.annotations:
            raise DataError(f"{where}: ann_id: found {short(number)}, which is no annotation of {instances.path}")
        segmentations.append((known, instances.annotations[known].get("segmentation")))
    return where, sentences, segmentations


def _text(record: Any, key: str, where: str) -> str:
    """A text that may have been Python 2's bytes."""
    if isinstance(record, dict) and isinstance(record.get(key), str):
        return check(repaired(record[key]), str, f"{where}: {key}")
    return take(record, key, str, where)


def open_refer(parts: list[str], data_dir: Path | None, name: str) -> Refer:
    """Open `NAME|splitBy|split` or `NAME|split`. Raises DataError for a split that no such set has, and as `Refer`."""
    data_set = name.partition("|")[0]
    split_by = SPLIT_BY.get(data_set, "unc")
    if len(parts) == 2:
        split_by, split = parts
    elif len(parts) == 1:
        (split,) = parts
    else:
        raise DataError(f"{name}: expected {data_set}|{split_by}|SPLIT")
    if split not in (*EXACT, *LETTERED, "test"):
        raise DataError(f"{name}: there is no split {split}; take train, val, test, testA, testB or testC")
    return Refer(name, data_set, split_by, split, needs(data_dir, name))
