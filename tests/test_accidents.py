"""What befalls a run from outside: one clear line, the last checkpoint whole, and resumed it is the same run."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_run import Squares, tiny_recipe

from cores.data.sample import Sample
from cores.errors import DataError, UserError
from cores.evaluation.metrics import MaskMetrics
from cores.recipe import Recipe
from cores.training import saving
from cores.training.callbacks import LogFile
from cores.training.run import train
from cores.training.trainer import CoresTrainer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from same_run import differences

SETTINGS = {
    "trainer__max_steps": 6,
    "trainer__gradient_accumulation_steps": 2,
    "trainer__save_strategy": "steps",
    "trainer__save_steps": 2,
    "trainer__eval_strategy": "steps",
    "trainer__eval_steps": 2,
}


def evaluate(*_: Any) -> MaskMetrics:
    metrics = MaskMetrics()
    metrics.update(np.arange(10)[None] < 4, np.ones((1, 10), dtype=bool))
    return metrics


def run(
    folder: Path,
    name: str,
    source: Any = Squares,
    *,
    workers: int = 0,
    logging: int = 1,
    scorer: Any = evaluate,
    **how: Any,
) -> Path:
    settings = {"trainer__dataloader_num_workers": workers, "trainer__logging_steps": logging}
    recipe: Recipe = tiny_recipe(folder, **SETTINGS, **settings)
    train(recipe, folder / name, source, evaluate=scorer, device="cpu", quiet=True, **how)
    return folder / name


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with bases and a run that nothing befell."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder, "whole")
    return folder


def steps(folder: Path) -> list[int]:
    return sorted(int(found.name.rpartition("-")[2]) for found in folder.glob("checkpoint-*"))


def assert_goes_on(folder: Path, name: str, workers: int = 0) -> None:
    """Resumed, it is the run that nothing befell; `workers` may be fewer than before."""
    run(folder, name, workers=workers, resume=True)
    # the recipe may say another number of workers
    assert [line for line in differences(folder / name, folder / "whole") if not line.startswith("recipe.yaml")] == []


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Any) -> None:
    """Let something happen once, in the forward pass of this step."""
    compute_loss, left = CoresTrainer.compute_loss, [act]

    def acting(trainer: CoresTrainer, *args: Any, **kwargs: Any) -> Any:
        if trainer.state.global_step == step - 1 and left:
            left.pop()()
        return compute_loss(trainer, *args, **kwargs)

    monkeypatch.setattr(CoresTrainer, "compute_loss", acting)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_to_all_processes_saves_the_step_and_ends(whole, monkeypatch, number, code):
    """As clusters and terminals send it: to the workers, too, without which the step could not be finished."""

    def stop() -> None:
        workers = [str(worker.pid) for worker in multiprocessing.active_children()]
        assert len(workers) == 2
        subprocess.run(
            ["kill", f"-{int(number)}", *workers], check=True
        )  # from elsewhere: torch knows the parent's own
        time.sleep(0.2)
        os.kill(os.getpid(), number)

    name = f"told-{code}"
    at_step(monkeypatch, 5, stop)
    if signal.getsignal(number) is signal.SIG_IGN:  # the tests run under nohup
        signal.signal(number, signal.SIG_DFL)
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt if code == 130 else SystemExit) as ended:
        run(whole, name, workers=2)
    assert code == 130 or ended.value.code == code
    assert signal.getsignal(number) is before
    assert steps(whole / name) == [2, 4, 5]  # 2 is the best
    monkeypatch.undo()
    run(whole, name, resume=True)
    assert [
        line for line in differences(whole / name, whole / "whole") if "checkpoint-6" in line or "log" in line
    ] == []


def test_a_signal_cuts_an_evaluation_which_is_done_later(whole):
    def told(*_: Any) -> MaskMetrics:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
        raise AssertionError("the evaluation went on")

    with pytest.raises(SystemExit) as ended:
        run(whole, "cut", scorer=told)
    assert ended.value.code == 143
    assert steps(whole / "cut") == [2]
    assert_goes_on(whole, "cut")


def test_a_log_has_the_means_of_whole_intervals_however_often_the_run_is_stopped(whole, monkeypatch):
    """After steps 3 and 5, between the logs of 4 steps each."""
    reference = run(whole, "seldom", logging=4)
    for step in (3, 5):
        at_step(monkeypatch, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit):
            run(whole, "stopped", logging=4, resume=step > 3)
        monkeypatch.undo()
    found = differences(run(whole, "stopped", logging=4, resume=True), reference)
    further = ("checkpoint-4", "checkpoint-5")  # one more was saved, and pushed another out
    assert [line for line in found if not line.startswith(further)] == []


def test_a_worker_that_the_system_kills_is_one_line(whole, monkeypatch):
    at_step(monkeypatch, 4, lambda: os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL))
    with pytest.raises(UserError, match=r"loads data was killed.* smaller trainer.dataloader_num_workers.* --resume"):
        run(whole, "worker", workers=2)
    assert steps(whole / "worker") == [2]
    monkeypatch.undo()
    assert_goes_on(whole, "worker", workers=1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_vanishes_is_one_line(whole, monkeypatch, workers):
    files = whole / f"pictures-{workers}"
    files.mkdir()

    class Files(Squares):
        def __getitem__(self, i: int) -> Sample:
            sample, file = super().__getitem__(i), files / f"{i}.png"
            if not file.exists() and not gone:
                sample.image.save(file)
            return Sample(file, sample.size, sample.conversations)

    gone: list[int] = []

    def remove() -> None:
        gone.append(1)
        for file in files.iterdir():
            file.unlink()

    at_step(monkeypatch, 2, remove)
    name = f"vanished-{workers}"
    if workers:  # which have the source as it was: the files are there before
        for i in range(12):
            Files()[i]
        gone.append(1)
    with pytest.raises(DataError) as ended:
        run(whole, name, Files, workers=workers)
    said = str(ended.value)
    assert str(files) in said
    assert "\n" not in said
    assert "worker" not in said
    assert steps(whole / name) == [2]
    monkeypatch.undo()
    assert_goes_on(whole, name)


@pytest.mark.parametrize("where", ["checkpoint", "log"])
def test_a_disk_that_gets_full_is_one_line(whole, monkeypatch, where):
    """While the second checkpoint is written, or a line of the log."""

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    patched = (saving, "write_learned") if where == "checkpoint" else (LogFile, "_write")
    at_step(monkeypatch, 3, lambda: monkeypatch.setattr(*patched, full))
    with pytest.raises(UserError, match=r"the disk is full: free some space.* --resume"):
        run(whole, f"full-{where}")
    assert steps(whole / f"full-{where}") == [2]
    assert not (whole / f"full-{where}" / ".writing").exists()
    monkeypatch.undo()
    assert_goes_on(whole, f"full-{where}")


def test_no_worker_outlives_a_run_that_fails(tmp_path, monkeypatch):
    """One that is deaf to SIGTERM would keep the program from ending."""
    before = set(multiprocessing.active_children())

    def fail(*_: Any, **__: Any) -> None:
        raise ArithmeticError("in a step")

    monkeypatch.setattr(CoresTrainer, "training_step", fail)
    with pytest.raises(ArithmeticError, match="in a step") as kept:  # its traceback holds the loader
        run(tmp_path, "failed", workers=2)
    assert kept.tb is not None
    assert set(multiprocessing.active_children()) <= before
