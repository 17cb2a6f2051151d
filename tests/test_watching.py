"""What one sees of a run beside its log, and an end that comes when nothing gets better any more."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_model
from tiny_run import Squares, tiny_recipe
from tiny_tokenizer import tiny_processor

from cores.cli import main
from cores.evaluation.gallery import WIDTH, Gallery
from cores.evaluation.metrics import MaskMetrics
from cores.training.run import train


def test_a_gallery_is_a_row_a_picture_from_all_over_the_sources():
    model, gallery = tiny_model().train(), Gallery([Squares("one"), Squares("two")], 4, "teacher-forced", 0)
    sheet = gallery(model, tiny_processor())
    assert sheet is not None
    assert sheet.width > 4 * WIDTH  # the picture, two levels and the truth
    assert [sample.size[0] - 40 for sample, _ in gallery.chosen] == [0, 6, 0, 6]
    assert all(question.truth for _, question in gallery.chosen)
    assert model.training
    assert np.array_equal(np.asarray(sheet), np.asarray(gallery(model, tiny_processor())))
    assert Gallery([], 4, "teacher-forced", 0)(model, tiny_processor()) is None


def test_every_evaluation_leaves_a_picture(tmp_path):
    tiny_recipe(tmp_path)
    settings = ["data.sources={scenes: [scenes|train]}", "evaluation.sources=[scenes|val]", "evaluation.limit=2"]
    settings += ["trainer.eval_strategy=steps", "trainer.eval_steps=1", "trainer.max_steps=2", "evaluation.pictures=2"]
    args = ["train", str(tmp_path / "tiny.yaml"), *settings, "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*args, "--quiet"]) == 0
    pictures = sorted((tmp_path / "run" / "pictures").iterdir())
    assert [picture.name for picture in pictures] == ["step-1.png", "step-2.png"]
    with Image.open(pictures[1]) as picture:
        assert picture.width > 4 * WIDTH


def test_tensorboard_has_figures_and_pictures_and_no_step_twice(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = tiny_recipe(tmp_path, **EACH, trainer__max_steps=4, trainer__report_to="tensorboard")
    draw = lambda *_: Image.new("RGB", (8, 8))  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "run", Squares, evaluate=scored(0.1, stop_at=2), draw=draw, device="cpu", quiet=True)
    run = tmp_path / "run"
    train(recipe, run, Squares, evaluate=scored(0.1, 0.2, 0.3), draw=draw, device="cpu", quiet=True, resume=True)
    events = EventAccumulator(str(run / "logs"), size_guidance={"images": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]
    assert [event.step for event in events.Scalars("eval/giou")] == [1, 2, 3, 4]
    assert [event.step for event in events.Images("pictures")] == [1, 2, 3, 4]


EACH = {
    "trainer__eval_strategy": "steps",
    "trainer__eval_steps": 1,
    "trainer__save_strategy": "steps",
    "trainer__save_steps": 1,
}


def scored(*figures: float, stop_at: int = 0) -> Any:
    """An evaluation that finds these gIoU, one after the other; the `stop_at`-th presses Ctrl-C."""
    left, done = list(figures), []

    def evaluate(*_: Any) -> MaskMetrics:
        done.append(1)
        if len(done) == stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        metrics = MaskMetrics()
        metrics.update(np.arange(10)[None] < round(10 * left.pop(0)), np.ones((1, 10), dtype=bool))
        return metrics

    return evaluate


def scores(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [round(line["eval_giou"], 1) for line in lines if "eval_giou" in line]


def test_a_run_ends_early_and_counts_on_after_a_resume(tmp_path):
    recipe = tiny_recipe(tmp_path, **EACH, trainer__max_steps=9, evaluation__patience=2)
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):  # in the second evaluation, which is done anew
        train(recipe, run, Squares, evaluate=scored(0.6, stop_at=2), device="cpu", quiet=True)
    figures = scored(0.5, 0.6, 0.9)
    trainer = train(recipe, run, Squares, evaluate=figures, device="cpu", quiet=True, resume=True)
    assert scores(run) == [0.6, 0.5, 0.6]  # as good is no better
    assert (trainer.state.global_step, trainer.state.best_metric) == (3, pytest.approx(0.6))
    assert (run / "best").resolve().name == "checkpoint-1"
    assert (run / "checkpoint-3").is_dir()
    trainer = train(recipe, run, Squares, evaluate=figures, device="cpu", quiet=True, resume=True)
    assert trainer.state.global_step == 3
    more = tiny_recipe(tmp_path, **EACH, trainer__max_steps=9, evaluation__patience=3)
    train(more, run, Squares, evaluate=scored(0.9, 0.1, 0.1, 0.1), device="cpu", quiet=True, resume=True)
    assert scores(run) == [0.6, 0.5, 0.6, 0.9, 0.1, 0.1, 0.1]
