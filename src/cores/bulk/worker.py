"""A worker: a model that answers part after part. It does not know who calls it, in which process or machine.

What cannot be answered costs itself only: a picture that cannot be opened has error rows; a batch that fails is asked
picture by picture, and a picture that fails question by question.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from cores.bulk.deaths import GIVEN_UP, Batch, Deaths
from cores.bulk.pictures import open_of
from cores.bulk.plan import WORKING, Settings, part_file, read_part
from cores.bulk.questions import Picture
from cores.bulk.rows import Row, answered, failed, write_rows
from cores.checkpoints.runs.origin import moved
from cores.errors import CoresError, DataError
from cores.inference.facade import load
from cores.inference.mixed_forms import segment_mixed

if TYPE_CHECKING:
    from PIL import Image

    from cores.inference.mixed_forms import Said
    from cores.inference.segmentation import Segmentation

    Opened = dict[int, Image.Image | DataError]  # by the picture's place in the part

LOST = 75  # exit code of a worker whose device does not answer any more
DIED = f"the worker's process died over this picture {GIVEN_UP} times, as for want of memory"


class Done(NamedTuple):
    """A part that is done, and how many of its rows are errors (0 where somebody else had done it)."""

    number: int
    errors: int


@dataclass(frozen=True)
class Loading:
    """What a worker loads, as `cores.load` takes it. `places`: where a training run's bases are now, by role.

    `threads`: of the processor, for each worker; None: as many as torch takes.
    """

    model: str | None = None
    device: str | None = None
    places: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None


class Worker:
    """Answers the parts of a run, one after the other.

    Args: `home`: OUT/.bulk. `run`: says which run this is, see `Deaths`.
    Raises CheckpointError and UserError as `cores.load`.
    """

    def __init__(self, home: Path, settings: Settings, loading: Loading, run: str) -> None:
        self.home, self.settings, self.run = home, settings, run
        if loading.threads is not None:
            torch.set_num_threads(loading.threads)
        with moved(loading.places):
            self.cores = load(loading.model, loading.device, settings.dtype, settings.seed, settings.quantize)

    def do(self, number: int, start: int, length: int) -> Done:
        """Answer a part and write its file, unless that is there already. Raises OSError when it cannot be written."""
        file = part_file(self.home, number, self.settings)
        if file.exists():  # whoever wrote it died before saying so
            return Done(number, 0)
        pictures = read_part(self.home, start, length)
        deaths = Deaths(self.home / WORKING / f"{number:06}.json", self.run)
        rows = self._rows(pictures, deaths)
        write_rows(rows, file)
        deaths.done()
        return Done(number, sum(row["error"] is not None for row in rows))

    def _rows(self, pictures: Sequence[Picture], deaths: Deaths) -> list[Row]:
        """The rows of all pictures, in the plan's order. While a batch is asked, the next is read."""
        found = [_failed(picture, DIED) for picture in pictures]  # what is given up stays so
        batches = deaths.batches(len(pictures), self.settings.batch)
        ahead = None
        with ThreadPoolExecutor(1) as reader:
            for batch, following in zip_longest(batches, batches[1:]):
                if batch.suspected or (following and following.suspected):
                    following = None
                deaths.asking(batch.places + (following.places if following else []))
                opened = ahead.result() if ahead else _opened(pictures, batch)
                ahead = reader.submit(_opened, pictures, following) if following else None
                for place, rows in self._asked(pictures, opened).items():
                    found[place] = rows
        return [row for rows in found for row in rows]

    def _asked(self, pictures: Sequence[Picture], opened: "Opened") -> dict[int, list[Row]]:
        """The rows of some pictures, by their places."""
        found = {place: _failed(pictures[place], str(e)) for place, e in opened.items() if isinstance(e, DataError)}
        good = {place: image for place, image in opened.items() if not isinstance(image, DataError)}
        answers = self._answers(list(good.values()), [self._said(pictures[place]) for place in good])
        for place, own in zip(good, answers, strict=True):
            name, asked = pictures[place].image, zip(pictures[place].rows, pictures[place].queries, own, strict=True)
            found[place] = [
                failed(row, name, query, answer) if isinstance(answer, str) else answered(row, name, answer)
                for row, query, answer in asked
            ]
        return found

    def _said(self, picture: Picture) -> "list[Said]":
        """The picture's queries, each with its form: that of its line or row, else the run's."""
        pairs = zip(picture.queries, picture.forms, strict=True)
        return [(query, form or self.settings.form) for query, form in pairs]

    def _answers(
        self, images: "Sequence[Image.Image]", asked: "Sequence[Sequence[Said]]"
    ) -> "Sequence[Sequence[Segmentation | str]]":
        """The answers, in the same lists, or why there is none, in words."""
        try:
            return segment_mixed(self.cores, images, asked, self.settings.max_new_tokens)
        except torch.AcceleratorError:  # after which a device answers nothing to this process any more
            os._exit(LOST)
        except Exception as error:
            if len(images) > 1:
                return [self._answers([image], [own])[0] for image, own in zip(images, asked, strict=True)]
            if len(asked[0]) > 1:
                return [[self._answers(images, [[said]])[0][0] for said in asked[0]]]
            return [[str(error) if isinstance(error, CoresError) else f"{type(error).__name__}: {error}"]]


def _opened(pictures: Sequence[Picture], batch: Batch) -> "Opened":
    found: Opened = {}
    for place in batch.places:
        try:
            found[place] = open_of(pictures[place])
        except DataError as error:
            found[place] = error
    return found


def _failed(picture: Picture, error: str) -> list[Row]:
    return [failed(row, picture.image, query, error) for row, query in zip(picture.rows, picture.queries, strict=True)]
