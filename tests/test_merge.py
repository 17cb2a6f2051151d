"""A run merged into a plain model: the same masks, proved before it is kept."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_run import Squares, tiny_recipe

from cores.checkpoints.load import load, load_model
from cores.checkpoints.probe import TOLERANCE, largest_difference, probe, smallest_iou
from cores.checkpoints.runs.merging import merge
from cores.cli import main
from cores.errors import CheckpointError, UserError
from cores.training.run import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    recipe = tiny_recipe(folder, trainer__max_steps=6, trainer__learning_rate="3e-2")
    train(recipe, folder / "run", Squares, device="cpu", quiet=True)
    return folder / "run"


def test_merged_is_unmerged(run, tmp_path):
    merged = merge(run, tmp_path / "model")
    assert merged.checkpoint == run / "checkpoint-6"
    assert merged.difference <= TOLERANCE
    assert merged.iou == 1
    unmerged = load_model(run / "checkpoint-6", torch.float32).eval()
    plain, processor = load(tmp_path / "model", device="cpu")
    assert largest_difference(probe(unmerged, processor), probe(plain, processor)) <= TOLERANCE
    layer = "mllm.model.language_model.layers.0.self_attn.q_proj"
    assert not torch.equal(unmerged.get_submodule(layer).base_layer.weight, plain.get_submodule(layer).weight)
    card = (tmp_path / "model" / "README.md").read_text()
    assert r"`squares\|train`" in card, "a bar in a table is escaped"


def test_merged_in_half_precision_draws_the_same_masks(run, tmp_path):
    assert main(["merge", str(run), "--out", str(tmp_path / "model"), "--dtype", "float16", "--quiet"]) == 0
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    plain, processor = load(tmp_path / "model", device="cpu")
    unmerged = load_model(run / "checkpoint-6", torch.float32).eval()
    assert smallest_iou(probe(unmerged, processor), probe(plain, processor)) >= 0.999


def test_masks_that_rounding_changes_are_not_kept(run, tmp_path, capsys):
    """With a projection this large, masks are noise at a threshold: in bfloat16 some pixels change sides."""
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / "checkpoint-6" / "trained.safetensors"
    state = load_file(file)
    save_file({name: value * 30 if name.startswith("projection") else value for name, value in state.items()}, file)
    assert main(["merge", str(tmp_path / "run"), "--out", str(tmp_path / "model"), "--dtype", "bfloat16"]) == 1
    error = capsys.readouterr().err
    assert "in torch.bfloat16 its masks are others: IoU 0." in error
    assert error.count("\n") == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_a_run_is_merged_onto_the_rounding_that_it_was_trained_on(tmp_path):
    """Bases in float16, frozen weights in bfloat16: what was learned belongs to those, in whatever it is loaded."""
    recipe = tiny_recipe(tmp_path, model__dtype="bfloat16", trainer__bf16="true", trainer__max_steps=1)
    for part in ("mllm", "segmenter"):
        file = tmp_path / "bases" / part / "model.safetensors"
        save_file({name: value.half() for name, value in load_file(file).items()}, file, metadata={"format": "pt"})
    trainer = train(recipe, tmp_path / "run", Squares, device="cpu", quiet=True)
    trained = {name: value for name, value in trainer.model.named_parameters() if not value.requires_grad}
    assert {value.dtype for value in trained.values()} == {torch.bfloat16}
    model = load_model(tmp_path / "run" / "checkpoint-1", torch.float32)
    found = dict(model.named_parameters())
    assert found.keys() >= trained.keys()
    for name, value in trained.items():
        assert torch.equal(found[name], value.float()), name
    for name, buffer in model.named_buffers():  # rotary frequencies are exact, in training and after it
        assert torch.equal(buffer, dict(trainer.model.named_buffers())[name]), name
        assert buffer.dtype != torch.bfloat16, name


def test_a_merged_model_that_says_something_else_is_not_kept(run, tmp_path, capsys):
    """An adapter of finite numbers whose product is not: nothing that it draws can be compared."""
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    file = broken / "checkpoint-6" / "adapter_model.safetensors"
    state = load_file(file)
    save_file({name: value * 1e25 for name, value in state.items()}, file)
    assert main(["merge", str(broken), "--out", str(tmp_path / "model")]) == 1
    error = capsys.readouterr().err
    assert "the merged model's masks are not the checkpoint's" in error
    assert error.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["broken"]


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "trained.safetensors"])
def test_what_is_no_number_is_named_and_nothing_is_kept(name, run, tmp_path, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    state = load_file(broken / "checkpoint-6" / name)
    tensor = sorted(state)[1]
    state[tensor].view(-1)[0] = float("nan")
    save_file(state, broken / "checkpoint-6" / name)
    assert main(["merge", str(broken), "--out", str(tmp_path / "model")]) == 2
    error = capsys.readouterr().err
    assert f"{tensor.removeprefix('base_model.model.')}: holds NaN (1 of" in error
    assert [file.name for file in tmp_path.iterdir()] == ["broken"]


def test_what_cannot_be_merged_says_why(run, tmp_path):
    merge(run, tmp_path / "model")
    with pytest.raises(CheckpointError, match="is a plain model already"):
        merge(tmp_path / "model", tmp_path / "again")
    with pytest.raises(UserError, match="exists already"):
        merge(run, tmp_path / "model")
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    shutil.rmtree(moved / "checkpoint-6")
    with pytest.raises(CheckpointError, match="the run has no checkpoint yet"):
        merge(moved, tmp_path / "again")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model", "moved"]


def test_differences_are_seen():
    one = [torch.tensor([[[1.0, -2.0]]]), torch.tensor([[[3.0, 4.0]]])]
    two = [torch.tensor([[[1.0, -2.0]]]), torch.tensor([[[3.0, -4.0]]])]
    assert largest_difference(one, two) == 2
    assert smallest_iou(one, two) == 0.5
    assert smallest_iou(one, one) == 1
    broken = [one[0], one[1] * float("nan")]
    assert not largest_difference(one, broken) <= TOLERANCE
    assert not largest_difference(broken, broken) <= TOLERANCE
    assert smallest_iou(broken, broken) == 0
