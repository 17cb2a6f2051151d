"""Folders of models: whole or not at all, strictly read, and what a run learned readable by PEFT itself."""

import dataclasses
import json
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny import tiny_config, tiny_model
from tiny_run import Squares, tiny_recipe
from tiny_tokenizer import tiny_processor

from cores.checkpoints.find import best_of, find
from cores.checkpoints.load import load, load_model
from cores.checkpoints.probe import largest_difference, probe
from cores.checkpoints.runs.bases import DIFFERENCE, PROJECTION, load_parts, write_difference
from cores.checkpoints.runs.fingerprint import fingerprint
from cores.checkpoints.runs.origin import Base
from cores.checkpoints.save import Card, save
from cores.errors import CheckpointError, UserError
from cores.modeling.model import CoresModel
from cores.training.run import train
from cores.training.start import start
from cores.whole import whole_folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps, with dropout and with weights far enough from the base to tell."""
    folder = tmp_path_factory.mktemp("run")
    train(tiny_recipe(folder), folder / "run", Squares, device="cpu", quiet=True)
    return folder / "run"


def saved(folder: Path, **kwargs: object) -> Path:
    return save(tiny_model(), tiny_processor(), folder, **kwargs)


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_what_is_saved_is_loaded(levels, dtype, tmp_path):
    model, processor = tiny_model(tiny_config(levels, refiner="region")), tiny_processor(levels)
    folder = save(model, processor, tmp_path / "a" / "model", dtype=dtype)
    again, its_processor = load(folder, device="cpu", dtype=dtype)
    state = model.state_dict()
    assert all(torch.equal(value, state[name].to(dtype or value.dtype)) for name, value in again.state_dict().items())
    assert {value.dtype for value in load_file(folder / "model.safetensors").values()} == {dtype or torch.float32}
    assert not again.training
    assert its_processor.prompt == processor.prompt
    assert its_processor.sizes == processor.sizes
    assert again.config.to_dict()["levels"] == model.config.to_dict()["levels"]
    names = {file.name for file in folder.iterdir()}
    expected = {"config.json", "generation_config.json", "tokenizer.json", "processor_config.json", "prompt.json"}
    assert expected | {"README.md", "model.safetensors", "digests.json", "tokenizer_config.json"} == names
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["model"]


def test_without_a_dtype_a_cpu_gets_float32(tmp_path):
    folder = saved(tmp_path / "model", dtype=torch.bfloat16)
    assert load(folder, device="cpu")[0].dtype == torch.float32
    with pytest.raises(CheckpointError, match="dtype: found 'float33'"):
        load(folder, device="cpu", dtype="float33")


def test_every_file_has_the_mode_of_a_new_one(tmp_path):
    other = tmp_path / "other"
    other.touch()
    modes = {file.name: file.stat().st_mode for file in saved(tmp_path / "model").iterdir()}
    assert set(modes.values()) == {other.stat().st_mode}


def test_the_card_says_what_it_is(tmp_path):
    card = Card(title="Squares", about="Knows squares.", base=["tiny"], data=["squares|train"], figures={"gIoU": 0.5})
    text = (saved(tmp_path / "model", card=card) / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: cores\n")
    for part in (
        "license: apache-2.0",
        "# Squares",
        "Knows squares.",
        "location `[LOC]` -> target `[SEG]`",
        "| gIoU |",
    ):
        assert part in text


def test_a_folder_that_is_there_stays_unless_it_may_be_replaced(tmp_path):
    folder = saved(tmp_path / "model")
    (folder / "stale").write_text("")
    with pytest.raises(UserError, match="exists already"):
        saved(folder)
    saved(folder, replace=True)
    assert not (folder / "stale").exists()


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Files end after 60 kB, as if the disk were full: the tiny model's weights are larger."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="the disk is full"):
        saved(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_what_was_there(tmp_path):
    folder = saved(tmp_path / "model")
    before = fingerprint(folder)

    def write() -> None:
        with whole_folder(folder, replace=True) as part:
            (part / "model.safetensors").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert fingerprint(folder) == before
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def spoil(folder: Path, **changes: torch.Tensor | None) -> None:
    """Change, add or (None) take out tensors of a folder's weights; `__` stands for a dot."""
    file = folder / "model.safetensors"
    state = load_file(file)
    for name, value in changes.items():
        state.pop(name.replace("__", "."), None)
        if value is not None:
            state[name.replace("__", ".")] = value
    save_file(state, file, metadata={"format": "pt"})


def test_every_tensor_that_does_not_fit_is_named(tmp_path):
    folder = saved(tmp_path / "model")
    spoil(folder, projection__0__weight=None, projection__2__bias=torch.zeros(3), extra=torch.zeros(1))
    with pytest.raises(CheckpointError) as error:
        load(folder, device="cpu")
    for part in ("missing: projection.0.weight", "unexpected: extra", "wrong shape: projection.2.bias is (3,)"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "there is no such folder; give a model folder, a run folder or a hub id"),
        (lambda folder: folder.write_text(""), "is a file, expected the folder"),
        (lambda folder: folder.mkdir(), "holds no model: there is no config.json, only nothing"),
        (lambda folder: (folder.mkdir(), (folder / "config.json").write_text("{")), "config.json: cannot be read"),
        (
            lambda folder: (folder.mkdir(), (folder / "config.json").write_text('{"model_type": "llava"}')),
            "is a model of type 'llava', not of cores: `cores convert --from llava --src ",
        ),
        (lambda folder: (saved(folder) / "model.safetensors").unlink(), "holds no weights"),
        (lambda folder: (saved(folder) / "prompt.json").unlink(), "prompt.json"),
        (lambda folder: (saved(folder) / "tokenizer.json").unlink(), "tokenizer"),
        (lambda folder: (saved(folder) / "model.safetensors").write_bytes(b"12345678{}"), "model"),
        (lambda folder: (folder.mkdir(), (folder / "recipe.yaml").write_text("")), "the run has no checkpoint yet"),
    ],
)
def test_a_folder_that_cannot_be_used_says_why(make, message, tmp_path):
    make(tmp_path / "model")
    with pytest.raises(CheckpointError) as error:
        load(tmp_path / "model", device="cpu")
    assert message in str(error.value)
    assert "model" in str(error.value)


def test_a_hub_id_without_a_hub_is_one_clear_error(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="nobody/nothing: is no folder here and not in the hub's cache"):
        find("nobody/nothing")


def test_a_run_is_found_by_its_best_or_last_checkpoint(run, tmp_path):
    assert find(run) == best_of(run) == run / "checkpoint-4"
    assert find(run / "checkpoint-4") == run / "checkpoint-4"
    names = {file.name for file in (run / "checkpoint-4").iterdir()}
    learned = {"adapter_config.json", "adapter_model.safetensors", "trained.safetensors", "base.json", "optimizer.pt"}
    assert learned | {"config.json", "tokenizer.json", "processor_config.json", "prompt.json"} <= names
    assert not {name for name in names if name.startswith("model")}, "the base is not stored again"


# peft asks transformers 5.23 under a name that transformers has deprecated
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_peft_reads_the_adapter_itself(run):
    """PeftModel on the same base gives the same hidden states as ours, unmerged."""
    checkpoint = run / "checkpoint-4"
    ours = load_model(checkpoint, torch.float32).eval()
    base = Base.load(checkpoint)
    _, plain, processor = start(tiny_recipe(run.parent), base.seed)
    trained = load_file(checkpoint / "trained.safetensors")
    plain.load_state_dict(trained, strict=False)
    theirs = PeftModel.from_pretrained(plain, str(checkpoint)).eval()
    batch = processor.collate([Squares()[0]], seed=0, epoch=0, indices=[0])
    with torch.no_grad():
        one, two = ours(**batch), theirs(**batch)
    torch.testing.assert_close(one.hidden_states, two.hidden_states)
    assert one.loss == two.loss


def test_what_was_learned_is_read_strictly(run, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    file = broken / "checkpoint-4" / "adapter_model.safetensors"
    state = load_file(file)
    gone = next(name for name in state if "lora_A" in name)
    state["base_model.model.other"] = state.pop(gone)
    save_file(state, file)
    with pytest.raises(CheckpointError) as error:
        load(broken, device="cpu")
    assert "unexpected: other" in str(error.value)
    assert f"missing: {gone.removeprefix('base_model.model.')}" in str(error.value)
    file.unlink()
    with pytest.raises(CheckpointError, match="is missing; the checkpoint is not whole"):
        load(broken, device="cpu")


def test_a_run_can_start_from_a_run_and_its_base_may_not_change(run, tmp_path):
    recipe = tiny_recipe(run.parent, model__start=str(run), model__bases="null")
    recipe.model.refiner = None
    recipe.prompt.format = recipe.prompt.exemplars = None
    train(recipe, tmp_path / "second", Squares, device="cpu", quiet=True)
    assert Base.load(tmp_path / "second" / "checkpoint-4").paths == {"start": str(run / "checkpoint-4")}
    first, second = load(run, device="cpu")[0], load(tmp_path / "second", device="cpu")[0]
    assert not torch.equal(first.mllm.lm_head.weight, second.mllm.lm_head.weight)
    base = Base.load(tmp_path / "second" / "checkpoint-4")
    changed = dataclasses.replace(base, fingerprints={"start": "sha256:0"})
    changed.write(tmp_path / "second" / "checkpoint-4")
    with pytest.raises(CheckpointError, match="weights have changed since the run began"):
        load(tmp_path / "second", device="cpu")
    with pytest.raises(CheckpointError, match="base.json: cannot be read"):
        Base.load(tmp_path)


def test_bases_ship_as_a_difference(run, tmp_path, monkeypatch):
    """Bases with a projection, a model trained on them: from the model and the difference, the bases come back."""
    bases, package = tmp_path / "bases", tmp_path / "package"
    shutil.copytree(run.parent / "bases", bases)
    projection = {name: value.contiguous() for name, value in tiny_model(seed=5).projection.state_dict().items()}
    save_file(projection, bases / PROJECTION)
    model, processor = load(run, device="cpu")
    save(model, processor, package / "shipped" / "cores-tiny", dtype=torch.float16)
    shipped_model = load_model(package / "shipped" / "cores-tiny", torch.float16)
    write_difference(bases, shipped_model, package / "shipped" / "bases-tiny")
    stored = load_file(package / "shipped" / "bases-tiny" / DIFFERENCE)
    assert "mllm.lm_head.weight" in stored
    assert not [name for name in stored if name.startswith("segmenter.vision_encoder")], "what is the same stays out"

    monkeypatch.setattr("cores.checkpoints.find.SHIPPED", package / "shipped")
    recipe = tiny_recipe(run.parent, model__bases="shipped")
    _, built, _ = start(recipe, 0)
    expected = load_rounded(bases)
    for name, value in built.state_dict().items():
        if not name.startswith("refiner."):
            torch.testing.assert_close(value, expected[name], msg=name)


def load_rounded(bases: Path) -> dict[str, torch.Tensor]:
    """The bases' tensors after rounding to half precision."""
    parts = load_parts(Base({"bases": str(bases)}))
    state = {f"mllm.{name}": value for name, value in parts.mllm.state_dict().items()}
    state |= {f"segmenter.{name}": value for name, value in parts.segmenter.state_dict().items()}
    assert parts.projection is not None
    state |= {f"projection.{name}": value for name, value in parts.projection.items()}
    return {name: value.half().float() for name, value in state.items()}


def test_bases_that_are_not_whole_are_refused(tmp_path):
    recipe = tiny_recipe(tmp_path)
    spoil(tmp_path / "bases" / "segmenter", mask_decoder__iou_token__weight=None)
    with pytest.raises(CheckpointError, match="missing: mask_decoder.iou_token.weight"):
        start(recipe, 0)
    (tmp_path / "bases" / "mllm").rename(tmp_path / "bases" / "llava")
    with pytest.raises(CheckpointError, match=r"expected a folder with mllm/ and segmenter/; there is no .*mllm"):
        start(recipe, 0)


def test_folding_lora_changes_nothing_that_is_said(run):
    unmerged = load_model(run / "checkpoint-4", torch.float32).eval()
    merged, processor = load(run, device="cpu")
    assert type(merged) is CoresModel
    assert not [name for name, _ in merged.named_parameters() if "lora" in name]
    assert largest_difference(probe(unmerged, processor), probe(merged, processor)) < 1e-4
    adapter = json.loads((run / "checkpoint-4" / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"]) == (2, 4)
