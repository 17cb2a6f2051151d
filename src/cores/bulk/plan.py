"""A bulk run on disk: what is asked, cut into parts, and which of them are done.

OUT holds one file a part, and OUT/.bulk what has to be known to go on: `plan.jsonl`, a line a picture;
`settings.json`; `working/`, what each worker is at (`deaths.py`). A part is a range of the plan's lines. Its file
appears whole or not at all, under a name that the plan alone decides: a part that is asked twice, because a worker was
thought dead or the program was started again, is written twice in one place. So there is exactly one row out for every
row in, whatever is killed.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cores.bulk.questions import Picture
from cores.data.sample import Form
from cores.errors import UserError
from cores.plain_json import dumps
from cores.whole import whole_file, writing

PICTURE = tuple(field.name for field in fields(Picture))
HOME, PLAN, SETTINGS, WORKING = ".bulk", "plan.jsonl", "settings.json", "working"


class Part(NamedTuple):
    """A range of the plan's lines: `start` and `length` in bytes. It asks about so many `pictures`, in `rows` rows."""

    number: int
    start: int
    length: int
    pictures: int
    rows: int


@dataclass(frozen=True)
class Settings:
    """All that the rows depend on. A run goes on only where they are the same.

    `cores`: the version. `questions`: a digest of the plan. `model`: the name of one in words; `weights`: of any
    other, a fingerprint. `format`: jsonl or parquet. `batch`: pictures asked together; `part`: pictures a file. The
    others are as `cores.load` and `segment` take them.
    """

    questions: str
    format: str
    batch: int
    part: int
    model: str | None
    weights: str | None
    dtype: str | None
    seed: int
    form: Form | None
    max_new_tokens: int | None
    quantize: Literal["8bit", "4bit"] | None
    cores: str


@contextmanager
def held(out: Path) -> Iterator[Path]:
    """Hold `out` for this process alone; gives OUT/.bulk. A kill lets go of it.

    Raises UserError when another process holds it, or it cannot be written.
    """
    home = out / HOME
    with writing(home):
        (home / WORKING).mkdir(parents=True, exist_ok=True)
    lock = os.open(home, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"--out {out}: another run writes into it: take another") from None
        yield home
    finally:
        os.close(lock)


def digest(pictures: Sequence[Picture]) -> str:
    """What tells one list of questions from another."""
    found = hashlib.blake2b(digest_size=16)
    for line in map(_line, pictures):
        found.update(line)
    return found.hexdigest()


def prepare(home: Path, pictures: Sequence[Picture], settings: Settings, overwrite: bool) -> list[Part]:
    """Write the plan, or find it written; gives all parts. Raises UserError when another run's rows are there.

    `overwrite`: those are removed.
    """
    before, now = _read_settings(home), asdict(settings)
    if before != now:
        if before and not overwrite:
            differing = [key for key in now if before.get(key) != now[key]]
            what = "; ".join(f"{key}: {before.get(key)!r:.90}, now {now[key]!r:.90}" for key in differing)
            raise UserError(
                f"--out {home.parent}: holds rows of a run with other settings ({what}): take another folder, or "
                "--overwrite to begin anew"
            )
        if not before and not overwrite and any(entry.name != HOME for entry in home.parent.iterdir()):
            raise UserError(f"--out {home.parent}: exists already: take another, or add --overwrite")
        _clear(home)
        with writing(home):
            with whole_file(home / PLAN) as file, file.open("wb") as plan:
                plan.writelines(map(_line, pictures))
            with whole_file(home / SETTINGS) as file:  # last: a plan without it was not finished
                file.write_text(dumps(now, indent=1), encoding="utf-8")
    return list(_cut(pictures, settings.part))


def part_file(home: Path, number: int, settings: Settings) -> Path:
    """The file of a part's rows."""
    return home.parent / f"part-{number:06}.{settings.format}"


def left_to_do(home: Path, parts: Sequence[Part], settings: Settings) -> list[Part]:
    """The parts that have no file yet."""
    there = {entry.name for entry in os.scandir(home.parent)}
    return [part for part in parts if part_file(home, part.number, settings).name not in there]


def read_part(home: Path, start: int, length: int) -> list[Picture]:
    """The pictures of a part, out of the plan."""
    with (home / PLAN).open("rb") as plan:
        plan.seek(start)
        return [Picture(**json.loads(line)) for line in plan.read(length).splitlines()]


def planned(out: Path) -> Settings:
    """The settings of the run whose rows are in a folder. Raises UserError when there is none."""
    found = _read_settings(out / HOME)
    if found.keys() != {field.name for field in fields(Settings)}:
        raise UserError(f"{out}: holds no rows of `cores predict --engine ray`")
    return Settings(**found)


def _read_settings(home: Path) -> Mapping[str, Any]:
    try:
        found = json.loads((home / SETTINGS).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _clear(home: Path) -> None:
    """Remove the rows and the plan of another run."""
    (home / SETTINGS).unlink(missing_ok=True)  # first: without it nothing counts any more
    for file in [*home.parent.glob("part-*.jsonl"), *home.parent.glob("part-*.parquet")]:
        file.unlink()
    shutil.rmtree(home / WORKING)
    (home / WORKING).mkdir()


def _line(picture: Picture) -> bytes:
    values = {name: getattr(picture, name) for name in PICTURE}
    return json.dumps(values).encode("ascii") + b"\n"  # not by asdict, which takes several times as long


def _cut(pictures: Sequence[Picture], size: int) -> Iterator[Part]:
    start = 0
    for number, first in enumerate(range(0, len(pictures), size)):
        some = pictures[first : first + size]
        length = sum(len(_line(picture)) for picture in some)
        yield Part(number, start, length, len(some), sum(len(picture.rows) for picture in some))
        start += length
