"""What is computed otherwise than in a family's own program gives its numbers."""

import pytest
import torch
from tiny_segmenters import CONFIGS, native, tiny_segmenter
from torch.autograd.graph import saved_tensors_hooks

from cores.modeling.chain import run_chain
from cores.modeling.refiner import PaperRefiner
from cores.modeling.segmenters import relative_attention
from cores.modeling.segmenters.base import Features


@pytest.mark.parametrize("rows", [3, 24])
@pytest.mark.parametrize("kind", ["sam", "sam_hq"])
def test_attention_in_bands_is_the_whole_one(kind: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """States and gradients, with the bias of three rows of the grid at a time (the last band has two of eight), or of
    three heads (the last time one of two pictures' four); windows likewise."""
    theirs, ours = native(CONFIGS[kind]()).double(), tiny_segmenter(kind).double()
    seen = torch.randn(2, 3, 128, 128, dtype=torch.float64)
    monkeypatch.setitem(relative_attention.AT_ONCE, "cpu", rows * 8 * 64)
    layers = ours.vision_encoder.layers
    assert {bool(layer.window_size) for layer in layers} == {False, True}
    assert {type(layer.attn) for layer in layers} <= set(relative_attention.IN_BANDS.values())
    found, expected = (model.vision_encoder(seen).last_hidden_state for model in (ours, theirs))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for states in (found, expected):
        states.square().mean().backward()
    for (name, mine), its in zip(
        ours.vision_encoder.named_parameters(), theirs.vision_encoder.parameters(), strict=True
    ):
        torch.testing.assert_close(mine.grad, its.grad, rtol=1e-9, atol=1e-12, msg=name)


def test_a_checkpointed_decoder_keeps_less_and_changes_no_gradient() -> None:
    """Two levels of five masks: the same logits and gradients; what is kept for them is a small part."""
    model = tiny_segmenter("sam").double().train()
    features = model.encode(torch.randn(2, 3, 128, 128, dtype=torch.float64))
    fixed = Features(features.coarse.detach())
    index, refiner = torch.tensor([0, 1, 0, 1, 1]), PaperRefiner(model.dim).double()
    found = []
    for checkpointed in (False, True):
        tokens = torch.randn(2, 5, model.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        tokens.requires_grad_()
        model.zero_grad()
        kept: list[int] = []
        with saved_tensors_hooks(lambda value, kept=kept: kept.append(value.numel()) or value, lambda value: value):
            levels = run_chain(model, refiner, fixed, tokens, index, checkpointed=checkpointed)
        sum(level.square().mean() for level in levels).backward()
        weight = model.mask_decoder.upscale_conv1.weight.grad
        found.append((sum(kept), levels[-1].detach(), tokens.grad, weight.clone()))
    (whole, *expected), (parts, *again) = found
    assert parts < whole / 5
    for one, other in zip(again, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_decoder_is_the_eager_one() -> None:
    """`model.compile_decoder`, of one size: masks of two levels, and gradients of tokens and weights."""
    index, found = torch.tensor([0, 1, 1]), []
    for compiled in (False, True):
        model = tiny_segmenter("sam").train()
        if compiled:
            model.mask_decoder.compile()
        chance = torch.Generator().manual_seed(0)
        fixed = Features(torch.randn(2, model.dim, 8, 8, generator=chance))
        tokens = torch.randn(2, 3, model.dim, generator=chance).requires_grad_()
        levels = run_chain(model, None, fixed, tokens, index)
        sum(level.square().mean() for level in levels).backward()
        weight = model.mask_decoder.upscale_conv1.weight.grad
        found.append([*levels, tokens.grad, weight])
    for mine, its in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-4 * float(its.abs().max()))
