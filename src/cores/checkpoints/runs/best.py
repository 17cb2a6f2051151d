"""Which of a run's checkpoints is the best, and the name `best` for it.

`best` is a link, and changing it is one act. Which checkpoint it should be stands in the last checkpoint's own log of
evaluations, so a run that was killed between two acts is read rightly, and mended when it goes on.
"""

import errno
import json
import math
import os
import shutil
from pathlib import Path

BEST = "best"
WRITING = ".writing"  # of a run: what is not whole yet, or not wanted any more
STATE = "trainer_state.json"  # transformers' name
NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP)  # file systems without links: `best_step` still knows


def best_step(checkpoint: Path) -> int | None:
    """The first step with the highest gIoU of the evaluations up to a checkpoint; None without any."""
    scores: dict[int, float] = {}
    for entry in _state(checkpoint).get("log_history", []):
        score = entry.get("eval_giou")
        if isinstance(score, float | int) and math.isfinite(score):
            scores.setdefault(entry["step"], score)
    return max(scores, key=lambda step: (scores[step], -step)) if scores else None


def step_of(checkpoint: Path) -> int | None:
    """The step after which a checkpoint was written, by its own word."""
    found = _state(checkpoint).get("global_step")
    return found if isinstance(found, int) else None


def name_best(run: Path, checkpoint: Path) -> None:
    """Let `best` be this checkpoint of the run, in one act."""
    link, best = run / WRITING / BEST, run / BEST
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    try:
        os.symlink(checkpoint.name, link)
    except OSError as error:
        if error.errno in NO_LINKS:
            return
        raise
    if best.is_dir() and not best.is_symlink():  # a copy, where a run was copied without its links
        best.rename(run / WRITING / "old")
    link.replace(best)


def mend(run: Path, checkpoints: list[Path]) -> None:
    """Clear away what a killed run left half-written, and let `best` be what it should be. `checkpoints`: by step."""
    shutil.rmtree(run / WRITING, ignore_errors=True)
    if checkpoints and (step := best_step(checkpoints[-1])) is not None:
        wanted = run / f"checkpoint-{step}"
        if wanted in checkpoints and step_of(run / BEST) != step:
            name_best(run, wanted)
            shutil.rmtree(run / WRITING, ignore_errors=True)


def _state(checkpoint: Path) -> dict:  # type: ignore[type-arg]
    try:
        found = json.loads((checkpoint / STATE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
