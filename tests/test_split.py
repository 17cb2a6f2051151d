"""A step is the same however it is cut: 8 pictures at once, one by one, on two processes, accumulated there."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from split_run import PICTURES, STEPS, cut_into, cut_run, prepare
from test_distributed import needs_deepspeed

CLOSE = 1e-5  # relative
LOSSES = ("loss", "text_loss", "mask_loss", "bce_loss", "dice_loss", "location_loss", "location_dice_loss")
FEW = "trainer.max_steps=4"


def log_of(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def assert_same(run: Path, other: Path, steps: int) -> None:
    """Every loss of every step, and every tensor at the end but those whose gradient is rounding alone."""
    one, two = log_of(run), log_of(other)
    assert len(one) == len(two) == steps
    for name in (*LOSSES, "grad_norm"):
        np.testing.assert_allclose([x[name] for x in one], [x[name] for x in two], rtol=CLOSE, err_msg=name)
    for file in ("trained.safetensors", "adapter_model.safetensors"):
        trained, again = (load_file(r / f"checkpoint-{steps}" / file) for r in (run, other))
        assert trained.keys() == again.keys()
        for name, value in trained.items():
            if not name.endswith("k_proj.bias"):  # softmax does not depend on it; Adam makes steps of the rounding
                assert (value - again[name]).norm() <= CLOSE * value.norm(), name


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As each of several processes has: how threads share a sum out depends on its size, and so does its rounding."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("split")
    prepare(made)
    return made


def test_a_few_steps_are_the_same_at_once_and_accumulated(folder):
    cut_run(folder, "few-8x1", FEW, *cut_into(PICTURES, 1))
    cut_run(folder, "few-2x4", FEW, *cut_into(2, 4))
    assert_same(folder / "few-8x1", folder / "few-2x4", 4)


def test_by_the_published_rule_they_are_not(folder):
    """So the test above can tell: conversations without masks weigh differently in small micro-batches."""
    rule = "losses.loss_normalization=micro"
    for name, cut in (("micro-8x1", cut_into(PICTURES, 1)), ("micro-1x8", cut_into(1, PICTURES))):
        cut_run(folder, name, rule, "trainer.max_steps=2", *cut)
    whole, parts = (log_of(folder / name)[0] for name in ("micro-8x1", "micro-1x8"))
    assert parts["mask_loss"] < 0.9 * whole["mask_loss"]
    for line in (whole, parts):
        assert line["loss"] == pytest.approx(0.5 * line["text_loss"] + 0.5 * line["mask_loss"])


@pytest.mark.slow
def test_fifty_steps_are_the_same_however_they_are_cut(folder):
    """8 x 1 = 1 x 8 = 2 processes x 4 = 2 processes x 2 x 2 accumulated."""
    cut_run(folder, "8x1", *cut_into(PICTURES, 1))
    cut_run(folder, "1x8", *cut_into(1, PICTURES))
    two_processes(folder, "2-4x1", *cut_into(4, 1))
    two_processes(folder, "2-2x2", *cut_into(2, 2))
    for name in ("1x8", "2-4x1", "2-2x2"):
        assert_same(folder / "8x1", folder / name, STEPS)


@pytest.mark.slow
def test_deepspeed_accumulates_to_the_same(folder):
    """Its engine could divide by the micro-batches once more; pictures without masks get stand-ins."""
    few = "trainer.max_steps=6"
    cut_run(folder, "six-8x1", few, *cut_into(PICTURES, 1))
    needs_deepspeed()
    two_processes(folder, "zero2-1x4", few, "trainer.deepspeed=zero2", *cut_into(1, 4))
    assert_same(folder / "six-8x1", folder / "zero2-1x4", 6)


def two_processes(folder: Path, name: str, *settings: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29521"]
    command += [str(Path(__file__).with_name("split_run.py")), str(folder), name, *settings]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
