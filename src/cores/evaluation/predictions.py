"""Masks that any other program predicted, to be scored as ours are.

JSON lines: {"image": NAME, "query": TEXT, "masks": [COCO run lengths, ...]}, a line a question, its masks in the order
of the targets; none for a refusal. `query` may be left out where an image is asked once. Where images of one name lie
in several folders, NAME has as many of those as tell them apart. Lines of our own `answers.jsonl` are read, too, and
the rows of `cores predict --engine ray` in either of their formats, by file or by folder. A folder of PNGs holds
STEM.png, or STEM_mask_0.png, STEM_mask_1.png, ..., for images that are asked once; what is not black is inside.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from cores import masks
from cores.data.formats.arrow_tables import read_table
from cores.data.sample import Sample
from cores.errors import DataError
from cores.evaluation.counts import Counts, compared
from cores.evaluation.evaluator import Judged, kind_of
from cores.evaluation.result import Record
from cores.evaluation.sample_asker import Question, questions_of
from cores.masks import RLE, Mask
from cores.processing.pixels import open_picture

ROWS = ("part-*.jsonl", "part-*.parquet")
COLUMNS = ("image", "query", "masks", "error")
PNG = re.compile(r"(?P<stem>.+?)(?:_mask_(?P<number>\d+))?")
Key = tuple[str, str | None]  # an image's name, and the query where it is said


class Predictions:
    """Predicted masks by image and query. Those never asked for are in `unused`."""

    def __init__(self, found: Mapping[Key, Any]) -> None:
        self.found = dict(found)
        self.unused = set(self.found)

    @classmethod
    def read(cls, place: Path) -> "Predictions":
        """Of a file or folder. Raises DataError that names the line or file which cannot be used."""
        files = [place]
        if place.is_dir():
            files = sorted(file for pattern in ROWS for file in place.glob(pattern))
        found: dict[Key, Any] = {} if files else dict(_read_folder(place))
        for file in files:
            for where, key, drawn in _read_rows(file):
                if key in found:
                    raise DataError(f"{where}: {key[0]} has a prediction for {key[1]!r} already")
                found[key] = drawn
        if not found:
            raise DataError(f"{place}: holds no predictions, expected JSON lines, Parquet or a folder of PNGs")
        return cls(found)

    def of(self, sample: Sample, question: Question, alone: bool) -> list[Mask]:
        """The masks (h, w) predicted for a question; `alone`: the only one about its image.

        Raises DataError when there are none, or they are of another size.
        """
        names = [name := sample.name]
        if isinstance(sample.image, Path):
            name, parts = sample.image.name, sample.image.absolute().parts
            names = [PurePath(*parts[first:]).as_posix() for first in range(len(parts))] + [sample.image.stem]
        queries = [question.turn.query, None] if alone else [question.turn.query]
        keys: list[Key] = [(one, query) for query in queries for one in names]
        key = next((key for key in keys if key in self.found), None)
        if key is None:
            raise DataError(f"{name}: there is no prediction for {question.turn.query!r}: say masks: [] for none")
        self.unused.discard(key)
        found = self.found[key]
        if isinstance(found, str):
            raise DataError(f"{name}: {question.turn.query!r} could not be answered: {found}")
        drawn = [_mask(one, name) for one in found]
        if wrong := [mask.shape for mask in drawn if mask.shape != sample.size]:
            raise DataError(f"{name}: the picture is {sample.size} (h, w), a predicted mask {wrong[0]}")
        return drawn


def judge_predictions(predictions: Predictions, number: int, sample: Sample) -> Judged:
    """Count the predictions for every question of a sample, as generated answers. Raises DataError as `of` does."""
    questions = list(questions_of(sample))
    judged = Judged(number, sample, len(questions))
    ignore = None if sample.ignore is None else masks.decode(sample.ignore)
    for question in questions:
        drawn = predictions.of(sample, question, len(questions) == 1)
        overlaps, matched = compared(drawn, question.truth, ignore)
        counts = Counts(
            mode="generated",
            kind=kind_of(sample, question),
            targets=len(question.truth),
            chains=len(drawn),
            refused=not drawn,
            masked=any(mask.any() for mask in drawn),
            right_form=True,
            overlaps=overlaps,
            matched=matched,
            shares=tuple(float(truth.mean()) for truth in question.truth),
        )
        judged.counts.append(counts)
        judged.records.append(_record(number, sample, question, drawn, counts))
    return judged


def _record(number: int, sample: Sample, question: Question, drawn: Sequence[Mask], counts: Counts) -> Record:
    return Record(
        sample=number,
        question=question.number,
        image=sample.image.name if isinstance(sample.image, Path) else sample.name,
        mode=counts.mode,
        query=question.turn.query,
        sentence="",
        status="segmented" if drawn else "absent",
        score=float("nan"),
        ious=tuple(found.iou for found in counts.overlaps),
        truth=tuple(target.mask for target in question.turn.targets),
        levels=tuple({"target": masks.encode(mask)} for mask in drawn),
        kind=counts.kind,
        counts=counts,
    )


def _read_rows(file: Path) -> Iterator[tuple[str, Key, list[RLE] | str]]:
    """Of each generated answer: where it stands, its key, and its masks, or why there is none."""
    for place, line in _table(file) if file.suffix == ".parquet" else _lines(file):
        if line.get("mode", "generated") != "generated":
            continue
        drawn = line.get("error") or line.get("masks")
        if drawn is None and isinstance(line.get("levels"), list):  # our own: the last level of each chain
            drawn = [list(chain.values())[-1] for chain in line["levels"]]
        image, query = line.get("image"), line.get("query")
        if not isinstance(image, str) or not isinstance(drawn, list | str) or not isinstance(query, str | None):
            raise DataError(f"{place}: expected image (a name), query (a text) and masks (a list of run lengths)")
        parts = PurePath(image).parts
        outside = next((place for place, part in enumerate(parts) if part != ".."), 0)  # as seen from another folder
        yield place, (PurePath(*parts[outside:]).as_posix(), query), drawn


def _table(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for batch in read_table(file, COLUMNS).to_batches(1024):
        yield from ((str(file), row) for row in batch.to_pylist())


def _lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with file.open(encoding="utf-8") as text:
            for number, line in enumerate(text, 1):
                if line.strip():
                    value = json.loads(line)
                    if not isinstance(value, dict):
                        raise DataError(f"{file}: line {number}: expected an object, found {value!r:.40}")
                    yield f"{file}: line {number}", value
    except FileNotFoundError:
        raise DataError(f"{file}: there is no such file or folder") from None
    except (UnicodeDecodeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file}: is no JSON lines: {error}") from None


def _read_folder(folder: Path) -> dict[Key, list[Path]]:
    numbered: dict[str, dict[int, Path]] = {}
    for file in sorted(folder.glob("*.png")):
        match = PNG.fullmatch(file.stem)
        assert match is not None
        numbered.setdefault(match["stem"], {})[int(match["number"] or 0)] = file
    return {(stem, None): [files[number] for number in sorted(files)] for stem, files in numbered.items()}


def _mask(one: RLE | Path, name: str) -> Mask:
    if isinstance(one, Path):
        return np.asarray(open_picture(one).convert("L")) > 0
    if not isinstance(one, dict) or not isinstance(one.get("counts"), str | list) or len(one.get("size", ())) != 2:
        raise DataError(f"{name}: a mask is COCO run lengths, {{size: [h, w], counts: ...}}; found {one!r:.60}")
    counts = one["counts"]
    try:
        size = (int(one["size"][0]), int(one["size"][1]))
        if isinstance(counts, list):
            counts = masks.compress([int(n) for n in counts], size)
    except (TypeError, ValueError):
        raise DataError(f"{name}: a mask's size and counts are whole numbers, found {one!r:.60}") from None
    try:
        return masks.decode({"size": list(size), "counts": counts})
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
