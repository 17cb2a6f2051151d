"""The mask losses against their formulas, and what must not change them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cores
from cores.modeling import objective
from cores.modeling.losses import bce_loss, dice_loss, mask_losses
from cores.modeling.objective import Frames, level_losses


def test_values_of_the_formulas():
    logits, truth = torch.tensor([[0.0, 2.0]]), torch.tensor([[0.0, 1.0]])
    p = torch.sigmoid(logits)
    bce = -(torch.log(1 - p[0, 0]) + torch.log(p[0, 1])) / 2
    dice = 1 - (2 * p[0, 1] / 1000 + 1e-6) / (p.sum() / 1000 + 1 / 1000 + 1e-6)
    torch.testing.assert_close(bce_loss(logits, truth), bce)
    torch.testing.assert_close(dice_loss(logits, truth), dice)


def test_ignored_pixels_carry_neither_value_nor_gradient():
    torch.manual_seed(0)
    logits = torch.randn(5, 6, requires_grad=True)
    truth, ignore = (torch.rand(5, 6) > 0.5), torch.rand(5, 6) > 0.7
    loss = mask_losses(logits[None], truth[None], ignore[None]).sum()
    flipped = mask_losses(logits[None], (truth ^ ignore)[None], ignore[None]).sum()
    torch.testing.assert_close(loss, flipped)
    loss.backward()
    assert (logits.grad[ignore] == 0).all()
    assert (logits.grad[~ignore] != 0).all()


@pytest.mark.parametrize("resolution", ["original", "low"])
@pytest.mark.parametrize("balanced", [False, True])
def test_all_masks_of_a_size_at_once_are_the_masks_one_by_one(resolution, balanced):
    """Values and gradients: three pictures of two sizes, one of them with ignored pixels; one mask without a truth."""
    torch.manual_seed(0)
    sizes, rows = [(20, 30), (25, 18), (20, 30)], [0, 0, 1, 2, 2, 1]
    resized = [(43, 64), (64, 46), (43, 64)]
    ignore = [None, None, torch.rand(20, 30) > 0.8]
    truth = [torch.rand(sizes[row]) > 0.6 for row in rows]
    truth[1] = None
    frames = Frames(64, sizes, resized, ignore, "pad")
    logits = torch.randn(6, 16, 16, requires_grad=True)

    together = level_losses(logits, truth, rows, frames, resolution, balanced)
    one_by_one = torch.stack(
        [
            level_losses(logits[n : n + 1], truth[n : n + 1], rows[n : n + 1], frames, resolution, balanced)
            for n in range(6)
        ]
    ).sum(0)
    torch.testing.assert_close(together, one_by_one, rtol=1e-6, atol=0)
    weights = torch.tensor([2.0, 0.5])
    gradients = [torch.autograd.grad((found * weights).sum(), logits)[0] for found in (together, one_by_one)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-8)
    assert not gradients[0][1].any(), "a mask without a truth learns nothing"

    nothing = level_losses(logits, [None] * 6, rows, frames, resolution, balanced)
    assert nothing.tolist() == [0.0, 0.0]
    assert nothing.requires_grad


def test_a_loss_key_is_one_row_of_one_file(tmp_path):
    """A copy of the package in which only loss_keys.py has changed: recipe, config, training and log know the key."""
    package = Path(cores.__file__).parent
    shutil.copytree(package, tmp_path / "cores", ignore=shutil.ignore_patterns("__pycache__", "shipped"))
    file = tmp_path / "cores" / "loss_keys.py"
    row = (
        '    LossKey("far", "far_weight", float, 0.0, "far_loss", "cores.loss_keys:far_loss"),\n    LossKey("location"'
    )
    function = (
        "\n\ndef far_loss(logits, truth, ignore=None):\n"
        "    return (logits - truth.to(logits)).square().mean((-2, -1))\n"
    )
    file.write_text(file.read_text().replace('    LossKey("location"', row) + function)
    code = (
        "import json, sys; from pathlib import Path; from tiny_run import Squares, tiny_recipe\n"
        "from cores.training.run import train\n"
        "folder = Path(sys.argv[1]); recipe = tiny_recipe(folder, losses__far=0.25, trainer__max_steps=1)\n"
        "trainer = train(recipe, folder / 'run', Squares, device='cpu', quiet=True)\n"
        "assert trainer.model.config.far_weight == 0.25\n"
    )
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parent)])
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr[-2000:]
    lines = map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines())
    line = next(line for line in lines if "loss" in line)
    parts = 2 * line["bce_loss"] + 0.5 * line["dice_loss"] + 0.25 * line["far_loss"]
    assert line["mask_loss"] == pytest.approx(parts)
    config = json.loads((tmp_path / "run" / "checkpoint-1" / "config.json").read_text())
    assert config["far_weight"] == 0.25


def test_losses_in_pieces_are_those_of_all_masks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 16, 16, generator=chance)
    truth = [torch.rand(40, 64, generator=chance) > 0.5 for _ in range(5)]
    frames = objective.Frames(64, [(40, 64)], [(40, 64)], [None], "pad")
    found = []
    for pixels in (1, 2 * 40 * 64, 2**20):
        monkeypatch.setattr(objective, "CACHED", pixels)
        found.append(objective.level_losses(logits, truth, [0] * 5, frames))
    torch.testing.assert_close(found[0], found[2], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found[1], found[2], rtol=1e-6, atol=1e-6)
