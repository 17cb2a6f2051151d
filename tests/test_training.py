"""What trains and what does not, which samples come when, and that several processes do what one does."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_config, tiny_model
from tiny_run import Squares, tiny_recipe
from tiny_tokenizer import tiny_processor

from cores.checkpoints.find import best_of
from cores.checkpoints.load import load
from cores.checkpoints.probe import probe
from cores.data.mixture import Mixture
from cores.errors import CheckFailed, RecipeError
from cores.evaluation.metrics import MaskMetrics
from cores.recipe import PAPER_PARTS, LoraSection, load_recipe
from cores.training.arguments import training_arguments
from cores.training.drawing import Collate, Draws, InOrder
from cores.training.run import train
from cores.training.start import start
from cores.training.trainable import choose_parts


def logged(run: Path, key: str) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line[key] for line in lines if key in line]


def test_the_papers_parts_train_and_nothing_else():
    model = tiny_model()
    choose_parts(model, PAPER_PARTS, LoraSection(r=2))
    trains = {name for name, p in model.named_parameters() if p.requires_grad}
    lora = {name for name in trains if ".lora_" in name}
    layers = [f"mllm.model.language_model.layers.{n}.self_attn.{t}_proj" for n in (0, 1) for t in "qv"]
    assert lora == {f"{layer}.lora_{ab}.default.weight" for layer in layers for ab in "AB"}
    whole = ("mllm.lm_head.", "mllm.model.language_model.embed_tokens.", "projection.", "refiner.")
    decoder = {name for name in trains - lora if name.startswith("segmenter.mask_decoder.")}
    assert trains - lora - decoder == {n for n, _ in model.named_parameters() if n.startswith(whole)}
    model(**batch_of()).loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad), "what trains has a gradient"
    unread = {n for n, _ in model.named_parameters() if n.startswith("segmenter.mask_decoder.")} - decoder
    model.requires_grad_(True)
    model(**batch_of()).loss.backward()
    for name, parameter in model.named_parameters():
        if name in unread:
            assert parameter.grad is None or not parameter.grad.any(), f"{name} has something to learn from"


def batch_of() -> dict[str, Any]:
    draws = Draws(Mixture({"a": [Squares()]}, questions=4))
    batch = Collate(tiny_processor(), 0)([draws[0, 0], draws[0, 1]])
    assert batch.pop("dropped") == 0
    assert batch.pop("questions") == 8
    assert len(batch.pop("named")) == 2
    return batch


def test_a_part_that_the_model_has_not_is_warned_of():
    model = tiny_model(tiny_config(refiner="none"))
    with pytest.warns(UserWarning, match="this model has no refiner"):
        choose_parts(model, ["refiner", "head"], LoraSection())
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["mllm.lm_head.weight"]


def test_new_rows_are_small_and_old_ones_stay(tmp_path):
    """[PART] is no word of the bases' tokenizer here: its rows are drawn, N(0, 0.02), and again the same."""
    recipe = tiny_recipe(tmp_path, model__levels=3)
    file = tmp_path / "bases" / "mllm" / "tokenizer.json"
    file.write_text(file.read_text().replace("[PART]", "[OTHER]"))
    before = load_rows(tmp_path)
    base, model, processor = start(recipe, seed=3)
    assert base.new_tokens == [len(processor.tokenizer) - 1] == [96]
    assert [level["token_id"] for level in model.config.levels] == [90, 96, 91]
    for old, new in zip(before, (model.mllm.get_input_embeddings(), model.mllm.lm_head), strict=True):
        assert torch.equal(new.weight[:96], old)
        assert 0.01 < new.weight[96].std() < 0.03
    assert torch.equal(start(recipe, seed=3)[1].mllm.lm_head.weight, model.mllm.lm_head.weight)


def load_rows(tmp_path: Path) -> list[torch.Tensor]:
    from safetensors.torch import load_file

    state = load_file(tmp_path / "bases" / "mllm" / "model.safetensors")
    return [next(v for k, v in state.items() if k.endswith(end)) for end in ("embed_tokens.weight", "lm_head.weight")]


def test_samples_are_the_mixtures_in_their_order():
    mixture = Mixture({"a": [Squares()], "b": [Squares(), Squares()]}, {"a": 3}, questions=2, seed=5)
    draws = Draws(mixture, 7)
    sample, epoch, index = draws[2, 4]
    assert (epoch, index) == (2, 4)
    assert sample.conversations == mixture[2, 4].conversations
    assert (len(draws), len(Draws(mixture))) == (7, 36)
    order = InOrder(3)
    order.set_epoch(2)
    assert list(order) == [(2, 0), (2, 1), (2, 2)]


def test_what_does_not_fit_is_counted():
    processor = tiny_processor()
    collate, draws = Collate(processor, 0), Draws(Mixture({"a": [Squares()]}, questions=4))
    assert collate([draws[0, 0]])["dropped"] == 0

    processor.sizes = dataclasses.replace(processor.sizes, max_text_tokens=12)
    assert collate([draws[0, 0]])["dropped"] == 4


def test_training_learns_and_logs_every_part_of_the_loss(tmp_path):
    run = tmp_path / "run"
    settings = {"trainer__max_steps": 30, "losses__location": 0.5, "trainer__per_device_train_batch_size": 4}
    train(tiny_recipe(tmp_path, **settings), run, Squares, device="cpu", quiet=True)
    loss, text, mask, bce, dice, location = (
        logged(run, key) for key in ("loss", "text_loss", "mask_loss", "bce_loss", "dice_loss", "location_loss")
    )
    np.testing.assert_allclose(loss, 0.5 * np.array(text) + 0.5 * np.array(mask), rtol=1e-4)
    np.testing.assert_allclose(mask, 2 * np.array(bce) + 0.5 * np.array(dice) + 0.5 * np.array(location), rtol=1e-4)
    assert text[-1] < 0.5 * text[0]
    assert bce[-1] < 0.8 * bce[0]
    rates = logged(run, "learning_rate")
    np.testing.assert_allclose(rates[:3], [0, 0.005, 0.01])
    np.testing.assert_allclose(np.diff(rates[2:]), -0.01 / 28)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["drawn"] for line in lines if "drawn" in line] == [{"squares: squares|train": 12}] * 10
    model, processor = load(run)
    assert not model.training
    assert processor.token_ids == model.config.token_ids


@pytest.mark.parametrize("row", ["ablation-cor", "ablation-cos", "ablation-cos-refiner"])
def test_rows_of_one_chain_train_and_are_loaded(row, tmp_path):
    said = load_recipe(row).model
    chain = {
        f"model__{key}": value for key in ("levels", "refiner", "segmenting", "style") if (value := getattr(said, key))
    }
    trainer = train(
        tiny_recipe(tmp_path, **chain, model__train=said.train, trainer__max_steps=2, trainer__save_steps=2),
        tmp_path / "run",
        Squares,
        device="cpu",
        quiet=True,
    )
    assert all(map(math.isfinite, logged(tmp_path / "run", "mask_loss")))
    assert (trainer.model.refiner is not None) == ("refiner" in said.train)
    model, processor = load(tmp_path / "run" / "checkpoint-2")
    assert model.config.segmenting == said.segmenting
    for one, other in zip(probe(model, processor), probe(trainer.model.eval(), processor), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_activation_checkpointing_changes_nothing_but_memory(tmp_path):
    for name, settings in (("without", {}), ("with", {"trainer__activation_checkpointing": "true"})):
        train(tiny_recipe(tmp_path, lora__dropout=0, **settings), tmp_path / name, Squares, device="cpu", quiet=True)
    np.testing.assert_allclose(logged(tmp_path / "with", "loss"), logged(tmp_path / "without", "loss"), rtol=1e-6)
    np.testing.assert_allclose(logged(tmp_path / "with", "grad_norm"), logged(tmp_path / "without", "grad_norm"), 1e-5)


def test_frozen_weights_in_bfloat16_train_like_float32(tmp_path):
    """What trains stays in float32, whatever is frozen; evaluation and loading work on the mixture of both."""

    def evaluate(model, processor, rank, world):
        probe(model, processor)
        assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
        assert model.segmenter.vision_encoder.pos_embed.dtype == torch.bfloat16
        metrics = MaskMetrics()
        metrics.update(np.ones((1, 1), dtype=bool), np.ones((1, 1), dtype=bool))
        return metrics

    train(tiny_recipe(tmp_path, lora__dropout=0), tmp_path / "whole", Squares, device="cpu", quiet=True)
    half = {"model__dtype": "bfloat16", "trainer__bf16": "true", "lora__dropout": 0}
    half["trainer__eval_strategy"] = "epoch"
    train(tiny_recipe(tmp_path, **half), tmp_path / "half", Squares, evaluate=evaluate, device="cpu", quiet=True)
    np.testing.assert_allclose(logged(tmp_path / "half", "loss"), logged(tmp_path / "whole", "loss"), rtol=0.02)
    assert load(tmp_path / "half", device="cpu", dtype="bfloat16")[0].dtype == torch.bfloat16


def test_the_best_by_giou_is_kept_and_linked(tmp_path):
    """Scores by step: 0.3, 0.5, 0.4. The second is the best, and stays when later checkpoints push others out."""
    scores = iter((0.3, 0.5, 0.4))

    def evaluate(model, processor, rank, world):
        assert (rank, world) == (0, 1)
        metrics = MaskMetrics()
        share = np.zeros((1, 10), dtype=bool)
        share[0, : round(10 * next(scores))] = True
        metrics.update(share, np.ones((1, 10), dtype=bool))
        return metrics

    run = tmp_path / "run"
    settings = {"trainer__eval_strategy": "steps", "trainer__eval_steps": 1, "trainer__save_strategy": "steps"}
    settings |= {"trainer__save_steps": 1, "trainer__save_total_limit": 1, "trainer__max_steps": 3}
    trainer = train(tiny_recipe(tmp_path, **settings), run, Squares, evaluate=evaluate, device="cpu", quiet=True)
    assert trainer.state.best_metric == pytest.approx(0.5)
    assert sorted(f.name for f in run.iterdir()) == [
        "best",
        "checkpoint-2",
        "checkpoint-3",
        "log.jsonl",
        "recipe.yaml",
    ]
    assert (run / "best").is_symlink()
    assert best_of(run) == run / "best"
    assert json.loads((run / "best" / "trainer_state.json").read_text())["global_step"] == 2
    np.testing.assert_allclose(logged(run, "eval_giou"), [0.3, 0.5, 0.4])


def test_a_gradient_that_is_no_number_stops_before_it_is_taken(tmp_path):
    recipe = tiny_recipe(tmp_path, losses__text="1e38", trainer__max_grad_norm=1.0)
    recipe.losses.text = math.inf
    with pytest.raises(CheckFailed, match="step 1: the gradient is (nan|inf); the step was not taken"):
        train(recipe, tmp_path / "run", Squares, device="cpu", quiet=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trainer__tf32": "true"}, "trainer: --tf32 requires"),
        ({"trainer__deepspeed": "nowhere.json"}, "trainer"),
        ({"trainer__report_to": "comet_ml"}, "trainer.report_to: comet_ml is not installed: pip install"),
    ],
)
def test_values_that_transformers_refuses_are_the_recipes(settings, message, tmp_path):
    with pytest.raises(RecipeError, match=message):
        training_arguments(tiny_recipe(tmp_path, **settings), tmp_path, device="cpu", evaluates=True)


def test_devices_that_are_not_here_are_refused(tmp_path):
    recipe = tiny_recipe(tmp_path)
    with pytest.raises(RecipeError, match="CUDA_VISIBLE_DEVICES"):
        training_arguments(recipe, tmp_path, device="cuda:1")
    if not torch.cuda.is_available():
        with pytest.raises(RecipeError, match="there is no CUDA device"):
            training_arguments(recipe, tmp_path, device="cuda")


@pytest.mark.parametrize("attention", ["eager", "sdpa", "flex_attention"])
def test_the_attention_of_the_recipe_is_used(attention, tmp_path):
    _, model, _ = start(tiny_recipe(tmp_path, model__attn_implementation=attention), 0)
    towers = "sdpa" if attention == "flex_attention" else attention  # no tower takes it
    assert model.mllm.get_decoder().config._attn_implementation == attention
    assert model.mllm.model.vision_tower.config._attn_implementation == towers
    assert model.segmenter.config._attn_implementation == towers
