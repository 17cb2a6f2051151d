"""Runs that are killed before each act that changes their folder while a new best checkpoint is kept; then resumed.

`python killed_run.py FOLDER` leaves there a run that never stopped (`whole`), one for each act (`killed-0`, ...), and
`facts.json`: what each act was, and which checkpoint the killed run called its best before it was resumed. Every run
is a process of its own, forked from one that has everything imported.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft  # noqa: F401  # imported once, here
from tiny_run import Squares, tiny_recipe

from cores.checkpoints.find import best_of
from cores.checkpoints.runs.best import step_of
from cores.evaluation.metrics import MaskMetrics
from cores.training.run import train

SCORES = {2: 0.3, 4: 0.6, 6: 0.4, 8: 0.5}  # by step: the second evaluation finds the best
SETTINGS = {
    "trainer__max_steps": 8,
    "trainer__eval_strategy": "steps",
    "trainer__eval_steps": 2,
    "trainer__save_strategy": "steps",
    "trainer__save_steps": 3,
    "trainer__save_total_limit": 1,
}
ACTS = ("os.mkdir", "os.rename", "os.symlink", "os.rmdir", "shutil.rmtree")


def run(folder: Path, name: str, resume: bool = False) -> None:
    log = folder / name / "log.jsonl"

    def evaluate(*_: Any) -> MaskMetrics:
        step = json.loads(log.read_text().splitlines()[-1])["step"]
        metrics = MaskMetrics()
        metrics.update(np.arange(10)[None] < round(10 * SCORES[step]), np.ones((1, 10), dtype=bool))
        return metrics

    recipe = tiny_recipe(folder, **SETTINGS)
    train(recipe, folder / name, Squares, evaluate=evaluate, resume=resume, device="cpu", quiet=True)


def kill_before(number: int, folder: Path, name: str) -> None:
    """Kill this process before act `number` of those that keep `checkpoint-4`; what the act was goes to a file."""
    seen: list[str] = []

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event not in ACTS:
            return
        words = " ".join([event, *(str(arg).replace(str(folder / name), "RUN") for arg in args[:2])])
        if words in seen or not (seen or "checkpoint-4" in words):
            return
        seen.append(words)
        if len(seen) > number and "checkpoint-6" not in words:
            (folder / f"{name}.act").write_text(words)
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def in_a_child(do: Callable[[], None]) -> int:
    """Run in a process of its own; its exit code, negative when it was killed."""
    child = os.fork()
    if not child:
        try:
            do()
        except BaseException as error:
            sys.stderr.write(f"{error!r}\n")
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path) -> None:
    tiny_recipe(folder, **SETTINGS)
    assert in_a_child(lambda: run(folder, "whole")) == 0
    facts = []
    for number in range(100):
        name = f"killed-{number}"

        def killed(number: int = number, name: str = name) -> None:
            kill_before(number, folder, name)
            run(folder, name)

        if in_a_child(killed) != -signal.SIGKILL:
            break
        best = step_of(best_of(folder / name))
        whole = [step_of(found) for found in (folder / name).glob("checkpoint-*")]
        act = (folder / f"{name}.act").read_text()
        code = in_a_child(lambda name=name: run(folder, name, resume=True))
        facts.append({"name": name, "act": act, "best": best, "whole": whole, "resumed": code})
    (folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
