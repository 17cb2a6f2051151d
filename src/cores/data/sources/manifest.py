"""One's own data as JSON lines, one question a line: `manifest:PATH`. The fields are in docs/own-data.md.

Legend: h, w = height and width of the picture in pixels; points = vertices (x, y).
"""

import hashlib
import posixpath
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cores import masks
from cores.data.bad import Faults
from cores.data.formats.json_files import decode, listed, maybe, opened, parse, short, take
from cores.data.formats.mask_pixels import read_inside
from cores.data.formats.names import is_blank
from cores.data.formats.picture_headers import Header, read_header
from cores.data.formats.polygons import check_outline, check_parts, check_pixels, paint, read_points
from cores.data.formats.said_form import said_form
from cores.data.formats.segmentation_field import check_segmentation, has_mask, read_segmentation, union
from cores.data.index import Row, open_index
from cores.data.record import Question, Record
from cores.data.sample import Form, Target
from cores.data.sources.base import FileSource, is_file, locate, named_file
from cores.errors import DataError
from cores.masks import RLE
from cores.prompts.forms import form_of

FIELDS = {"image", "query", "form", "answer", "explanation", "targets", "ignore", "kind"}


class Manifest(FileSource):
    """One item an image, with the questions of all its lines. The index says where in the file they stand.

    Raises DataError when the file is empty or a line is no object with an image.
    """

    def __init__(self, name: str, path: Path, root: Path) -> None:
        super().__init__(name, path.stem, root)
        self.path = path
        self.index = open_index("manifest", [path], partial(_rows, path))

    def __len__(self) -> int:
        return len(self.index)

    def read_record(self, i: int) -> Record:
        """The record of image i. Raises ManyFaults, a DataError, with what is wrong in each of its lines."""
        row = self.index[i]
        header = read_header(self.files(i)[0])
        questions, ignored, faults = [], [], Faults()
        with opened(self.path) as file:
            for number, offset, length, digest in row.record:
                file.seek(offset)
                where = f"{self.path}: line {number}"
                with faults.gathered():
                    content = file.read(length)
                    if _digest(content) != digest:
                        raise DataError(f"{where}: is not what it was when the file was opened: open it again")
                    line = parse(decode(content, where), where)
                    questions.append(self._question(line, header, where))
                    if line.get("ignore") is not None:
                        ignored.append(self._mask(line["ignore"], header, f"{where}: ignore"))
        ignore = union([mask for mask in ignored if mask is not None], header.size)
        meta = {"source": self.name, "name": row.image}
        record = Record(header.path, header.size, self.split, tuple(questions), ignore=ignore, meta=meta)
        faults.tell(record)
        return record

    def _question(self, line: dict[str, Any], header: Header, where: str) -> Question:
        unknown = sorted(set(line) - FIELDS)
        if unknown:
            raise DataError(f"{where}: there is no field {listed(unknown)}; there are {', '.join(sorted(FIELDS))}")
        query = take(line, "query", str, where)
        if is_blank(query):
            raise DataError(f"{where}: query: is empty: say in words what to look for")
        targets = maybe(line, "targets", list, where)
        answer, told = (maybe(line, key, str, where) for key in ("answer", "explanation"))
        if targets is None and answer is None:
            raise DataError(f"{where}: has neither targets nor an answer; for what is not there say targets: []")
        form: Form = form_of(query)
        if targets is None:
            form = "raw"
        elif told is not None:
            form, answer = "explain", f"{answer} {told}" if answer else told
        given = said_form(line, where)
        if given == "raw" and answer is None and not targets:
            raise DataError(f"{where}: form: raw needs an answer or targets")
        for number, target in enumerate(targets or []):
            _check(target, header, f"{where}: targets: {number}")
        find = partial(self._targets, targets or [], header, where)
        return Question(query, find, given or form, answer, kind=maybe(line, "kind", str, where))

    def _targets(self, targets: list[Any], header: Header, where: str) -> tuple[Target, ...]:
        found = []
        for number, target in enumerate(targets):
            here = f"{where}: targets: {number}"
            record = _as_record(target, here)
            mask = self._mask(record["mask"], header, here)
            if mask is None or not masks.area(mask):
                raise DataError(f"{here}: mask: is empty; leave out what is not there")
            place = record.get("location")
            location = None if place is None else self._mask(place, header, f"{here}: location")
            found.append(Target(mask, location, maybe(record, "phrase", str, here)))
        return tuple(found)

    def _mask(self, value: Any, header: Header, where: str) -> RLE | None:
        """A mask as run lengths, polygons, or the name of a picture (mask_pixels.py)."""
        if isinstance(value, str):
            path = named_file(self.path.parent, value)
            try:
                inside = read_inside(path, fits=header)
            except DataError as error:
                raise DataError(f"{where}: {error}") from None
            return masks.encode(header.upright(inside, f"{where}: {path}"))
        polygons = _polygons(value, header, where)
        if polygons is None:
            return read_segmentation(value, None, header, where)
        canvas = np.zeros(header.size, np.uint8)
        for polygon in polygons:
            paint(canvas, polygon, 1)
        return masks.encode(canvas.astype(bool))

    def files(self, i: int) -> tuple[Path, ...]:
        return (named_file(self.path.parent, self.index.image(i)),)


def _as_record(target: Any, where: str) -> dict[str, Any]:
    """A target as {"mask", ...}. Raises DataError when it has none."""
    record = target if isinstance(target, dict) and "counts" not in target else {"mask": target}
    if "mask" not in record:
        raise DataError(f"{where}: the field 'mask' is missing")
    return record


def _check(target: Any, header: Header, where: str) -> None:
    """What can be said of a target before its mask is made. Raises DataError."""
    value = _as_record(target, where)["mask"]
    if isinstance(value, str) or _polygons(value, header, where) is not None:
        return
    if value is not None and not has_mask(value):
        raise DataError(f"{where}: mask: is empty; leave out what is not there")
    check_segmentation(value, None, header, where)


def _polygons(value: Any, header: Header, where: str) -> list[NDArray[np.int32]] | None:
    """The polygons (points, 2) of a mask given as lists of [x, y]; None if it is not. Raises DataError."""
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(point, list) and len(point) == 2 for point in value):
        value = [value]  # one polygon of points
    if not all(isinstance(polygon, list) and polygon and isinstance(polygon[0], list) for polygon in value):
        return None
    found = [read_points(polygon, where) for polygon in value]
    if (fewest := min(map(len, found))) < 3:
        raise DataError(f"{where}: a polygon of {fewest} points has no inside, expected at least 3")
    for polygon in found:
        check_outline(polygon, where)
    exact = [np.asarray(polygon, np.float64) for polygon in value]
    check_pixels(np.concatenate(exact), header.size, where)
    check_parts(dict(enumerate(exact)), header.size, where)
    return found


def _rows(path: Path) -> Iterator[Row]:
    """One row an image, in the order of first lines: [number, offset, length, digest] of each line about it."""
    groups: dict[str, tuple[str, list[tuple[int, int, int, str]]]] = {}
    offset, faults = 0, Faults()
    with opened(path) as file:
        for number, content in enumerate(file, start=1):
            with faults.gathered():
                if content.strip():
                    where = f"{path}: line {number}"
                    image = take(parse(decode(content, where), where), "image", str, where)
                    known = groups.setdefault(posixpath.normpath(image.replace("\\", "/")), (image, []))
                    known[1].append((number, offset, len(content), _digest(content)))
            offset += len(content)
    faults.tell()
    if not groups:
        raise DataError(f"{path}: is empty, expected a line a question")
    for image, lines in groups.values():
        yield Row(image, "", lines)


def _digest(line: bytes) -> str:
    """What tells a line from another one in its place."""
    return hashlib.blake2b(line, digest_size=8).hexdigest()


def open_manifest(path: str, data_dir: Path | None, name: str) -> Manifest:
    """Open `manifest:PATH`, a file of one's own. Raises DataError when it cannot be used."""
    found, root = locate(path, data_dir)
    if not is_file(found):
        raise DataError(f"{name}: there is no file {short(str(found))}")
    return Manifest(name, found, root)
