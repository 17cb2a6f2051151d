"""What a run started from, written beside what it learned: from both, the model is made again."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from cores.errors import CheckpointError

BASE = "base.json"
ROLES = ({"start"}, {"bases"}, {"mllm", "segmenter"})

MOVED: ContextVar[Mapping[str, str] | None] = ContextVar("MOVED", default=None)


@dataclass(frozen=True)
class Base:
    """A run's base. `paths` by role: {"start": ...}, {"bases": ...}, or {"mllm": ..., "segmenter": ...}.

    `start` is a CoReS checkpoint, `bases` a folder with `mllm/` and `segmenter/`; each is a folder or hub id, or
    `shipped`. `new_tokens`: ids whose rows are drawn anew, from `seed`, as are projection and refiner where the base
    has none. `fingerprints`: of the weights, by role. `dtype`: what frozen weights were rounded to in training; None:
    whatever they are loaded in (runs of older versions).

    Raises CheckpointError for other roles, and for numbers and texts that are none.
    """

    paths: dict[str, str]
    seed: int = 0
    new_tokens: list[int] = field(default_factory=list)
    fingerprints: dict[str, str] = field(default_factory=dict)
    dtype: str | None = None

    def __post_init__(self) -> None:
        for name in ("paths", "fingerprints"):
            told = getattr(self, name)
            if not isinstance(told, dict) or not all(isinstance(one, str) for one in (*told, *told.values())):
                raise CheckpointError(f"{name}: found {told!r:.80}, expected texts by role")
        for name, numbers in (("seed", [self.seed]), ("new_tokens", self.new_tokens)):
            if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
                raise CheckpointError(f"{name}: found {numbers!r:.80}, expected whole numbers")
        if set(self.paths) not in ROLES:
            raise CheckpointError(f"a base is start, bases, or mllm and segmenter; found {sorted(self.paths)}")

    def check(self, found: Mapping[str, str]) -> None:
        """Raise CheckpointError unless the weights found now are those that the run started from."""
        for role, now in found.items():
            then = self.fingerprints.get(role, "nothing")
            if now != then:
                raise CheckpointError(
                    f"{self.paths.get(role, self.paths)}: its weights have changed since the run began (found "
                    f"{now[:19]}, expected {then[:19]}): what was learned does not fit them; bring the old ones back, "
                    f"or say where they are with --base {next(iter(self.paths))}=PATH"
                )

    def write(self, folder: Path) -> None:
        """Write the description into a checkpoint's folder, which is there."""
        (folder / BASE).write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Base":
        """The description in a checkpoint's folder, its paths as `moved` says.

        Raises CheckpointError when the folder has no readable one, and when `moved` names other roles.
        """
        try:
            found = cls(**json.loads((folder / BASE).read_text("utf-8")))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{folder / BASE}: cannot be read as the description of a base: {error}") from None
        places = MOVED.get() or {}
        known = {role: path for role, path in places.items() if role in found.paths}
        if places and not known and "start" not in found.paths:
            roles = " and ".join(found.paths)
            raise CheckpointError(f"{folder}: its base is {roles}, there is no {', '.join(places)}: say {roles}=PATH")
        return dataclasses.replace(found, paths={**found.paths, **known})


@contextmanager
def moved(paths: Mapping[str, str]) -> Iterator[None]:
    """Inside, bases of these roles are looked for at these paths; their fingerprints must be those of the run.

    Of a run that began with another run's checkpoint, that one's bases are meant, too.
    """
    before = MOVED.set(paths)
    try:
        yield
    finally:
        MOVED.reset(before)
