"""The frozen language model in 4 bits: refused where it cannot be, else close to the whole one, and still trained."""

from pathlib import Path
from typing import get_args

import pytest
import torch
from accelerate.utils import send_to_device
from PIL import Image
from test_training import batch_of
from tiny import tiny_model
from tiny_run import tiny_recipe

import cores
from cores.cli import main
from cores.cli.options import BITS
from cores.errors import RecipeError, UserError
from cores.modeling.quantizing import Bits, decoder_linears, quantise, refuse_bits
from cores.recipe import PAPER_PARTS, LoraSection, load_recipe
from cores.training.arguments import training_arguments
from cores.training.memory import numbers
from cores.training.quantizing import BYTES, check_quantize
from cores.training.trainable import choose_parts


def test_it_is_refused_where_it_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_recipe(tmp_path, model__quantize="4bit")
    with pytest.raises(RecipeError, match="model.quantize: needs a CUDA device"):
        training_arguments(recipe, tmp_path, device="cpu")
    monkeypatch.setattr("cores.training.quantizing.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match="bitsandbytes is not installed: pip install"):
        check_quantize(recipe, on_cpu=False)
    with pytest.raises(RecipeError, match="does not go with trainer.deepspeed"):
        check_quantize(tiny_recipe(tmp_path, model__quantize="4bit", trainer__deepspeed="zero2"), on_cpu=False)
    with pytest.raises(RecipeError, match="weights in few bits cannot train"):
        load_recipe("tiny", ["model.quantize=4bit"])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
@pytest.mark.filterwarnings("ignore")  # bitsandbytes' own
def test_frozen_layers_in_4_bits_say_nearly_the_same_and_adapters_learn(device: str) -> None:
    pytest.importorskip("bitsandbytes")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    whole, small = tiny_model(), tiny_model()
    before = {name: layer.weight.clone() for name, layer in decoder_linears(small)}
    quantise(small)
    choose_parts(small, PAPER_PARTS, LoraSection(r=2, dropout=0.0))
    choose_parts(whole, PAPER_PARTS, LoraSection(r=2, dropout=0.0))
    sizes = [numbers(small, trains) for trains in (True, False)]
    small, whole = small.to(device), whole.to(device)
    assert [numbers(small, trains) for trains in (True, False)] == sizes == [numbers(whole, t) for t in (True, False)]
    packed = {name: layer for name, layer in decoder_linears(small)}
    assert {name.removesuffix(".base_layer") for name in packed} == set(before)
    for layer in packed.values():
        assert layer.weight.dtype == torch.uint8
        assert layer.weight.numel() * 2 == layer.in_features * layer.out_features
    batch = send_to_device(dict(batch_of()), device)
    losses = [model(**batch).loss for model in (whole, small)]
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.1)
    assert losses[1].item() != losses[0].item()
    losses[1].backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in small.parameters() if p.requires_grad)
    assert 0.5 < BYTES < 0.53


def test_a_model_to_ask_in_few_bits_is_refused_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="quantize: 8bit needs a CUDA device, this is cpu"):
        cores.load(device="cpu", quantize="8bit")
    with pytest.raises(UserError, match="quantize: a chain in words is not rounded"):
        cores.load("words:shipped+shipped", quantize="8bit")
    with pytest.raises(UserError, match="found '2bit', expected 8bit or 4bit"):
        refuse_bits("2bit", torch.device("cuda"))  # type: ignore[arg-type]
    monkeypatch.setattr("cores.modeling.quantizing.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'cores\[qlora\]'"):
        refuse_bits("4bit", torch.device("cuda"))


@pytest.mark.parametrize(
    "verb",
    [
        ["predict", "PICTURE", "the cup", "--out", "OUT"],
        ["predict", "--engine", "ray", "PICTURE", "the cup", "--out", "OUT"],
        ["label", "PICTURE", "--query", "the cup", "--out", "OUT"],
        ["chat", "PICTURE", "--out", "OUT"],
        ["serve", "--port", "0"],
        ["eval", "--on", "scenes|test", "--limit", "1", "--out", "OUT"],
    ],
    ids=lambda verb: "bulk" if "ray" in verb else verb[0],
)
def test_verbs_that_ask_refuse_few_bits_where_they_cannot_be(
    verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert get_args(Bits) == BITS
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    names = {"PICTURE": str(tmp_path / "a.png"), "OUT": str(tmp_path / "out")}
    for bits in BITS:
        assert main([*(names.get(one, one) for one in verb), "--device", "cpu", "--quantize", bits]) == 2
        said = capsys.readouterr().err
        assert f"quantize: {bits} needs a CUDA device, this is cpu: leave it out" in said
    assert not (tmp_path / "out").exists()
