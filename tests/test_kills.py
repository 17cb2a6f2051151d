"""A run that is killed between any two acts of keeping its best checkpoint loses nothing."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from killed_run import SCORES
from safetensors.torch import load_file
from tiny_run import tiny_recipe

from cores.checkpoints.runs.best import step_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import kill

LEARNED = ("adapter_model.safetensors", "trained.safetensors")


@pytest.mark.slow
def test_a_kill_at_any_point_leaves_the_best_and_the_same_run(tmp_path):
    """In processes of their own (killed_run.py): a reference, then one run for each act, killed there and resumed."""
    script = Path(__file__).with_name("killed_run.py")
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    facts = json.loads((tmp_path / "facts.json").read_text())
    acts = "\n".join(fact["act"] for fact in facts)
    for act in (
        "mkdir RUN/.writing/checkpoint-4",
        "rename RUN/.writing/checkpoint-4",
        "symlink",
        "RUN/best",
        "rmtree",
    ):
        assert act in acts, f"no run was killed before {act}"
    for fact in facts:
        assert fact["resumed"] == 0, fact
        assert fact["best"] == max(fact["whole"], key=lambda step: SCORES.get(step, 0)), fact
        assert_same(tmp_path / fact["name"], tmp_path / "whole")


@pytest.mark.slow
def test_a_run_killed_at_random_is_the_run_that_was_never_killed(tmp_path: Path, monkeypatch: Any) -> None:
    """The short form of benchmarks/kill.py: once at a random moment of each kind, then bit for bit the same."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    tiny_recipe(tmp_path)
    recipe = [str(tmp_path / "tiny.yaml"), "data.sources={scenes: [scenes|train]}", "evaluation.sources=[scenes|val]"]
    recipe += ["evaluation.limit=2", "trainer.eval_strategy=steps", "trainer.save_strategy=steps"]
    recipe += ["trainer.per_device_train_batch_size=1", "trainer.save_total_limit=2"]
    assert kill.compare(tmp_path, recipe, steps=24, kills=len(kill.MOMENTS)) == []
    assert kill.compared(tmp_path / "whole") > 30


def assert_same(run: Path, whole: Path) -> None:
    names = sorted(entry.name for entry in whole.iterdir())
    assert sorted(entry.name for entry in run.iterdir()) == names == [
        "best", "checkpoint-4", "checkpoint-8", "log.jsonl", "recipe.yaml",
    ]  # fmt: skip
    assert step_of(run / "best") == 4
    for checkpoint in ("checkpoint-4", "checkpoint-8"):
        for name in LEARNED:
            one, two = load_file(run / checkpoint / name), load_file(whole / checkpoint / name)
            assert one.keys() == two.keys()
            assert all(torch.equal(one[key], two[key]) for key in one)
    assert figures(run) == figures(whole)


def figures(run: Path) -> list[tuple[int, float]]:
    """Losses and scores by step."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line[key]) for line in lines for key in ("loss", "eval_giou") if key in line]
