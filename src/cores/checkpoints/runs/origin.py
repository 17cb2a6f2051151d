"""What a run started from, written beside what it learned: from both, the model is made again."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cores.errors import CheckpointError

BASE = "base.json"
ROLES = ({"start"}, {"bases"}, {"mllm", "segmenter"})


@dataclass(frozen=True)
class Base:
    """A run's base. `paths` by role: {"start": ...}, {"bases": ...}, or {"mllm": ..., "segmenter": ...}.

    `start` is a CoReS checkpoint, `bases` a folder with `mllm/` and `segmenter/`; each is a folder or hub id, or
    `shipped`. `new_tokens`: ids whose rows are drawn anew, from `seed`, as are projection and refiner where the base
    has none. `fingerprints`: of the weights, by role.
    """

    paths: dict[str, str]
    seed: int = 0
    new_tokens: list[int] = field(default_factory=list)
    fingerprints: dict[str, str] = field(default_factory=dict)

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
                    f"{now[:19]}, expected {then[:19]}): what was learned does not fit them; bring the old ones back"
                )

    def write(self, folder: Path) -> None:
        (folder / BASE).write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Base":
        """Raises CheckpointError when the folder has no readable description."""
        try:
            return cls(**json.loads((folder / BASE).read_text("utf-8")))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{folder / BASE}: cannot be read as the description of a base: {error}") from None
