"""The plain loop of examples/ trains as the Trainer does, and fits on a few screens."""

import re
import sys
from pathlib import Path

import numpy as np
from test_training import logged
from tiny_run import Squares, tiny_recipe
from transformers import Trainer

from cores.checkpoints.load import load
from cores.training.run import train
from cores.training.saving import Saving
from cores.training.trainer import CoresTrainer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
import train_loop


def test_the_plain_loop_has_the_trainers_losses(tmp_path: Path) -> None:
    """Over two epochs, with two micro-batches a step, weight decay and clipping."""
    settings = {"lora__dropout": 0, "trainer__gradient_accumulation_steps": 2, "trainer__max_steps": 5}
    recipe = tiny_recipe(tmp_path, trainer__weight_decay=0.1, **settings)
    train(recipe, tmp_path / "run", Squares, device="cpu", quiet=True)
    losses = train_loop.train(recipe, tmp_path / "plain", Squares, cpu=True)
    np.testing.assert_allclose(losses, logged(tmp_path / "run", "loss"), rtol=1e-6)
    load(tmp_path / "plain", device="cpu")


def test_the_page_names_every_method_of_the_librarys_that_is_replaced() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "trainer.md").read_text("utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    ours = {*vars(CoresTrainer), *vars(Saving)}
    assert named == {name for name in ours if callable(getattr(Trainer, name, None)) and name != "__doc__"}


def test_the_loop_can_be_read_in_a_sitting() -> None:
    assert len(Path(train_loop.__file__).read_text("utf-8").splitlines()) <= 150
