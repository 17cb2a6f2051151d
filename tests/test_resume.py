"""A run that was stopped after any step and resumed is the run that never stopped, bit for bit."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_run import Squares, tiny_recipe

from cores.cli import main
from cores.data.sample import Sample
from cores.errors import CheckpointError, RecipeError
from cores.evaluation.metrics import MaskMetrics
from cores.training.run import train

STEPS = 8  # of 2 pictures out of 12: the second epoch begins after step 6
LEARNED = ("adapter_model.safetensors", "trained.safetensors")
SETTINGS = {"trainer__max_steps": STEPS, "trainer__save_strategy": "steps", "trainer__save_steps": 3}


def interrupted_squares(after: int, times: int = 1) -> type[Squares]:
    """Squares that press Ctrl-C when so many pictures have been looked at."""

    class Interrupted(Squares):
        looked = 0

        def __getitem__(self, i: int) -> Sample:
            Interrupted.looked += 1
            if Interrupted.looked == after:
                for _ in range(times):
                    os.kill(os.getpid(), signal.SIGINT)
            return super().__getitem__(i)

    return Interrupted


def run_of(tmp_path: Path, name: str, source: Any = Squares, resume: bool = False, **settings: Any) -> Path:
    run = tmp_path / name
    train(tiny_recipe(tmp_path, **SETTINGS, **settings), run, source, device="cpu", quiet=True, resume=resume)
    return run


def losses(run: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def assert_same(run: Path, other: Path) -> None:
    for name in LEARNED:
        one, two = load_file(run / f"checkpoint-{STEPS}" / name), load_file(other / f"checkpoint-{STEPS}" / name)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
    states = [torch.load(r / f"checkpoint-{STEPS}" / "optimizer.pt", weights_only=True)["state"] for r in (run, other)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][n]["exp_avg_sq"], states[1][n]["exp_avg_sq"]) for n in states[0])
    assert losses(run) == losses(other)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with bases and a run that never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run_of(folder, "whole")


@pytest.mark.parametrize("looked", [1, 5, 11, 13, 15])
def test_ctrl_c_saves_the_step_and_resume_goes_on(whole, looked):
    folder, reference = whole
    name = f"stopped-{looked}"
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_of(folder, name, interrupted_squares(looked))
    assert signal.getsignal(signal.SIGINT) is before
    stopped = max(int(f.name.rpartition("-")[2]) for f in (folder / name).glob("checkpoint-*"))
    assert stopped < STEPS
    assert [step for step, _ in losses(folder / name)] == list(range(1, stopped + 1))
    assert_same(run_of(folder, name, resume=True), reference)


def test_a_second_ctrl_c_stops_at_once_and_leaves_nothing_half_written(whole):
    folder, reference = whole
    with pytest.raises(KeyboardInterrupt):
        run_of(folder, "killed", interrupted_squares(11, times=2))
    assert sorted(f.name for f in (folder / "killed").iterdir()) == ["checkpoint-3", "log.jsonl", "recipe.yaml"]
    assert_same(run_of(folder, "killed", resume=True), reference)


def test_a_run_stopped_before_its_first_checkpoint_begins_again(whole):
    folder, reference = whole
    with pytest.raises(KeyboardInterrupt):
        run_of(folder, "early", interrupted_squares(1, times=2))
    assert not list((folder / "early").glob("checkpoint-*"))
    assert_same(run_of(folder, "early", resume=True), reference)


def test_workers_draw_the_same(whole):
    folder, reference = whole
    run = folder / "workers"
    recipe = tiny_recipe(folder, **SETTINGS, trainer__dataloader_num_workers=2)
    train(recipe, run, Squares, device="cpu", quiet=True)
    assert_same(run, reference)


def test_the_best_score_is_not_forgotten(tmp_path):
    scores = iter((0.6, 0.2, 0.4))

    def evaluate(*_: Any) -> MaskMetrics:
        mask = np.arange(10)[None] < round(10 * next(scores))
        metrics = MaskMetrics()
        metrics.update(mask, np.ones((1, 10), dtype=bool))
        return metrics

    settings = {**SETTINGS, "trainer__eval_strategy": "steps", "trainer__eval_steps": 3}
    recipe, run = tiny_recipe(tmp_path, **settings), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(recipe, run, interrupted_squares(9), evaluate=evaluate, device="cpu", quiet=True)
    trainer = train(recipe, run, Squares, evaluate=evaluate, device="cpu", quiet=True, resume=True)
    assert trainer.state.best_metric == pytest.approx(0.6)
    assert json.loads((run / "best" / "trainer_state.json").read_text())["global_step"] == 3


def test_a_run_goes_on_with_its_own_settings_only(whole):
    folder, _ = whole
    with pytest.raises(RecipeError, match=r"lora.r: 2 then, 4 now"):
        run_of(folder, "whole", resume=True, lora__r=4)


def test_a_runs_own_recipe_is_all_that_resuming_needs(tmp_path, capsys):
    """Through the command line, on files: the data directory is in the run's recipe."""
    assert main(["scenes", "write", str(tmp_path / "own"), "--n", "2", "--quiet"]) == 0
    tiny_recipe(tmp_path)
    run = str(tmp_path / "run")
    settings = ["data.sources={own: [ReasonSeg|train]}", "evaluation.sources=[ReasonSeg|val]", "evaluation.limit=2"]
    settings += ["trainer.eval_strategy=steps", "trainer.eval_steps=2", "trainer.max_steps=2"]
    command = [str(tmp_path / "tiny.yaml"), *settings, "--data", str(tmp_path / "own")]
    assert main(["train", *command, "--out", run, "--device", "cpu", "--quiet"]) == 0
    assert "2 steps, best gIoU 0." in capsys.readouterr().out
    shutil.rmtree(tmp_path / "run" / "checkpoint-2")
    again = [str(tmp_path / "run" / "recipe.yaml"), "--out", run, "--resume", "--device", "cpu", "--quiet"]
    assert main(["train", *again]) == 0
    assert (tmp_path / "run" / "checkpoint-2").is_dir()


def test_a_changed_base_is_an_error(tmp_path):
    run = run_of(tmp_path, "run")
    file = tmp_path / "bases" / "segmenter" / "model.safetensors"
    state = load_file(file)
    state["mask_decoder.iou_token.weight"][0, 0] += 1e-3
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="weights have changed since the run began"):
        train(tiny_recipe(tmp_path, **SETTINGS), run, Squares, device="cpu", quiet=True, resume=True)
