"""Features of the frozen segmenter kept on disk: training is the same with them, whatever is there already.

The same to rounding: how many pictures an encoder sees at once changes its last digits.
"""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_model
from tiny_run import Squares, tiny_recipe

from cores.cli import main
from cores.errors import RecipeError
from cores.modeling.mllms.llava import LlavaMLLM
from cores.modeling.segmenters.base import Features
from cores.scenes.source import open_scenes
from cores.scenes.write import write_scenes
from cores.training.feature_cache import FeatureCache, picture_key
from cores.training.kept import open_caches
from cores.training.run import train

LOSSES = ("loss", "text_loss", "mask_loss", "grad_norm")


def trained(folder: Path, name: str, **settings: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The losses of every step and the weights of the last."""
    recipe = tiny_recipe(
        folder, trainer__max_steps=8, trainer__save_strategy="steps", trainer__save_steps=8, **settings
    )
    train(recipe, folder / name, Squares, device="cpu", quiet=True)
    lines = [json.loads(line) for line in (folder / name / "log.jsonl").read_text().splitlines()]
    found = [tuple(line[key] for key in LOSSES) for line in lines if "loss" in line]
    assert len(found) == 8
    return torch.tensor(found), load_file(folder / name / "checkpoint-8" / "trained.safetensors")


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*.safetensors")}


@pytest.mark.parametrize("workers", [0, 2])
def test_cold_warm_and_without_are_one(workers: int, tmp_path: Path) -> None:
    workers_said = {"trainer__dataloader_num_workers": workers}
    losses, weights = trained(tmp_path, "without", **workers_said)
    kept = tmp_path / "kept"
    for name in ("cold", "warm"):
        before = files(kept)
        found, its = trained(tmp_path, name, data__features=kept, **workers_said)
        torch.testing.assert_close(found, losses, rtol=1e-5, atol=0)
        for key in weights.keys() - {key for key in weights if key.endswith("k_proj.bias")}:  # softmax knows none
            torch.testing.assert_close(its[key], weights[key], rtol=0, atol=1e-4)  # of steps of 1e-2
        if name == "warm":
            assert files(kept) == before
    assert 4 < len(files(kept)) <= 12
    for number, path in enumerate(files(kept)):  # some are gone, one is broken
        if number % 3 == 0:
            path.unlink()
    next(iter(files(kept))).write_bytes(b"broken")
    found, _ = trained(tmp_path, "half", data__features=kept, **workers_said)
    torch.testing.assert_close(found, losses, rtol=1e-5, atol=0)
    assert len(files(kept)) == len(before)
    assert all(len(content) > 100 for content in files(kept).values())


def test_patches_of_the_language_model_are_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses, weights = trained(tmp_path, "without")
    kept = {"data__features": tmp_path / "kept", "data__features_of": "[projector]"}
    for name in ("cold", "warm"):
        found, its = trained(tmp_path, name, **kept)
        torch.testing.assert_close(found, losses, rtol=1e-5, atol=0)
        for key in weights.keys() - {key for key in weights if key.endswith("k_proj.bias")}:
            torch.testing.assert_close(its[key], weights[key], rtol=0, atol=1e-4)
        monkeypatch.setattr(LlavaMLLM, "get_image_features", None)  # nobody looks any more
    (encoder,) = (tmp_path / "kept").iterdir()
    monkeypatch.undo()
    found, _ = trained(tmp_path, "both", **{**kept, "data__features_of": "[segmenter, projector]"})
    torch.testing.assert_close(found, losses, rtol=1e-5, atol=0)
    assert len(list((tmp_path / "kept").iterdir())) == 2
    shutil.rmtree(encoder)
    model = tiny_model()
    with torch.no_grad():
        model.mllm.model.multi_modal_projector.linear_1.weight += 0.1
    model.mllm.save_pretrained(tmp_path / "bases" / "mllm")
    trained(tmp_path, "other", **kept)
    assert not encoder.exists(), "another projector has another folder"


def test_rounded_features_are_half_as_large_and_near(tmp_path: Path) -> None:
    losses, _ = trained(tmp_path, "exact", data__features=tmp_path / "kept")
    found, _ = trained(tmp_path, "cold", data__features=tmp_path / "round", data__features_dtype="bfloat16")
    torch.testing.assert_close(found[0], losses[0], rtol=1e-6, atol=0)  # what was computed here is used as it is
    found, _ = trained(tmp_path, "warm", data__features=tmp_path / "round", data__features_dtype="bfloat16")
    assert not torch.equal(found, losses)
    torch.testing.assert_close(found, losses, rtol=0.05, atol=0.05)
    sizes = [sum(map(len, files(tmp_path / name).values())) for name in ("round", "kept")]
    assert 0.4 < sizes[0] / sizes[1] < 0.6


def test_another_encoder_reads_nothing(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    trained(tmp_path, "one", data__features=kept)
    (encoder,) = kept.iterdir()
    path = tmp_path / "bases" / "segmenter" / "model.safetensors"
    state = load_file(path)
    name = next(key for key in state if key.startswith("vision_encoder") and state[key].dim() > 1)
    save_file({**state, name: state[name] * 1.001}, path, {"format": "pt"})
    trained(tmp_path, "other", data__features=kept)
    assert len(list(kept.iterdir())) == 2
    decoder = next(key for key in state if key.startswith("mask_decoder") and state[key].dim() > 1)
    save_file({**state, decoder: state[decoder] * 1.001}, path, {"format": "pt"})
    trained(tmp_path, "decoder", data__features=kept)
    assert {encoder} < set(kept.iterdir())
    assert len(list(kept.iterdir())) == 2, "what comes after the features does not change them"


def test_nothing_is_kept_beyond_the_room_there_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = Features(torch.randn(3, 4, 8, 8), (torch.randn(3, 2, 16, 16),))
    size = 4 * (4 * 64 + 2 * 256)
    cache = FeatureCache(tmp_path, "encoder", rounded=False, most=2.5 * size)
    cache.write(["aa1", "aa2", "bb3"], one)
    assert ["aa1" in cache, "aa2" in cache, "bb3" in cache] == [True, True, False]
    again = FeatureCache(tmp_path, "encoder", rounded=False, most=2.5 * size)
    again.write(["bb3"], one[2:])
    assert "bb3" not in again
    assert "data.features_gb is reached" in caplog.text
    found = again.read("aa2")
    assert found is not None
    assert torch.equal(found.coarse, one.coarse[1:2])
    assert torch.equal(found.fine[0], one.fine[0][1:2])


def test_a_picture_is_known_by_its_pixels() -> None:
    one, other = (Squares()[number].image for number in (0, 1))
    assert picture_key(one) == picture_key(one.copy()) != picture_key(other)
    assert picture_key(one.resize((20, 10))) != picture_key(one.resize((10, 20)))


def test_what_trains_is_not_kept(tmp_path: Path) -> None:
    parts = {"model__train": ["lora", "image_encoder"], "data__features": tmp_path / "kept"}
    with pytest.raises(RecipeError, match=r"data\.features: image_encoder trains"):
        trained(tmp_path, "run", **parts)
    parts = {**parts, "model__train": ["lora", "projector"], "data__features_of": ["projector"]}
    with pytest.raises(RecipeError, match=r"data\.features: projector trains, so the projector's features change"):
        trained(tmp_path, "run", **parts)
    with pytest.raises(RecipeError, match=r"data\.features_of: found \[\]"):
        tiny_recipe(tmp_path, data__features_of=[])
    other = SimpleNamespace(mllm=None, config=SimpleNamespace(mllm_config=SimpleNamespace(model_type="qwen3_vl")))
    recipe = tiny_recipe(tmp_path, data__features=tmp_path / "kept", data__features_of=["projector"])
    with pytest.raises(RecipeError, match=r"data\.features_of: projector is for llava alone; qwen3_vl"):
        open_caches(recipe, other, None, None)
    with pytest.raises(RecipeError, match=r"data\.features_gb: found 0"):
        tiny_recipe(tmp_path, data__features_gb=0)


def test_a_cache_is_filled_before_a_run_and_the_run_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scenes(open_scenes("train", n=6), tmp_path / "world", progress=False)
    kept = tmp_path / "kept"
    source = "data.sources={own: [manifest:world/train.jsonl]}"
    settings = [
        source,
        f"data.features={kept}",
        "trainer.max_steps=3",
        "evaluation.sources=[]",
        "--data",
        str(tmp_path),
    ]
    assert main(["data", "features", "tiny", *settings, "--device", "cpu", "--quiet"]) == 0
    assert "6 pictures, 6 encoded now" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in files(kept)}
    assert len(before) == 6
    assert main(["data", "features", "tiny", *settings, "--device", "cpu", "--quiet"]) == 0
    assert "6 pictures, 0 encoded now" in capsys.readouterr().out
    assert main(["train", "tiny", *settings, "--device", "cpu", "--quiet", "--out", str(tmp_path / "run")]) == 0
    assert {path: path.stat().st_mtime_ns for path in files(kept)} == before
