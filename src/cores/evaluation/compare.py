"""Two evaluations of the same questions: what differs, how surely, and which questions changed sides."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from cores.errors import DataError, UserError
from cores.evaluation.causes import RIGHT
from cores.evaluation.intervals import Interval, PerImage, interval, resampled
from cores.evaluation.metrics import MaskMetrics
from cores.evaluation.result import Record, Score

SHOWN = 24  # flips with pictures


@dataclass(frozen=True)
class Flip:
    """A question that one of the two got right (an IoU of 0.5 and more) and the other did not."""

    one: Record
    two: Record

    @property
    def change(self) -> float:
        """How much higher the second's IoU is."""
        return self.two.iou - self.one.iou


@dataclass(frozen=True)
class Difference:
    """One source and mode. `figures`: by path, the first's, the second's, and the interval of second less first.

    `flips`: the largest changes, for the better and for the worse, most of them `SHOWN` each; `better`, `worse`: how
    many there are.
    """

    source: str
    mode: str
    images: int
    figures: dict[tuple[str, ...], tuple[float, float, Interval]]
    flips: list[Flip]
    better: int
    worse: int


def results_of(folder: Path) -> dict[str, Any]:
    """The figures of an evaluation's folder. Raises DataError when it holds none."""
    file = folder / "results.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        found["sources"], found["about"]
    except FileNotFoundError:
        raise DataError(f"{folder}: is no finished evaluation: it holds no results.json") from None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{file}: is not what cores eval writes") from None
    return dict(found)


def compare(one: Path, two: Path, seed: int = 0) -> list[Difference]:
    """Compare two folders of evaluations, source by source and mode by mode, where both have them.

    Raises DataError for folders that hold none, and UserError when they have nothing in common or the questions of a
    source are not the same.
    """
    first, second = results_of(one)["sources"], results_of(two)["sources"]
    shared = [(s, m) for s in first if s in second for m in ("generated", "teacher-forced") if m in first[s]]
    found = [_compare(one, two, source, mode, seed) for source, mode in shared if mode in second[source]]
    if not found:
        raise UserError(f"{one} and {two} have no source in common that was answered in the same mode")
    return found


def _compare(one: Path, two: Path, source: str, mode: str, seed: int) -> Difference:
    images: PerImage[tuple[str, ...]] = PerImage()
    sums = [Score(), Score()]
    better: list[Flip] = []
    worse: list[Flip] = []
    counted = {"better": 0, "worse": 0}
    for pair in _pairs(one, two, source, mode):
        own = [Score(), Score()]
        for records in pair:
            for into, record in zip(own, records, strict=True):
                assert record.counts is not None
                into.add(record.counts)
            flip = Flip(*records)
            if (records[0].iou >= RIGHT) != (records[1].iou >= RIGHT):
                counted["better" if flip.change > 0 else "worse"] += 1
                _keep(better if flip.change > 0 else worse, flip)
        images.add({(which, *path): r for which, s in zip("12", own, strict=True) for path, r in s.ratios().items()})
        sums = [total + part for total, part in zip(sums, own, strict=True)]
    paths, table = images.table()
    drawn, column = resampled(table, seed), {path: number for number, path in enumerate(paths)}
    figures: dict[tuple[str, ...], tuple[float, float, Interval]] = {}
    wanted: list[tuple[str, ...]] = [(name,) for name in MaskMetrics().ratios()]
    wanted += [("answers", name) for name in sums[0].answers.ratios()]
    wanted += [("kinds", kind, "giou") for kind in sorted(sums[0].kinds)]
    for path in wanted:
        a, b = column.get(("1", *path)), column.get(("2", *path))
        if a is not None and b is not None:
            values = [total.ratios()[path] for total in sums]
            left, right = (top / bottom for top, bottom in values)
            figures[path] = (left, right, interval(drawn[:, b] - drawn[:, a]))
    return Difference(source, mode, images.images, figures, [*better, *worse], **counted)


def _keep(flips: list[Flip], flip: Flip) -> None:
    """Keep the largest changes, largest first."""
    flips.append(flip)
    flips.sort(key=lambda one: -abs(one.change))
    del flips[SHOWN:]


def _pairs(one: Path, two: Path, source: str, mode: str) -> Iterator[list[tuple[Record, Record]]]:
    """The answers of both to the questions of each image. Raises UserError when the questions are not the same."""
    sides = [groupby(_records(folder, source, mode), key=lambda record: record.sample) for folder in (one, two)]
    while True:
        groups = [next(side, None) for side in sides]
        if groups == [None, None]:
            return
        answers = [[] if group is None else list(group[1]) for group in groups]
        asked = [[(r.sample, r.image, r.question, r.query, r.truth) for r in records] for records in answers]
        if asked[0] != asked[1]:
            where = next((r.image for records in answers for r in records), "")
            raise UserError(f"{source}: {one} and {two} were not asked the same questions: see picture {where}")
        yield list(zip(*answers, strict=True))


def _records(folder: Path, source: str, mode: str) -> Iterator[Record]:
    file = folder / "answers.jsonl"
    try:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                found = json.loads(line)
                if found["source"] == source and found["mode"] == mode:
                    record = Record.read(found)
                    if record.counts is None:
                        raise DataError(f"{file}: was written by an older version: evaluate again")
                    yield record
    except FileNotFoundError:
        raise DataError(f"{folder}: is no finished evaluation: it holds no answers.jsonl") from None
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file}: is not what cores eval writes: {error}") from None
