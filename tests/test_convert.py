"""Published checkpoints to model folders: every form, every tensor, every mistake named before anything is written."""

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from published import (
    PIECES,
    published_model,
    published_state,
    training_state,
    write_clip,
    write_published,
    write_weights,
)
from safetensors.torch import load_file
from tiny_run import Squares, tiny_recipe

from cores.checkpoints.load import load, load_model
from cores.checkpoints.published.conversion import convert
from cores.checkpoints.published.keys import PUBLISHED, rename
from cores.checkpoints.published.plan import FILE, Source, make_plan
from cores.checkpoints.tensors.lazy import open_shards
from cores.cli import main
from cores.errors import CheckpointError
from cores.modeling import CoresModel
from cores.training.run import train
from cores.training.start import start

FORMS = {
    "plain, two shards": ((2, "none", "linear"), 2, False),
    "refiner, safetensors": ((2, "published", "linear"), 3, True),
    "LLaVA-1.5's projector, one file": ((2, "published", "mlp2x_gelu"), 1, True),
    "LISA": ((1, "none", "linear"), 1, False),
}


def folders(tmp_path: Path, model: CoresModel, shards: int = 1, safetensors: bool = False) -> tuple[Path, Path]:
    return write_published(tmp_path / "src", model, shards, safetensors), write_clip(tmp_path / "clip", model)


def kind_of(model: CoresModel) -> str:
    return "lisa" if len(model.config.levels) == 1 else "cores"


def same(found: CoresModel, expected: CoresModel) -> None:
    one, two = found.state_dict(), expected.state_dict()
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_its_model(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args, shards, safetensors = FORMS[form]
    model = published_model(*args)
    src, clip = folders(tmp_path, model, shards, safetensors)
    out = tmp_path / "made" / "out"
    flags = ["--src", str(src), "--clip", str(clip), "--out", str(out)]
    assert main(["convert", "--from", kind_of(model), *flags]) == 0
    printed = capsys.readouterr().out
    assert "model.layers.{i}.{rest} -> mllm.model.language_model.layers.{i}.{rest}" in printed
    assert "none left over" in printed

    about = {"config.json", "generation_config.json", "tokenizer.json", "processor_config.json", "prompt.json", FILE}
    assert about | {"README.md"} <= {file.name for file in out.iterdir()}
    found, processor = load(out)
    same(found, model)
    assert processor.token_ids == model.config.token_ids  # by the checkpoint's tokenizer, after LLaVA's own additions
    assert processor.token_ids[-1] == PIECES + (4 if len(model.config.levels) == 2 else 3)
    assert (found.config.refiner, found.config.style) == (model.config.refiner, model.config.style)
    assert (processor.prompt.style, processor.sizes.clip_fit) == (model.config.style, "crop")
    assert processor.prompt.format == "llava_v1"
    assert load_file(next(out.glob("model*.safetensors")))["mllm.lm_head.weight"].dtype == torch.float16
    assert found.config.segmenter_config.vision_config.global_attn_indexes == [0, 1]


def test_the_table_names_every_key_of_both_sides(tmp_path: Path) -> None:
    model = published_model(2, "published")
    src, clip = folders(tmp_path, model, 2)
    convert("cores", src, clip, tmp_path / "out")
    header, *rows = [line.split("\t") for line in (tmp_path / "out" / FILE).read_text().splitlines()]
    table = [dict(zip(header, row, strict=True)) for row in rows]
    theirs = {key for file in [*src.glob("*.bin"), *clip.glob("*.bin")] for key in torch.load(file)}
    assert {row["key"] for row in table if row["key"]} == theirs
    assert {row["target"] for row in table if row["target"]} == set(model.state_dict())
    left_out = {row["key"]: row["note"] for row in table if row["action"] == "ignored"}
    assert "computed from the config" in left_out["model.layers.1.self_attn.rotary_emb.inv_freq"]
    assert "CLIP's other half" in left_out["logit_scale"]
    assert all(left_out.values())


def test_all_that_does_not_fit_is_said_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    model = published_model(2)
    src, clip = folders(tmp_path, model)
    state = published_state(model)
    del state["model.text_hidden_fcs.0.2.bias"]
    state["model.visual_model.mask_decoder.mask_tokens.weight"] = torch.zeros(4, 31)
    state["model.image_newline"] = torch.zeros(3)
    state["model.mm_projector.bias"] = torch.zeros(31)
    write_weights(src, state)
    with pytest.raises(CheckpointError) as caught:
        convert("cores", src, clip, tmp_path / "out")
    said = str(caught.value)
    assert "missing: projection.2.bias (model.text_hidden_fcs.0.2.bias)" in said
    assert "unexpected: model.image_newline (src)" in said
    assert "wrong shape: segmenter.mask_decoder.mask_tokens.weight is (4, 31), the config says (4, 32)" in said
    assert "wrong shape: mllm.model.multi_modal_projector.bias is (31,), the config says (32,)" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip", "src"]


def rewrite(file: Path, **changes: Any) -> None:
    stored = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in stored.items() if value is not None}))


def no_shard(src: Path) -> None:
    (src / "pytorch_model-00002-of-00002.bin").unlink()


def cut_shard(src: Path) -> None:
    file = src / "pytorch_model-00001-of-00002.bin"
    file.write_bytes(file.read_bytes()[:-500])


def no_tokenizer(src: Path) -> None:
    (src / "tokenizer.model").unlink()


MISTAKES = {
    "there is no pytorch_model-00002-of-00002.bin": no_shard,
    "pytorch_model-00001-of-00002.bin: is damaged": cut_shard,
    "tokenizer.model: is missing": no_tokenizer,
    "config.json: is missing": lambda src: (src / "config.json").unlink(),
    "does not hold [SEG_SEMA]": lambda src: rewrite(src / "added_tokens.json", **{"[SEG_SEMA]": None}),
    "[SEG] is 400, expected 334": lambda src: rewrite(src / "added_tokens.json", **{"[SEG]": 400}),
    "embed_tokens.weight is (335, 32), the config says (999, 32)": lambda src: rewrite(
        src / "config.json", vocab_size=999
    ),
    "has no hidden_size": lambda src: rewrite(src / "config.json", hidden_size=None),
    "is a model folder of cores already": lambda src: rewrite(src / "config.json", model_type="cores"),
    "names files outside": lambda src: rewrite(
        src / "pytorch_model.bin.index.json", weight_map={"lm_head.weight": "../../secret.bin"}
    ),
    "the shards have no such": lambda src: rewrite(
        src / "pytorch_model.bin.index.json",
        weight_map={"a.weight": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"},
    ),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_is_one_error_and_nothing_is_written(
    message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    src, clip = folders(tmp_path, published_model(2), 2)
    MISTAKES[message](src)
    flags = ["--src", str(src), "--clip", str(clip), "--out", str(tmp_path / "out"), "--quiet"]
    assert main(["convert", "--from", "cores", *flags]) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip", "src"]


@pytest.mark.parametrize(("value", "what"), [(float("nan"), "NaN"), (float("-inf"), "infinite numbers")])
def test_what_is_no_number_is_named_by_its_key_and_nothing_is_written(
    value: float, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = published_model(2)
    src, clip = folders(tmp_path, model)
    broken = ("model.text_hidden_fcs.0.0.weight", "model.visual_model.mask_decoder.iou_token.weight")
    state = published_state(model)
    for key in broken:
        state[key].view(-1)[3] = value
    write_weights(src, state)
    assert (
        main(["convert", "--from", "cores", "--src", str(src), "--clip", str(clip), "--out", str(tmp_path / "o")]) == 2
    )
    said = capsys.readouterr().err
    assert all(f"{key}: holds {what} (1 of" in said for key in broken)
    assert not (tmp_path / "o").exists()


def test_a_broken_lora_is_not_proved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = published_model(2)
    src, clip = folders(tmp_path, model)
    state = training_state(model)
    broken = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.default.weight"
    state[broken][2, 1] = float("nan")
    (tmp_path / "state").mkdir()
    write_weights(tmp_path / "state", state)
    flags = ["--from", "cores", "--base", str(src), "--clip", str(clip), "--out", str(tmp_path / "o")]
    assert main(["merge", str(tmp_path / "state" / "pytorch_model.bin"), *flags]) == 2
    assert f"{broken}: holds NaN" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(("levels", "verb"), [(1, "lisa"), (2, "cores")])
def test_whoever_asks_a_published_folder_is_told_the_verb(
    levels: int, verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    src = write_published(tmp_path / "src", published_model(levels))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    flags = ["--model", str(src), "--out", str(tmp_path / "answers")]
    assert main(["predict", str(tmp_path / "a.png"), "the cup", *flags]) == 2
    assert f"`cores convert --from {verb} --src {src} --clip CLIP --out DIR` makes one" in capsys.readouterr().err


def test_configs_that_say_nonsense_are_one_error(tmp_path: Path) -> None:
    src, clip = folders(tmp_path, published_model(2))
    for folder, changes in (
        (src, {"num_hidden_layers": 10**6}),
        (src, {"hidden_size": "x"}),
        (src, {"num_attention_heads": 0}),
        (src, {"rope_scaling": 3}),
        (src, {"mm_vision_select_layer": True}),
        (src, {"mm_vision_select_layer": 99}),
        (src, {"mm_vision_select_layer": "-2"}),
        (src, {"mm_vision_select_feature": ["patch"]}),
        (src, {"quantization_config": {"load_in_8bit": True}}),
        (clip, {"vision_config": 7}),
        (clip, {"vision_config": {"num_hidden_layers": 10**6}}),
        (clip, {"model_type": "bert"}),
    ):
        before = (folder / "config.json").read_text()
        rewrite(folder / "config.json", **changes)
        with pytest.raises(CheckpointError):
            convert("cores", src, clip, tmp_path / "out")
        (folder / "config.json").write_text(before)


def test_the_flags_that_a_kind_needs_and_has_no_use_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out")]
    for args, message in (
        (["--from", "lisa", "--src", "x"], "--from lisa needs --clip as well"),
        (["--from", "sam", "--src", "x", "--alpha", "8"], "--from sam has no use for --alpha"),
        (["--from", "llava-delta", "--base", "x", "--clip", "x"], "needs --delta as well"),
        (["--from", "lisa", "--src", "no/such/thing", "--clip", "x"], "a hub id looks like owner/name@revision"),
    ):
        assert main(["convert", *args, *out]) == 2
        assert message in capsys.readouterr().err


def test_a_tower_of_another_width_is_told_by_the_projector(tmp_path: Path) -> None:
    model = published_model(2)
    src, clip = folders(tmp_path, model)
    rewrite(clip / "config.json", vision_config={**published_vision(model), "hidden_size": 24})
    with pytest.raises(CheckpointError, match="the projector takes 16 numbers a patch, the vision tower gives 24"):
        convert("cores", src, clip, tmp_path / "out")


def published_vision(model: CoresModel) -> dict[str, Any]:
    found: dict[str, Any] = model.config.mllm_config.vision_config.to_dict()
    return found


def test_another_programs_tokens_are_told(tmp_path: Path) -> None:
    src, clip = folders(tmp_path, published_model(2))
    with pytest.raises(CheckpointError, match="this is a CoReS with two levels; use --from cores"):
        convert("lisa", src, clip, tmp_path / "out")


def test_dtype_is_that_of_the_file_or_the_one_asked_for(tmp_path: Path) -> None:
    model = published_model(1)
    src, clip = folders(tmp_path, model)
    convert("lisa", src, clip, tmp_path / "out", dtype=torch.bfloat16)
    assert {value.dtype for value in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}
    assert load_model(tmp_path / "out", None).dtype == torch.bfloat16


def test_numbers_that_a_dtype_cannot_hold_are_no_infinities(tmp_path: Path) -> None:
    model = published_model(1)
    src, clip = folders(tmp_path, model)
    state = published_state(model)
    state["model.norm.weight"] = torch.full((32,), 1e30).bfloat16()
    write_weights(src, state)
    with pytest.raises(CheckpointError, match=r"language_model\.norm\.weight: holds numbers that F16 cannot"):
        convert("lisa", src, clip, tmp_path / "out", dtype=torch.float16)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    src, clip = folders(tmp_path, published_model(1))
    flags = ["--src", str(src), "--clip", str(clip), "--out", str(tmp_path / "made" / "out"), "--quiet"]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        assert main(["convert", "--from", "lisa", *flags]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "the disk is full" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*") if "out" in path.name] == []


def peak_of(work: Callable[[], None]) -> int:
    """How many bytes more than before are in memory at once."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    except OSError:
        pytest.skip("this system does not tell a process's peak memory")

    def held(name: str) -> int:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) * 1024

    before = held("VmRSS")
    work()
    return held("VmHWM") - before


@pytest.mark.parametrize("safetensors", [False, True])
def test_tensors_pass_through_less_memory_than_a_shard(
    safetensors: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """256 MB in one shard, twice as much when it is written in fp32; mappings are dropped after 16 MB.

    The kernel may map up to a few dozen MB around what is read: the bound is half the shard, far above that.
    """
    monkeypatch.setattr("cores.checkpoints.tensors.lazy.MAPPED", 16 * 2**20)
    state = {f"model.layers.{n}.mlp.up_proj.weight": torch.ones(2 * 2**20).half() for n in range(64)}
    write_weights(tmp_path, state, 1, safetensors)
    (tmp_path / "out").mkdir()
    del state

    def work() -> None:
        tensors = open_shards(tmp_path)
        shapes = {str(rename(name, PUBLISHED)): entry.shape for name, entry in tensors.items()}
        make_plan("x", [Source("x", tensors, PUBLISHED)], shapes).write(tmp_path / "out", torch.float32)

    assert peak_of(work) < 128 * 2**20
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert len(written) == 64
    assert all(bool((value == 1).all()) for value in written.values())


def test_training_goes_on_from_a_converted_model_and_keeps_every_weight(tmp_path: Path) -> None:
    """The published programs make SAM and the MLP anew when they start from a merged checkpoint. Not here."""
    model = published_model(2, "published")
    src, clip = folders(tmp_path, model)
    convert("cores", src, clip, tmp_path / "ours")
    settings = {"model__start": tmp_path / "ours", "model__train": "[lora,projection,refiner,mask_decoder]"}
    settings |= {
        "trainer__warmup_steps": 0,
        "model__refiner": "null",
        "prompt__format": "llava_v1",
        "prompt__max_text_tokens": 2000,
    }
    recipe = tiny_recipe(tmp_path, model__bases="null", trainer__max_steps=1, trainer__learning_rate=1e-4, **settings)
    _, started, processor = start(recipe, 0)
    same(started, model)
    assert processor.prompt.style == "published"
    train(recipe, tmp_path / "run", Squares, device="cpu", quiet=True)
    assert main(["merge", str(tmp_path / "run"), "--out", str(tmp_path / "merged"), "--quiet"]) == 0
    found, expected = load(tmp_path / "merged")[0].state_dict(), model.state_dict()
    moved = {name for name in found if not torch.equal(found[name], expected[name])}
    assert all(torch.allclose(found[name], expected[name], atol=1e-3) for name in moved)  # a step, not a new start
    assert {name.split(".")[0] for name in moved} >= {"projection", "refiner"}
    assert not [name for name in moved if "vision_" in name or "embed_tokens" in name or "mlp.up_proj" in name]
    assert any(name.startswith("segmenter.mask_decoder.") for name in moved)
