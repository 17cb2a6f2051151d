"""A dry run says what the run will be: its parts, groups and first batch are the real one's; no weight is read."""

import re
from pathlib import Path

import pytest
from tiny_run import Squares, tiny_recipe

from cores.cli import main
from cores.errors import CheckpointError
from cores.recipe import load_recipe
from cores.recipe_files import recipe_text
from cores.training.dry_run import dry_run, groups
from cores.training.memory import numbers
from cores.training.outline import outline
from cores.training.run import train
from cores.vocabulary import UNSUPERVISED

TRAINS = re.compile(r"(trains|frozen) +(.+?) +([\d,]+) tensors +([\d,]+) parameters")


def test_a_dry_run_is_the_run_without_its_weights(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, trainer__max_steps=1, trainer__weight_decay=0.1)
    trainer = train(recipe, tmp_path / "run", Squares, device="cpu", quiet=True)
    for weights in (tmp_path / "bases").rglob("*.safetensors"):
        weights.unlink()
    found = dry_run(recipe, Squares)

    planned = outline(recipe).model
    assert all(p.is_meta for p in planned.parameters())
    shapes = {name: (tuple(p.shape), p.requires_grad, p.dtype) for name, p in trainer.model.named_parameters()}
    assert {name: (tuple(p.shape), p.requires_grad, p.dtype) for name, p in planned.named_parameters()} == shapes
    said = [(how, int(n.replace(",", ""))) for how, _, _, n in TRAINS.findall("\n".join(found.lines))]
    for how, trains in (("trains", True), ("frozen", False)):
        assert sum(n for one, n in said if one == how) == numbers(trainer.model, trains)

    names = {id(p): name for name, p in trainer.model.named_parameters()}
    real = {group["weight_decay"]: {names[id(p)] for p in group["params"]} for group in trainer.optimizer.param_groups}
    assert {decay: set(groups(planned)[decay > 0]) for decay in real} == real

    first = next(iter(trainer.get_train_dataloader()))
    decode = trainer.processor.tokenizer.decode
    for row, text in enumerate(found.batch):
        learned = [int(label) for label in first["labels"][row] if label != UNSUPERVISED]
        lines = re.findall(r"learned \| (.*)", text)
        assert "".join("".join(lines).split()) == "".join(decode(learned).split())
        assert text.count("mask    |") == int((first["image_index"] == row).sum())
    assert len(found.batch) == 2
    assert found.picture is not None


def test_a_published_size_stands_in_for_a_base_that_is_not_here(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "cores-7b", "--dry-run", "trainer.num_train_epochs=2"]) == 0
    said = capsys.readouterr().out
    assert "sizes as published: llava-7b-v1: there is no such folder" in said
    assert "287,847,296 of 7,709,081,648 parameters train" in said
    assert "steps: 1,000 (2 epochs of 500), 20 pictures a step" in said
    assert "first batch: the data are not here" in said
    assert not list(tmp_path.iterdir()), "nothing is written without --out"
    with pytest.raises(CheckpointError, match="nowhere: there is no such folder"):
        outline(load_recipe("cores-7b", ["model.mllm=nowhere"]))


def test_learning_from_rewards_at_full_size_fits_one_gpu(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe starts from a trained run, whose sizes are those of its bases."""

    def unreachable(name: str, weights: bool) -> Path:
        raise CheckpointError(f"{name}: is not here")

    monkeypatch.setattr("cores.training.outline.fetch", unreachable)
    name, start = "qwen3-vl-4b-sam2.1-grpo", load_recipe("qwen3-vl-4b-sam2.1").model
    assert load_recipe(name).model.start == "runs/qwen3-vl-4b-sam2.1"
    bases = ["model.start=null", f"model.mllm={start.mllm}", f"model.segmenter={start.segmenter}"]
    needed = []
    for samples in (8, 16):
        assert main(["train", name, "--dry-run", *bases, f"reinforcement.samples={samples}"]) == 0
        said = capsys.readouterr().out
        needed.append(float(re.search(r"longest rows: ([\d.]+) GB on one device", said)[1]))
        assert "start's weights 0.5" in said
    assert f"Estimate, nothing measured: about {needed[0]:.0f} GB, with pictures of 640 x 480" in recipe_text(name)
    assert needed[0] < needed[1] < 0.9 * 80


def test_the_first_batch_is_written_where_it_is_asked_for(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["train", "tiny", "--dry-run", "--out", str(tmp_path / "first"), "trainer.per_device_train_batch_size=2"]
    assert main(words) == 0
    assert "first batch, 1 more pictures" in capsys.readouterr().out
    assert sorted(file.name for file in (tmp_path / "first").iterdir()) == ["batch.png", "batch.txt"]
    text = (tmp_path / "first" / "batch.txt").read_text()
    assert text.count("\npicture ") == 1
    assert "<64 places of the picture>" in text
    assert main(words) == 2, "a folder that is there is not written into"
