"""What is wrong with a data directory: every file that is missing, unreadable or does not match, by its name."""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from PIL.ImageFile import ImageFile

from cores import masks
from cores.data.bad import EmptySplit, Faults, ManyFaults, faults_of
from cores.data.formats.picture_headers import decode_check
from cores.data.inspect.counts import count_note, published_count
from cores.data.record import Record
from cores.data.sources import open_source
from cores.data.sources.base import FileSource
from cores.errors import DataError
from cores.regular_files import open_regular

# What is in a data directory, by the file or folder that tells of it; * stands for one of several.
USUAL = {
    "ade20k": "ade20k/annotations/training",
    "cocostuff": "cocostuff/train2017",
    "mapillary": "mapillary/training",
    "paco_lvis|train": "vlpart/paco/annotations/paco_lvis_v1_train.json",
    "paco_lvis|val": "vlpart/paco/annotations/paco_lvis_v1_val.json",
    "pascal_part|train": "vlpart/pascal_part/train.json",
    "pascal_part|val": "vlpart/pascal_part/val.json",
    "part_imagenet|val": "PartImageNet/val.json",
    **{f"refclef|unc|{split}": "refer_seg/refclef/refs(unc).*" for split in ("train", "val", "testA", "testB")},
    **{f"refcoco|unc|{split}": "refer_seg/refcoco/refs(unc).*" for split in ("train", "val", "testA", "testB")},
    **{f"refcoco+|unc|{split}": "refer_seg/refcoco+/refs(unc).*" for split in ("train", "val", "testA", "testB")},
    **{f"refcocog|umd|{split}": "refer_seg/refcocog/refs(umd).*" for split in ("train", "val", "test")},
    **{f"refcocog|google|{split}": "refer_seg/refcocog/refs(google).*" for split in ("train", "val")},
    **{f"grefcoco|unc|{split}": "refer_seg/grefcoco/grefs(unc).*" for split in ("train", "val", "testA", "testB")},
    "llava_instruct_150k": "llava_dataset/llava_instruct_150k.json",
    "ReasonSeg|train": "reason_seg/ReasonSeg/train",
    "ReasonSeg|val": "reason_seg/ReasonSeg/val",
    "ReasonSeg|test": "reason_seg/ReasonSeg/test",
}
COCO_NAME = re.compile(r"(\d{12})\.jpg$")  # the same picture, whatever year its folder says
DECODED, DECODED_OWN = 16, 500  # items of a source that are decoded: others decoded the published ones before
Level = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or should be known. `fix`: what to do about it."""

    level: Level
    source: str
    file: str
    problem: str
    fix: str


@dataclass
class Row:
    """What was counted of one source.

    Its images, here and as published; files that are missing; items that could not be used, and items whose picture
    and masks were decoded.
    """

    source: str
    images: int = 0
    published: int | None = None
    missing: int = 0
    unusable: int = 0
    decoded: int = 0


@dataclass
class Report:
    """Findings and counts of a check; `ok` when there is no error."""

    rows: list[Row] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Is there no error among the findings?"""
        return not any(finding.level == "error" for finding in self.findings)

    def lines(self) -> Iterator[str]:
        """The findings as JSON lines."""
        return (json.dumps(asdict(finding)) for finding in self.findings)

    def table(self) -> str:
        """What was counted, a line a source."""
        lines = [f"{'source':28} {'images':>9} {'published':>10} {'missing':>8} {'unusable':>9} {'decoded':>8}"]
        for row in self.rows:
            known = "" if row.published is None else f"{row.published:,}"
            if row.published not in (None, row.images):
                known += " !"
            counts = f"{row.images:9,} {known:>10} {row.missing:8,} {row.unusable:9,} {row.decoded:8,}"
            lines.append(f"{row.source:28} {counts}")
        return "\n".join(lines)


def usual_sources(data_dir: Path) -> list[str]:
    """The names of the sources that a directory seems to hold."""
    return [name for name, mark in USUAL.items() if any(data_dir.glob(mark))]


def examine(
    data_dir: Path,
    names: Iterable[str] | None = None,
    decode: int | None = None,
    watch: Callable[[str, range], Iterable[int]] = lambda name, numbers: numbers,
) -> Report:
    """Check sources: every file is there and has a good header, sizes match, and a sample of pictures and masks
    decodes; counts agree with what was published; training and evaluation share no image and no text.

    Whatever is wrong with a source or an item is a finding, never an error; the others are examined all the same.

    Args: `names`: None for all that the directory seems to hold; `decode`: items of each source that are decoded, None
    for 16, of one's own data for 500; `watch`: hands the numbers of a source's items through, for a progress bar.
    """
    report, sharing = Report(), Sharing()
    given = names is not None
    for name in usual_sources(data_dir) if names is None else names:
        try:
            source = open_source(name, data_dir)
        except Exception as error:
            if given or not isinstance(error, EmptySplit):
                report.rows.append(Row(name))
                report.findings += [Finding("error", name, "", fault, _remedy(name)) for fault in faults_of(error)]
            continue
        if not isinstance(source, FileSource):
            report.findings.append(Finding("warning", name, "", "is drawn, not read: there are no files", "nothing"))
            continue
        own = ":" in name
        _examine(source, report, sharing, (DECODED_OWN if own else DECODED) if decode is None else decode, watch)
    report.findings += sharing.findings()
    return report


def _examine(
    source: FileSource,
    report: Report,
    sharing: "Sharing",
    decode: int,
    watch: Callable[[str, range], Iterable[int]],
) -> None:
    name, count = source.name, len(source)
    row = Row(name, count, published_count(name))
    report.rows.append(row)
    if (note := count_note(source)) is not None:
        report.findings.append(Finding("warning", name, "", note, _remedy(name)))
    try:
        report.findings += [Finding("warning", name, str(path), why, "nothing") for path, why in source.problems()]
    except Exception as error:
        report.findings += [Finding("error", name, "", fault, _remedy(name)) for fault in faults_of(error)]
    step = max(1, count // decode) if decode else count + 1
    for i in watch(name, range(count)):
        file = f"number {i}"
        try:
            files = source.files(i)
            missing = [path for path in files if not path.is_file()]
            if missing:
                row.missing += len(missing)
                report.findings += [_missing(name, path) for path in missing]
                continue
            file = str(files[0]) if files else source.place(i)[0]
            record = source.look(i)
            sharing.add(source, i, record)
            if i % step == 0 and row.decoded < decode:
                row.decoded += 1
                empty = _decode(source.record(i) if record is None else record)
                report.findings += [Finding("warning", name, file, why, "look at its annotation") for why in empty]
        except Exception as error:
            row.unusable += 1
            fix = "mend or remove it, or train with on_bad: skip"
            faults = [*faults_of(error), *_faults_of_rest(error)]
            report.findings += [Finding("error", name, file, fault, fix) for fault in faults]


def _missing(name: str, path: Path) -> Finding:
    problem = "is no regular file, or a link to none" if os.path.lexists(path) else "is missing"
    return Finding("error", name, str(path), problem, f"put it there; {_remedy(name)}")


def _decode(record: Record) -> list[str]:
    """Decode the picture and all masks of a record; which masks are empty. Raises DataError with all that is wrong."""
    faults, empty = Faults(), []
    with faults.gathered():
        if isinstance(record.image, Path):
            decode_check(record.image)
    for question in record.questions:
        with faults.gathered():
            if any(not masks.decode(target.mask).any() for target in question.find()):
                empty.append(f"the mask of {question.text!r} is empty")
    faults.tell()
    return empty


def _faults_of_rest(error: Exception) -> tuple[str, ...]:
    """What is wrong with the masks of those questions that could be read where others could not."""
    if not isinstance(error, ManyFaults) or not isinstance(error.rest, Record):
        return ()
    try:
        _decode(error.rest)
    except Exception as further:
        return faults_of(further)
    return ()


def _remedy(name: str) -> str:
    head = name.partition("|")[0]
    return f"see `cores data download {head}`" if head.isidentifier() or head == "refcoco+" else "see docs/own-data.md"


class Sharing:
    """Which images and texts training and evaluation have in common."""

    def __init__(self) -> None:
        self.images: dict[str, dict[str, str]] = {}  # which picture -> source -> its file
        self.texts: dict[str, dict[str, str]] = {}
        self.sizes: dict[int, list[tuple[str, Path]]] = {}  # bytes of a file -> source, file

    def add(self, source: FileSource, i: int, record: Record | None) -> None:
        """Note the image of item i and, where `look` gave a record, its texts."""
        (name, split), files = source.place(i), source.files(i)
        as_asked = f"{source.name.partition('|')[0]}|{split}"
        coco = COCO_NAME.search(name)
        if files:
            self.images.setdefault(f"COCO {coco[1]}" if coco else name, {})[as_asked] = name
        elif record and isinstance(record.image, ImageFile) and record.image.fp:  # a table's: rows have no names
            record.image.fp.seek(0)
            digest = hashlib.sha256(record.image.fp.read()).hexdigest()
            self.images.setdefault(f"content {digest}", {})[as_asked] = name
        for question in record.questions if record else ():
            if question.form == "sentence":
                self.texts.setdefault(question.text.strip().lower(), {})[as_asked] = name
        if not coco and files:
            path = files[0]
            self.sizes.setdefault(path.stat().st_size, []).append((as_asked, path))

    def findings(self) -> Iterator[Finding]:
        """What training and evaluation share: a warning for each pair of sources, for images and for texts.

        Files of equal size are read, to compare their content.
        """
        for group in self.sizes.values():
            if len({is_evaluation(source) for source, _ in group}) == 2:
                for source, path in group:
                    try:
                        with open_regular(path) as file:
                            digest = hashlib.file_digest(file, "sha256").hexdigest()
                    except (OSError, DataError):
                        continue  # gone since it was looked at
                    self.images.setdefault(f"content {digest}", {})[source] = str(path)
        for what, found in (("images", self.images), ("texts", self.texts)):
            pairs: Counter[tuple[str, str]] = Counter()
            example: dict[tuple[str, str], str] = {}
            for members in found.values():
                for trained in members:
                    for held in members:
                        if not is_evaluation(trained) and is_evaluation(held):
                            pairs[trained, held] += 1
                            example.setdefault((trained, held), f"{members[trained]} and {members[held]}")
            for (trained, held), count in sorted(pairs.items()):
                problem = f"shares {count:,} {what} with {held}, such as {example[trained, held]}"
                yield Finding("warning", trained, "", problem, f"leave them out of training, or say so with {held}")


def is_evaluation(source: str) -> bool:
    """Is this source one that models are scored on, by its split?"""
    return source.rpartition("|")[2].startswith(("val", "test"))
