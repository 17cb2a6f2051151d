"""CoresModel as a whole: saved and loaded, refused when it does not fit, what the losses weigh, how it trains."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_packed_equals_separate import batch, conversation
from tiny import EOS, SEG, tiny_config, tiny_model
from transformers import AutoConfig, AutoModel, LlavaForConditionalGeneration, SamModel

from cores.asking.answers import segment_answers
from cores.checkpoints.published.keys import ignored
from cores.errors import CheckpointError
from cores.modeling import CoresConfig, CoresModel
from cores.modeling.generation import teacher_force
from cores.modeling.losses import balanced_bce_loss, bce_loss, dice_loss
from cores.modeling.objective import Frames, level_losses
from cores.modeling.prefix_cache import read_prefix

WEIGHTS = "model.safetensors"


@pytest.fixture
def packed() -> dict[str, Any]:
    """Two pictures, three masks; the first picture has ignored pixels, and its first location is known."""
    rng = torch.Generator().manual_seed(5)
    rows = [[conversation(rng, 3), conversation(rng, 6)], [conversation(rng, 4)]]
    found = batch(rows, torch.randn(2, 3, 32, 32, generator=rng), torch.randn(2, 3, 64, 64, generator=rng))
    sizes = [(40, 64), (64, 50)]
    masks = [torch.rand(sizes[row], generator=rng) > 0.6 for row in (0, 0, 1)]
    return found | {
        "truth": masks,
        "location_truth": [masks[1], None, None],
        "ignore": [torch.rand(sizes[0], generator=rng) > 0.8, None],
        "sizes": sizes,
        "resized": [(40, 64), (64, 50)],
    }


def with_projector(projector: str, refiner: str = "published") -> CoresConfig:
    config = tiny_config(refiner=refiner)
    config.mllm_config.projector = projector
    return config


@pytest.mark.parametrize("projector", ["linear", "mlp2x_gelu"])
def test_saved_and_loaded_it_is_the_same(tmp_path: Path, packed: dict[str, Any], projector: str) -> None:
    model = tiny_model(with_projector(projector))
    model.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).token_ids == model.config.token_ids
    loaded = AutoModel.from_pretrained(tmp_path)
    assert isinstance(loaded, CoresModel)
    for field in ("levels", "refiner", "style", "text_weight", "bce_weight", "ignore_255"):
        assert getattr(loaded.config, field) == getattr(model.config, field)
    assert loaded.config.mllm_config.projector == projector
    state, other = model.state_dict(), loaded.state_dict()
    assert state.keys() == other.keys()
    assert all(torch.equal(state[key], other[key]) for key in state)
    with torch.no_grad():
        assert torch.equal(model(**packed).loss, loaded(**packed).loss)
    # on disk: the names in memory
    assert {key for key in state if ignored(key) is None} == load_file(tmp_path / WEIGHTS).keys()


def test_weights_that_do_not_fit_are_all_named(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    state = load_file(tmp_path / WEIGHTS)
    del state["projection.2.bias"], state["mllm.model.language_model.norm.weight"]
    state["left.over"] = torch.zeros(2)
    state["refiner.v.weight"] = torch.zeros(3, 4)
    save_file(state, tmp_path / WEIGHTS, {"format": "pt"})
    with pytest.raises(CheckpointError) as error:
        CoresModel.from_pretrained(tmp_path)
    for line in (
        "missing: projection.2.bias",
        "missing: mllm.model.language_model.norm.weight",
        "unexpected: left.over",
        "wrong shape: refiner.v.weight is (3, 4), the config says (32, 32)",
    ):
        assert line in str(error.value)


def test_it_is_built_from_its_bases(tmp_path: Path, packed: dict[str, Any]) -> None:
    whole = tiny_model()
    config = whole.config
    parts: list[Any] = []
    for kind, part, own in ((LlavaForConditionalGeneration, whole.mllm, config.mllm_config),
                            (SamModel, whole.segmenter, config.segmenter_config)):  # fmt: skip
        base = kind(own)
        base.load_state_dict(part.state_dict())
        parts.append(base)
    built = CoresModel.from_bases(config, *parts).eval()
    built.projection, built.refiner = whole.projection, whole.refiner
    with torch.no_grad():
        assert torch.equal(built(**packed).loss, whole(**packed).loss)
    assert built.mllm.lm_head.weight.data_ptr() == parts[0].lm_head.weight.data_ptr()
    other = tiny_config()
    other.mllm_config.text_config.vocab_size = 99
    with pytest.raises(CheckpointError, match=r"shape: lm_head.weight is \(96, 32\), the config says \(99, 32\)"):
        CoresModel.from_bases(other, *parts)


def test_a_config_that_cannot_be_is_refused() -> None:
    levels = [{"name": "target", "token": "[SEG]", "token_id": SEG}, {"name": "location", "token": "[LOC]"}]
    with pytest.raises(CheckpointError, match=r"levels: .*; refiner: found 'best', .*; style: found 'mine'"):
        CoresConfig(levels=levels, refiner="best", style="mine")
    with pytest.raises(CheckpointError, match=r"no token_id for \[LOC\], \[SEG\]"):
        CoresConfig().token_ids  # noqa: B018


@pytest.mark.parametrize(
    ("style", "refiner", "weights"),
    [
        ("paper", "paper", (0.5, 0.5, 2.0, 0.5)),
        ("published", "none", (1.0, 1.0, 2.0, 0.5)),
        ("published", "published", (1.0, 1.0, 4.0, 1.0)),
        ("lisa", "none", (1.0, 1.0, 2.0, 0.5)),
    ],
)
def test_the_styles_weigh_their_losses(
    packed: dict[str, Any], style: str, refiner: str, weights: tuple[float, ...]
) -> None:
    with torch.no_grad():
        found = tiny_model(tiny_config(refiner=refiner, style=style))(**packed)
    text, mask, bce, dice = weights
    torch.testing.assert_close(found.mask_loss, bce * found.bce_loss + dice * found.dice_loss)
    torch.testing.assert_close(found.loss, text * found.text_loss + mask * found.mask_loss)


def test_the_location_trains_all_levels_before_the_last(packed: dict[str, Any]) -> None:
    """Of three levels the first and the second, each with the same truth; the last by its own."""
    model = tiny_model(tiny_config(3, location_loss=0.3))
    positions = packed["token_positions"]
    three = packed | {"token_positions": torch.cat([positions[:1] - 1, positions])}
    found = model(**three)
    for level in (0, 1):
        (grad,) = torch.autograd.grad(found.location_loss, found.low_res_logits[level], retain_graph=True)
        assert grad[0].abs().sum() > 0, f"level {level + 1} learns nothing"
        assert grad[1:].abs().sum() == 0 or level == 0  # the first also leads to the second
    config, rows = model.config, [0]
    frames = Frames(64, three["sizes"], three["resized"], [None, None], "pad")
    frames = dataclasses.replace(frames, ignore=three["ignore"] if config.ignore_255 else [None, None])
    parts = [level_losses(logits[:1], three["location_truth"][:1], rows, frames) for logits in found.low_res_logits]
    expected = sum(config.bce_weight * bce + config.dice_weight * dice for bce, dice in parts[:2])
    torch.testing.assert_close(found.location_loss, expected)


@torch.no_grad()
def test_switches_of_the_mask_losses(packed: dict[str, Any]) -> None:
    model = tiny_model(tiny_config(ignore_255=True, location_loss=0.3))
    found = model(**packed)
    without = model(**packed | {"location_truth": None})
    torch.testing.assert_close(found.bce_loss, without.bce_loss)
    torch.testing.assert_close(found.mask_loss, without.mask_loss + 0.3 * found.location_loss)

    model.config.ignore_255 = False
    kept = model(**packed)
    assert kept.bce_loss != found.bce_loss
    torch.testing.assert_close(kept.bce_loss, model(**packed | {"ignore": None}).bce_loss)

    # at the decoder's own 32 x 32: the second picture fills all of its height and 25 columns
    model.config.loss_resolution, model.config.balanced_bce = "low", True
    low = model(**{name: value for name, value in packed.items() if name != "ignore"})
    each = []
    for number, (h, w) in enumerate([(20, 32), (20, 32), (32, 25)]):
        share = torch.nn.functional.adaptive_avg_pool2d(packed["truth"][number][None].float(), (h, w))[0]
        each.append((low.low_res_logits[-1][number, :h, :w], share))
    torch.testing.assert_close(low.bce_loss, torch.stack([balanced_bce_loss(*one) for one in each]).mean())
    torch.testing.assert_close(low.dice_loss, torch.stack([dice_loss(*one) for one in each]).mean())


def test_balanced_bce_weighs_inside_and_outside_the_same() -> None:
    truth = torch.zeros(10, 10)
    truth[0, :2] = 1
    logits = torch.where(truth > 0, 0.5, -0.25)
    halves = [bce_loss(logits[None, truth == value], truth[None, truth == value]) for value in (0, 1)]
    torch.testing.assert_close(balanced_bce_loss(logits, truth), sum(halves) / 2)


def test_gradient_checkpointing_changes_no_gradient(packed: dict[str, Any]) -> None:
    def gradients(model: CoresModel) -> dict[str, torch.Tensor]:
        model.train()(**packed).loss.backward()
        found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        return found

    model = tiny_model()
    plain = gradients(model)
    model.activation_checkpointing_enable()
    layers = [m for m in model.modules() if getattr(m, "gradient_checkpointing", False)]
    assert layers
    saved = gradients(model)
    assert plain.keys() == saved.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(saved[name], gradient, msg=name)
    # every tensor that CoReS trains has one
    parts = ("projection.", "refiner.", "segmenter.mask_decoder.", "mllm.lm_head.", "mllm.model.language_model.")
    never = model.segmenter.never_trained
    trained = {name for name, _ in model.named_parameters() if name.startswith(parts) and not never.search(name)}
    assert trained <= plain.keys()


@torch.no_grad()
def test_features_given_are_features_not_computed(packed: dict[str, Any]) -> None:
    model = tiny_model()
    whole = model(**packed)
    features = model.encode(packed.pop("segmenter_pixels"))
    torch.testing.assert_close(model(**packed, features=features).loss, whole.loss)
    with pytest.raises(ValueError, match="give segmenter_pixels, or features"):
        model(**packed)


@torch.no_grad()
def test_pictures_in_fp32_are_fine_for_a_model_in_bfloat16(packed: dict[str, Any]) -> None:
    model = tiny_model()
    exact = model(**packed)
    rough = model.bfloat16()(**packed)
    torch.testing.assert_close(rough.loss, exact.loss, rtol=0.01, atol=0)
    assert rough.low_res_logits[-1].dtype == torch.bfloat16
    features = model.encode(packed["segmenter_pixels"][:1])
    prefix = read_prefix(model, {"pixel_values": packed["pixel_values"][:1]}, packed["input_ids"][0, :20])
    said = teacher_force(model, [prefix], [torch.tensor([11])], [torch.tensor([7, SEG])], [EOS])
    (one,) = segment_answers(model, [features], said, [0], masks_per_pass=1)
    assert one.low_res_logits[-1].isfinite().all()
