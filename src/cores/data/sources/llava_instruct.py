"""LLaVA-Instruct: conversations about images of COCO, in words alone: `llava_instruct_150k`.

A record stays one conversation of several turns; an image may have several records.
"""

import re
from collections.abc import Iterator
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from cores.data.formats.json_files import check, maybe, read_items, short, take
from cores.data.formats.names import is_blank
from cores.data.formats.picture_headers import read_header
from cores.data.index import Row, open_index
from cores.data.record import Record
from cores.data.sample import Conversation, Turn
from cores.data.sources.base import FileSource, needs
from cores.errors import DataError

JSON = Path("llava_dataset", "llava_instruct_150k.json")
IMAGES = Path("coco", "train2017")
MARKER = re.compile(r"\s*<image>\s*")  # the picture stands before every question, so that its marker says nothing


class Llava(FileSource):
    """One item a record, as the published programs draw them. Raises DataError when the JSON cannot be used."""

    def __init__(self, name: str, data_dir: Path) -> None:
        super().__init__(name, "train", data_dir)
        self.json, self.images = data_dir / JSON, data_dir / IMAGES
        self.index = open_index("llava", [self.json], partial(_rows, self.json))

    def __len__(self) -> int:
        return len(self.index)

    def read_record(self, i: int) -> Record:
        row = self.index[i]
        where = f"{self.json}: record {i}"
        if not row.image:
            raise DataError(f"{where}: has no image; records of text alone are not read")
        header = read_header(self.images / row.image)
        talk = read_talk(take(row.record, "conversations", list, where), where)
        meta = {"source": self.name, "name": row.image}
        return Record(header.path, header.size, self.split, talks=(talk,), meta=meta)

    def files(self, i: int) -> tuple[Path, ...]:
        return (self.images / self.index.image(i),)


def read_talk(lines: list[Any], where: str) -> Conversation:
    """Turns of a human's line and the answer to it.

    An answer before the first question is dropped. A last question without an answer stays; nobody can learn from it.
    Raises DataError when they do not take turns, or when a question is blank.
    """
    said = []
    for number, line in enumerate(lines):
        here = f"{where}: conversations: {number}"
        speaker, text = take(line, "from", str, here), take(line, "value", str, here)
        if speaker not in ("human", "gpt"):
            raise DataError(f"{here}: from: found {short(speaker)}, expected human or gpt")
        text = MARKER.sub("", text)
        if speaker == "human" and is_blank(text):
            raise DataError(f"{here}: value: is blank, expected a question about the picture")
        said.append((speaker, text))
    if said and said[0][0] != "human":
        said = said[1:]
    for number, (speaker, _) in enumerate(said):
        if speaker != ("human", "gpt")[number % 2]:
            raise DataError(f"{where}: conversations: {speaker} speaks twice in a row")
    if not said:
        raise DataError(f"{where}: conversations: nobody asks anything")
    texts = [text for _, text in said]
    turns = zip_longest(texts[::2], texts[1::2])
    return Conversation(tuple(Turn(question, answer, form="raw") for question, answer in turns))


def _rows(path: Path) -> Iterator[Row]:
    for number, record in enumerate(read_items(path)):
        where = f"{path}: record {number}"
        yield Row(maybe(check(record, dict, where), "image", str, where) or "", "train", record)


def open_llava(parts: list[str], data_dir: Path | None, name: str) -> Llava:
    """Open `llava_instruct_150k`. Raises DataError for another split than train, and when the JSON cannot be used."""
    if parts not in ([], ["train"]):
        raise DataError(f"{name}: has only the split train")
    return Llava(name, needs(data_dir, name))
