"""An evaluation on disk while it goes on: what is found goes there batch by batch, so that a kill loses one batch.

Lies in OUT/unfinished. Each process appends to two files of its own: the answers' lines, then one line for the batch,
which says how far the answers go and all else that figures are made of. A batch counts when its line is whole; what
stands behind the last such line is cut off when the evaluation goes on.
"""

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

from cores.data.sample import Sample
from cores.errors import UserError
from cores.evaluation.counts import Counts
from cores.evaluation.evaluator import Judged
from cores.evaluation.metrics import MaskMetrics
from cores.evaluation.result import Sanity
from cores.plain_json import dumps
from cores.whole import whole_file, writing

FOLDER, SETTINGS = "unfinished", "settings.json"
SYNC = 20.0  # seconds between two waits for the disk


class Kept(NamedTuple):
    """One sample as it was found, read back. `lines`: its answers as they stand in `answers.jsonl`."""

    source: str
    number: int
    digest: str
    questions: int
    sanity: dict[str, Sanity]
    lines: list[bytes]

    @property
    def counts(self) -> list[Counts]:
        """What each answer counts."""
        return [Counts.read(json.loads(line)["counts"]) for line in self.lines]


class Place(NamedTuple):
    """Where a sample's answers stand: the file, the first byte, and how many. `entry`: all else of it, as JSON."""

    file: Path
    start: int
    length: int
    entry: str

    @property
    def digest(self) -> str:
        """The sample's fingerprint."""
        return str(json.loads(self.entry)["digest"])


@contextmanager
def held(out: Path) -> Iterator[Path]:
    """Hold `out` for this evaluation; gives the folder of the unfinished one, new or left by a killed process.

    When the block ends with nothing found in it, it is gone again; when the evaluation is finished, too (`finish`).
    Raises UserError when another process holds it.
    """
    home = out / FOLDER
    with writing(home):
        home.mkdir(exist_ok=True)
    lock = os.open(home, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"--out {out}: exists already, and another evaluation writes into it: take another"
            ) from None
        try:
            yield home
        finally:
            if not any(file.stat().st_size for file in home.glob("batches-*.jsonl")):
                shutil.rmtree(home, ignore_errors=True)
    finally:
        os.close(lock)


def begin(home: Path, settings: Mapping[str, Any], replace: bool, go_on: bool = True) -> bool:
    """Prepare an evaluation with these settings (plain JSON); is one of them going on?

    What no whole batch stands for is cut off. `replace`: an unfinished one with other settings goes; without `go_on`
    any does. Raises UserError that says which settings differ.
    """
    file = home / SETTINGS
    before = _read_settings(file)
    differing = [key for key in {**before, **settings} if before.get(key) != settings.get(key)] if before else []
    if differing and not replace:
        what = "; ".join(f"{key}: {before.get(key)!r:.90}, now {settings.get(key)!r:.90}" for key in differing)
        raise UserError(
            f"--out {home.parent}: holds an unfinished evaluation with other settings ({what}): take another folder, "
            f"or --overwrite to begin anew"
        )
    if before and not differing and go_on:
        for batches in home.glob("batches-*.jsonl"):
            _cut(batches)
        return True
    for left in home.iterdir():
        left.unlink()
    with writing(home), whole_file(file) as part:
        part.write_text(dumps(settings, indent=1), encoding="utf-8")
    return False


def _read_settings(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _cut(batches: Path) -> None:
    """Cut off what is behind the last whole batch, of a process's two files."""
    answers = batches.with_name(batches.name.replace("batches", "answers"))
    there = answers.stat().st_size if answers.exists() else 0
    good = end = 0
    with batches.open("rb") as file:
        for line in file:
            found = _batch(line)
            if found is None or found["end"] > there:
                break
            good, end = good + len(line), found["end"]
    os.truncate(batches, good)
    if answers.exists():
        os.truncate(answers, end)


def _batch(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    with suppress(ValueError):
        found = json.loads(line)
        if isinstance(found, dict) and "end" in found:
            return found
    return None


class Journal:
    """One process's part of an unfinished evaluation: `write` what is found about each batch of samples."""

    def __init__(self, home: Path, rank: int = 0) -> None:
        self.home, self.source = home, ""
        self.answers = (home / f"answers-{rank}.jsonl").open("ab")
        self.batches = (home / f"batches-{rank}.jsonl").open("ab")
        self.synced = time.monotonic()

    def write(self, judged: Sequence[Judged]) -> None:
        """Append a batch of the source that `source` names. Raises UserError when the disk is full."""
        entries = []
        with writing(self.home):
            for one in judged:
                length = 0
                for record in one.records:
                    line = {"source": self.source, **dataclasses.asdict(record)}
                    if record.similarity is None:
                        del line["similarity"]
                    length += self.answers.write((dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "replace"))
                sanity = {mode: dataclasses.asdict(found) for mode, found in one.sanity.items()}
                entry = {"number": one.number, "digest": digest(one.sample), "questions": one.questions}
                entries.append({**entry, "sanity": sanity, "length": length})
            self.answers.flush()
            batch = {"source": self.source, "samples": entries, "end": self.answers.tell()}
            self.batches.write((dumps(batch) + "\n").encode())
            self.batches.flush()
            if time.monotonic() - self.synced > SYNC:
                os.fsync(self.answers.fileno())
                os.fsync(self.batches.fileno())
                self.synced = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.answers.close()
        self.batches.close()


def found_in(home: Path) -> dict[tuple[str, int], Place]:
    """Every sample that was found by any process: by source and number, where it stands."""
    places: dict[tuple[str, int], Place] = {}
    for batches in sorted(home.glob("batches-*.jsonl")):
        answers = batches.with_name(batches.name.replace("batches", "answers"))
        start = 0
        with batches.open("rb") as file:
            for line in file:
                batch = _batch(line)
                if batch is None:
                    break
                for entry in batch["samples"]:
                    place = Place(answers, start, entry["length"], json.dumps(entry))
                    places.setdefault((batch["source"], entry["number"]), place)
                    start += entry["length"]
    return places


def read_back(places: Mapping[tuple[str, int], Place], source: str) -> Iterator[Kept]:
    """The samples of a source in their order, whoever found them."""
    files = {file: file.open("rb") for file in {place.file for place in places.values()}}
    try:
        for name, number in sorted(key for key in places if key[0] == source):
            file, start, length, written = places[name, number]
            files[file].seek(start)
            lines, entry = files[file].read(length).splitlines(keepends=True), json.loads(written)
            sanity = {mode: _sanity(found) for mode, found in entry["sanity"].items()}
            yield Kept(name, number, entry["digest"], entry["questions"], sanity, lines)
    finally:
        for open_file in files.values():
            open_file.close()


def _sanity(found: Mapping[str, Mapping[str, Any]]) -> Sanity:
    return Sanity(**{name: MaskMetrics(**sums) for name, sums in found.items()})


def digest(sample: Sample) -> str:
    """A fingerprint of a sample: its file's name and size, what is asked, and every mask."""
    image = sample.image
    about: list[Any] = [sample.size, sample.ignore]
    if isinstance(image, Path):
        about += [image.name, image.stat().st_size]
    else:
        about.append(hashlib.sha256(image.tobytes()).hexdigest())
    about += [dataclasses.asdict(conversation) for conversation in sample.conversations]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def finish(home: Path) -> None:
    """Take away an evaluation whose results are written."""
    shutil.rmtree(home, ignore_errors=True)
