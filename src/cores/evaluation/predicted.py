"""Predictions of any program as they are on disk: rows of JSON lines and Parquet, and folders of PNGs.

JSON lines: {"image": NAME, "query": TEXT, "masks": [COCO run lengths, ...]}, a line a question, its masks in the order
of the targets; none for a refusal. `query` may be left out where an image is asked once. Lines of our own
`answers.jsonl` are read, too, and the rows of `cores predict --engine ray` in either of their formats, by file or by
folder. A folder of PNGs holds STEM.png, or STEM_mask_0.png, STEM_mask_1.png, ..., for images that are asked once; what
is not black is inside.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
from PIL import ImageOps

from cores import masks
from cores.data.formats.arrow_tables import read_table
from cores.data.formats.mask_pixels import GREYS
from cores.errors import DataError
from cores.geometry import Size
from cores.masks import Mask
from cores.picture_errors import opened_picture

ROWS = ("part-*.jsonl", "part-*.parquet")
COLUMNS = ("image", "query", "masks", "error", "status", "cut")
PNG = re.compile(r"(?P<stem>.+?)(?:_mask_(?P<number>\d+))?")


class Key(NamedTuple):
    """What a row says that it answers."""

    image: str
    query: str | None


class Asked(NamedTuple):
    """The same of an evaluation of ours, which numbers samples and their questions."""

    source: str
    sample: int
    question: int


@dataclass(frozen=True, slots=True)
class Predicted:
    """One answer: its `masks` as they are on disk, or why there is none.

    `status`, `cut`, `right_form`, `sentence`: how it ended, where its row says so; without a status, an answer
    that has no mask is a refusal.
    """

    masks: list[Any] | str
    status: str | None = None
    cut: bool = False
    right_form: bool = True
    sentence: str = ""


def read_predicted(place: Path) -> Iterator[tuple[str, Key, Asked | None, Predicted]]:
    """Of each generated answer of a file or folder: where it stands, what it answers, and the answer.

    Raises DataError that names the line or file which cannot be used.
    """
    files = [place]
    if place.is_dir():
        files = sorted(file for pattern in ROWS for file in place.glob(pattern))
        if not files:
            yield from _read_folder(place)
    for file in files:
        for where, line in _table(file) if file.suffix == ".parquet" else _lines(file):
            if line.get("mode", "generated") == "generated":
                yield where, *_read_row(where, line)


def mask_of(one: Any, size: Size, name: str) -> Mask:
    """A predicted mask (h, w) of a picture of this size. Raises DataError when it is none, or is of another size."""
    if isinstance(one, Path):
        found = _inside(one)
        _refuse_size(name, found.shape, size)
        return found
    wrong = f"{name}: a mask is COCO run lengths, {{size: [h, w], counts: ...}}; found {one!r:.60}"
    if not isinstance(one, dict) or not isinstance(one.get("counts"), str | list):
        raise DataError(wrong)
    counts = one["counts"]
    try:
        height, width = map(int, one["size"])
        if isinstance(counts, list):
            counts = [int(n) for n in counts]
            if any(not 0 <= n <= height * width for n in counts):
                raise ValueError
            counts = masks.compress(counts, (height, width))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise DataError(wrong) from None
    _refuse_size(name, (height, width), size)
    try:
        return masks.decode({"size": [height, width], "counts": counts})
    except DataError as error:
        raise DataError(f"{name}: {error}") from None


def _refuse_size(name: str, found: tuple[int, ...], size: Size) -> None:
    """Raise DataError for a mask of another size than its picture's."""
    if found != size:
        raise DataError(f"{name}: the picture is {size} (h, w), a predicted mask {found}")


def _read_row(where: str, line: dict[str, Any]) -> tuple[Key, Asked | None, Predicted]:
    drawn = line.get("error") or line.get("masks")
    if drawn is None and isinstance(line.get("levels"), list):  # our own: the last level of each chain
        chains = line["levels"]
        drawn = [[*chain.values()][-1] if isinstance(chain, dict) and chain else None for chain in chains]
    image, query, status = line.get("image"), line.get("query"), line.get("status")
    if not isinstance(image, str) or not isinstance(drawn, list | str) or not isinstance(query, str | None):
        raise DataError(f"{where}: expected image (a name), query (a text) and masks (a list of run lengths)")
    parts = PurePath(image).parts
    outside = next((place for place, part in enumerate(parts) if part != ".."), 0)  # as seen from another folder
    numbers = line.get("source"), line.get("sample"), line.get("question")
    own = Asked(*numbers) if tuple(map(type, numbers)) == (str, int, int) else None  # type: ignore[arg-type]
    status = status if isinstance(status, str) else None
    cut, counts, sentence = line.get("cut") is True, line.get("counts"), line.get("sentence")
    form = counts.get("right_form") if isinstance(counts, dict) else None
    right = form if isinstance(form, bool) else not cut and status != "text"
    said = sentence if isinstance(sentence, str) else ""
    return Key(PurePath(*parts[outside:]).as_posix(), query), own, Predicted(drawn, status, cut, right, said)


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
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file}: is no JSON lines: {error}") from None


def _read_folder(folder: Path) -> Iterator[tuple[str, Key, None, Predicted]]:
    numbered: dict[str, dict[int | None, Path]] = {}
    for file in sorted(folder.glob("*.png")):
        match = PNG.fullmatch(file.stem)
        assert match is not None
        number = None if match["number"] is None else int(match["number"])
        before = numbered.setdefault(match["stem"], {})
        if number in before or (before and (number is None or None in before)):
            raise DataError(
                f"{file}: is of {match['stem']}, as {next(iter(before.values())).name} is: keep one of them"
            )
        before[number] = file
    for stem, files in numbered.items():
        numbers = sorted(n or 0 for n in files)  # from 0 on, or from 1
        if numbers[0] > 1 or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            raise DataError(f"{folder}: of {stem}_mask_0.png and on some are missing, found {numbers}")
        yield str(folder), Key(stem, None), None, Predicted([files[n] for n in sorted(files, key=lambda n: n or 0)])


def _inside(file: Path) -> Mask:
    """What is not black in a picture of any depth, turned as its EXIF says."""
    with opened_picture(file) as image:
        image.load()
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "P":  # Pillow warns when a palette's own transparency gets lost
            upright = upright.convert("RGBA")
        values = np.asarray(upright if upright.mode in GREYS else upright.convert("RGB"))
    return np.asarray(values.any(axis=-1) if values.ndim == 3 else values != 0)
