"""What training programs leave: DeepSpeed's shards and LoRA beside its layers, to whole models with the same masks.

tests/data/zero2 and zero3 are what DeepSpeed 0.19.8 wrote after three steps of two processes in bfloat16, of a model
with a frozen layer, a buffer and parameters of odd sizes.
"""

import json
import pickle
import re
import shutil
import sys
import types
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from published import published_model, training_state, write_clip, write_published
from safetensors.torch import load_file, save_file
from tiny_run import Squares, tiny_recipe
from torch import Tensor

from cores.checkpoints.load import load
from cores.checkpoints.published.conversion import convert
from cores.checkpoints.published.convert_lora import Folded
from cores.checkpoints.tensors.deepspeed_shards import CLASSES, Consolidated, is_sharded
from cores.checkpoints.tensors.lazy import Shards
from cores.cli import main
from cores.errors import CheckFailed, CheckpointError
from cores.training.run import train

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize("stage", [2, 3])
def test_real_shards_are_put_together(stage: int) -> None:
    assert is_sharded(DATA / f"zero{stage}")
    found = Consolidated(DATA / f"zero{stage}")
    shapes = {"pe": (2, 3), "f.weight": (7, 3), "f.bias": (7,), "odd": (3,), "a.weight": (3, 5), "a.bias": (3,)}
    assert {name: entry.shape for name, entry in found.items()} == {**shapes, "b.weight": (2, 7)}
    assert found["f.weight"].dtype == torch.bfloat16  # frozen: as it was
    assert found["a.weight"].dtype == torch.float32  # trained: the master weights
    for name, entry in found.items():
        value = found.tensor(name)
        assert (tuple(value.shape), value.dtype) == (entry.shape, entry.dtype)


def test_both_stages_hold_the_same_numbers() -> None:
    """Both ran the same steps; only the order of sums differs."""
    two, three = Consolidated(DATA / "zero2"), Consolidated(DATA / "zero3")
    for name in two:
        torch.testing.assert_close(two.tensor(name), three.tensor(name), rtol=1e-2, atol=2e-3)
    assert torch.equal(two.tensor("f.weight"), three.tensor("f.weight"))


@pytest.mark.parametrize("stage", [2, 3])
def test_they_are_deepspeeds_own_numbers(stage: int) -> None:
    if find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed: pip install 'cores[deepspeed]'")
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    expected = get_fp32_state_dict_from_zero_checkpoint(str(DATA / f"zero{stage}"))
    found = Consolidated(DATA / f"zero{stage}")
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert torch.equal(found.tensor(name).float(), value.float()), name


def copied(stage: int, tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA / f"zero{stage}", tmp_path / "zero"))


def test_a_lost_shard_is_an_error_that_says_so(tmp_path: Path) -> None:
    folder = copied(3, tmp_path)
    for file in folder.glob("*/*rank_1_*optim*"):
        file.unlink()
    with pytest.raises(CheckpointError, match="2 processes trained, there are shards of 1"):
        Consolidated(folder)
    (folder / "latest").write_text("global_step9")
    with pytest.raises(CheckpointError, match="names global_step9, which is not there"):
        Consolidated(folder)


def test_a_class_that_is_not_deepspeeds_is_refused_by_name(tmp_path: Path) -> None:
    folder = copied(2, tmp_path)
    file = next(folder.glob("*/*rank_0_*optim*"))
    torch.save({"optimizer_state_dict": {"zero_stage": 2, "more": pickle.Unpickler}}, file)
    with pytest.raises(CheckpointError, match=r"_pickle\.Unpickler|pickle\.Unpickler"):
        Consolidated(folder)


def stand_in(name: str) -> Any:
    """A class of this full name, for pickling alone."""
    module, _, leaf = name.rpartition(".")
    made = type(leaf, (), {"__module__": module, "__qualname__": leaf})
    parts = module.split(".")
    for n in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:n]), types.ModuleType(".".join(parts[:n])))
    setattr(sys.modules[module], leaf, made)
    return made


def write_zero(folder: Path, state: dict[str, Tensor], stage: int, world: int = 3) -> Path:
    """A training state as DeepSpeed's shards; what the published programs do not train is frozen, and lies beside."""
    step = folder / "global_step5"
    step.mkdir(parents=True)
    (folder / "latest").write_text("global_step5")
    trained = {
        n: v
        for n, v in state.items()
        if re.search("lora_|text_hidden|projection|refiner|mask_decoder|embed_tokens|lm_head", n)
    }
    frozen = {n: v for n, v in state.items() if n not in trained}
    shapes = [OrderedDict((n, v.shape) for n, v in trained.items())]

    def cut(flat: Tensor) -> list[Tensor]:
        size = -(-len(flat) // world)
        return list(torch.cat([flat, flat.new_zeros(size * world - len(flat))]).split(size))

    if stage == 2:
        key, flats = "single_partition_of_fp32_groups", cut(torch.cat([v.reshape(-1) for v in trained.values()]))
        fragments = [frozen] * world
    else:
        key = "fp32_flat_groups"
        flats = [torch.cat(parts) for parts in zip(*(cut(v.reshape(-1)) for v in trained.values()), strict=True)]
        parts = {n: cut(v.reshape(-1)) for n, v in frozen.items()}
        fragments = [{n: p[rank].clone() for n, p in parts.items()} for rank in range(world)]
    kept = {name: sys.modules.get(name) for name in {".".join(c.split(".")[:n]) for c in CLASSES for n in range(1, 5)}}
    try:
        scaler, address = stand_in(CLASSES[0])(), stand_in(CLASSES[3])()
        for rank in range(world):
            optimizer = {"zero_stage": stage, "partition_count": world, key: [flats[rank].clone()],
                         "loss_scaler": scaler, "param_slice_mappings": [{"x": address}]}  # fmt: skip
            torch.save({"optimizer_state_dict": optimizer}, step / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
            model = {"module": {}, "buffer_names": [], "param_shapes": shapes, "shared_params": {},
                     "frozen_param_shapes": {n: v.shape for n, v in frozen.items()},
                     "frozen_param_fragments": fragments[rank], "ds_version": "0.10"}  # fmt: skip
            if stage == 3 or rank == 0:
                name = f"zero_pp_rank_{rank}_mp_rank_00" if stage == 3 else "mp_rank_00"
                torch.save(model, step / f"{name}_model_states.pt")
    finally:
        for name, module in kept.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
    (folder / "zero_to_fp32.py").write_text("raise SystemExit('run by nobody')")
    return folder


def base_folder(tmp_path: Path) -> Path:
    """The LLaVA that training began with: no grounding tokens in its tokenizer."""
    folder = write_published(tmp_path / "base", published_model())
    held = json.loads((folder / "added_tokens.json").read_text())
    (folder / "added_tokens.json").write_text(json.dumps({n: i for n, i in held.items() if not n.startswith("[")}))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 333}))
    (folder / "pytorch_model-00001-of-00002.bin").unlink()
    return folder


@pytest.mark.parametrize("form", ["pytorch_model.bin", "pytorch_model.bin, newer PEFT", "ZeRO-2", "ZeRO-3"])
def test_a_training_state_becomes_the_model_that_it_is(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = published_model(2, "published")
    state = training_state(model, rank=4, base_layer="newer" in form)
    if form.startswith("ZeRO"):
        src = write_zero(tmp_path / "ckpt_model", state, int(form[-1]))
    else:
        src = tmp_path / "pytorch_model.bin"
        torch.save(state, src)
    clip = write_clip(tmp_path / "clip", model)
    flags = ["--src", str(src), "--clip", str(clip), "--base", str(base_folder(tmp_path)), "--alpha", "8", "--quiet"]
    assert main(["convert", "--from", "cores", *flags, "--out", str(tmp_path / "out")]) == 0
    assert "LoRA of rank 4 folded in with alpha 8; the same masks" in capsys.readouterr().out

    expected = {name: value.clone() for name, value in model.state_dict().items()}
    for key, a in state.items():
        if ".lora_A." in key:
            b, name = state[key.replace("lora_A", "lora_B")], key.removeprefix("base_model.model.model.")
            name = f"mllm.model.language_model.{name.replace('lora_A.default.', '')}"
            expected[name] += 8 / 4 * b @ a
    found, processor = load(tmp_path / "out")
    assert [n for n, value in found.state_dict().items() if not torch.allclose(value, expected[n], atol=1e-6)] == []
    assert processor.token_ids == [333, 334]
    assert "weight + 8 / 4 * B A, in fp32" in (tmp_path / "out" / "keys.tsv").read_text()


def test_a_folded_model_that_says_something_else_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = published_model(1)
    torch.save(training_state(model), tmp_path / "state.bin")
    monkeypatch.setattr(Folded, "tensor", lambda self, key: self.inner.tensor(self.plain[key]))  # forgets the LoRA
    base = base_folder(tmp_path)
    with pytest.raises(CheckFailed, match="the folded model's masks are not those of the adapter"):
        convert("lisa", tmp_path / "state.bin", write_clip(tmp_path / "clip", model), tmp_path / "out", base=base)
    assert not (tmp_path / "out").exists()


def test_lora_without_its_partner_or_layer_is_named(tmp_path: Path) -> None:
    state = training_state(published_model(1))
    a = next(key for key in state if ".lora_A." in key)
    layer = a.removesuffix(".lora_A.default.weight").removeprefix("base_model.model.")
    for lost, message in (
        (a, f"{layer}.weight: expected lora_A and lora_B beside it"),
        (f"base_model.model.{layer}.weight", "there is no weight that it goes with"),
    ):
        torch.save({key: value for key, value in state.items() if key != lost}, tmp_path / "state.bin")
        with pytest.raises(CheckpointError, match=re.escape(message)):
            Folded(Shards([tmp_path / "state.bin"]))


def test_merge_takes_a_published_training_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = published_model(1)
    torch.save(training_state(model), tmp_path / "pytorch_model.bin")
    state, out = str(tmp_path / "pytorch_model.bin"), ["--out", str(tmp_path / "out"), "--quiet"]
    assert main(["merge", state, *out]) == 2
    assert "is a training state of another program: say whose with --from" in capsys.readouterr().err
    assert main(["merge", state, "--from", "lisa", *out]) == 2
    assert "needs --base" in capsys.readouterr().err
    flags = ["--base", str(base_folder(tmp_path)), "--clip", str(write_clip(tmp_path / "clip", model))]
    assert main(["merge", state, "--from", "lisa", *flags, *out]) == 0
    assert "LoRA of rank 4 folded in with alpha 16; the same masks" in capsys.readouterr().out
    assert load(tmp_path / "out")[1].token_ids == [333]


@pytest.mark.parametrize("stage", [2, 3])
def test_our_own_run_is_merged_from_its_shards(stage: int, tmp_path: Path) -> None:
    """As ZeRO-3 leaves a checkpoint of ours: empty tensors in our files, the real ones in shards."""
    train(tiny_recipe(tmp_path, trainer__max_steps=2), tmp_path / "run", Squares, device="cpu", quiet=True)
    assert main(["merge", str(tmp_path / "run"), "--out", str(tmp_path / "expected"), "--quiet"]) == 0
    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
    adapter = load_file(checkpoint / "adapter_model.safetensors")
    state = {k.removeprefix("base_model.model.").replace(".weight", ".default.weight"): v for k, v in adapter.items()}
    learned = load_file(checkpoint / "trained.safetensors")
    write_zero(checkpoint, {**state, **learned}, stage)
    # everything trains here, and nothing that is frozen lies beside it
    save_file({name: value.new_zeros(0) for name, value in learned.items()}, checkpoint / "trained.safetensors")
    (checkpoint / "zero_to_fp32.py").unlink()
    assert main(["merge", str(tmp_path / "run"), "--out", str(tmp_path / "found"), "--quiet"]) == 0
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("expected", "found"))
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    assert sorted(path.name for path in (tmp_path / "run").iterdir() if path.name.startswith(".")) == []
