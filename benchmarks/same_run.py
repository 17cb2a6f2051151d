"""What tells two finished runs apart: every file of their folders, bit for bit, but for what was read off a clock.

python benchmarks/same_run.py RUN OTHER
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

LOGS = "logs"  # TensorBoard's files say when and where they were written
UNREAD = ("TrainerControl",)  # transformers writes it and does not read it back
MEASURED = ("seconds", "waited", "for_data", "runtime", "per_second", "memory_gb")  # ends of the names of such figures


def differences(run: Path, other: Path) -> list[str]:
    """A line for each file that one of them lacks or that says something else; none for equal runs."""
    ours, theirs = _files(run), _files(other)
    found = [f"{name}: is in one of them only" for name in sorted(ours ^ theirs)]
    return found + [
        f"{name}: differs" for name in sorted(ours & theirs) if not _same(_content(run / name), _content(other / name))
    ]


def compared(run: Path) -> int:
    """How many files of a run are compared."""
    return len(_files(run))


def _files(run: Path) -> set[str]:
    paths = (path.relative_to(run) for path in run.rglob("*") if path.is_symlink() or not path.is_dir())
    return {str(path) for path in paths if path.parts[0] != LOGS}


def _content(path: Path) -> Any:
    if path.is_symlink():
        return str(path.readlink())
    if path.suffix in (".pt", ".pth"):
        return torch.load(path, weights_only=False)  # a run of our own; generators' states are no weights
    if path.name == "log.jsonl":
        return [_unmeasured(json.loads(line)) for line in path.read_text("utf-8").splitlines()]
    if path.name == "trainer_state.json" or path.name.startswith("log_sums"):
        return _unmeasured(json.loads(path.read_text("utf-8")))
    return path.read_bytes()


def _unmeasured(value: Any) -> Any:
    """The same without the figures that a clock or a meter gave."""
    if isinstance(value, dict):
        return {key: _unmeasured(inner) for key, inner in value.items() if not key.endswith(MEASURED + UNREAD)}
    return [_unmeasured(inner) for inner in value] if isinstance(value, list) else value


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor | np.ndarray):
        return type(one) is type(two) and one.dtype == two.dtype and np.array_equal(np.asarray(one), np.asarray(two))
    if isinstance(one, dict):
        return isinstance(two, dict) and one.keys() == two.keys() and all(_same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(two) and len(one) == len(two) and all(map(_same, one, two))
    return bool(one == two)


if __name__ == "__main__":
    lines = differences(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.write("\n".join(lines or ["the same"]) + "\n")
    sys.exit(bool(lines))
