"""All questions about an image in one sequence give what each gives alone: loss, states and masks, to 1e-5."""

from typing import Any

import pytest
import torch
from tiny import BOS, EOS, IM_END, IM_START, IMAGE, IMAGE_TOKENS, LOC, SEG, tiny_config, tiny_model

from cores.modeling import packed_attention

SIZES = [(40, 64), (64, 50)]
PREFIX = [BOS, 5, IM_START, *[IMAGE] * IMAGE_TOKENS, IM_END]


def conversation(rng: torch.Generator, length: int, text_only: bool = False) -> tuple[list[int], list[int]]:
    """Ids and labels of one question of some length and its answer."""
    question = torch.randint(10, 80, (length,), generator=rng).tolist()
    answer = [20, 21, EOS] if text_only else [20, 21, LOC, 22, SEG, EOS]
    return question + answer, [-100] * length + answer


def batch(rows: list[list[tuple[list[int], list[int]]]], pixels: torch.Tensor, big: torch.Tensor) -> dict[str, Any]:
    """A packed batch of conversations a row."""
    ids, segments, labels, positions, index = [], [], [], [[], []], []
    for row, conversations in enumerate(rows):
        one, part, told = list(PREFIX), [0] * len(PREFIX), [-100] * len(PREFIX)
        for number, (tokens, wanted) in enumerate(conversations):
            for level, token in enumerate((LOC, SEG)):
                if token in tokens:
                    positions[level].append(len(one) + tokens.index(token) - 1)
            if SEG in tokens:
                index.append(row)
            one, part, told = one + tokens, part + [number + 1] * len(tokens), told + wanted
        ids.append(one)
        segments.append(part)
        labels.append(told)
    longest = max(map(len, ids))
    return {
        "input_ids": torch.tensor([r + [0] * (longest - len(r)) for r in ids]),
        "segment_ids": torch.tensor([r + [-1] * (longest - len(r)) for r in segments]),
        "labels": torch.tensor([r + [-100] * (longest - len(r)) for r in labels]),
        "token_positions": torch.tensor(positions, dtype=torch.long),
        "image_index": torch.tensor(index, dtype=torch.long),
        "pixel_values": pixels,
        "segmenter_pixels": big,
    }


@pytest.fixture
def questions() -> list[list[tuple[list[int], list[int]]]]:
    rng = torch.Generator().manual_seed(1)
    return [[conversation(rng, n) for n in (3, 9, 5)], [conversation(rng, n) for n in (7, 4, 11)]]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_equals_separate(attention: str, questions: list[Any]) -> None:
    model = tiny_model()
    model.set_attn_implementation(attention)
    assert model.mllm.model.language_model.config._attn_implementation == attention
    torch.manual_seed(2)
    pixels, big = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 64, 64)
    truth = [torch.rand(SIZES[n // 3]) > 0.6 for n in range(6)]
    sizes = {"sizes": SIZES, "resized": [(40, 64), (64, 50)]}

    packed = batch(questions, pixels, big)
    together = model(**packed, truth=truth, **sizes)
    # one conversation a row: the same picture three times
    rows = [[one] for image in questions for one in image]
    alone = batch(rows, pixels.repeat_interleave(3, 0), big.repeat_interleave(3, 0))
    spread = {name: [value[n // 3] for n in range(6)] for name, value in sizes.items()}
    apart = model(**alone, truth=truth, **spread)

    for name in ("loss", "text_loss", "bce_loss", "dice_loss"):
        torch.testing.assert_close(getattr(together, name), getattr(apart, name), rtol=1e-5, atol=1e-5)
    for a, b in zip(together.low_res_logits, apart.low_res_logits, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    for number in range(6):
        row, segment = divmod(number, 3)
        mine = packed["segment_ids"][row] == segment + 1
        its = alone["segment_ids"][number] == 1
        torch.testing.assert_close(
            together.hidden_states[row][mine], apart.hidden_states[number][its], rtol=1e-5, atol=1e-5
        )
    # and the questions do differ: the equality is not one of constants
    assert (together.low_res_logits[1][0] - together.low_res_logits[1][1]).abs().max() > 1e-3


def test_the_work_is_done_once(questions: list[Any]) -> None:
    model = tiny_model(tiny_config(levels=2))
    calls: dict[str, list[int]] = {"encoder": [], "decoder": [], "head": []}
    model.segmenter.vision_encoder.register_forward_hook(lambda m, a, o: calls["encoder"].append(len(a[0])))
    model.segmenter.mask_decoder.register_forward_hook(lambda m, a, o: calls["decoder"].append(1))
    model.mllm.lm_head.register_forward_hook(lambda m, a, o: calls["head"].append(len(a[0])))
    packed = batch(questions, torch.randn(2, 3, 32, 32), torch.randn(2, 3, 64, 64))
    model(**packed)
    assert calls["encoder"] == [2], "each image is encoded once, all in one call"
    assert calls["decoder"] == [1, 1], "one call a level"
    assert calls["head"] == [int((packed["labels"] != -100).sum())], "words only where they are supervised"


def test_training_finishes_the_states_that_are_read(questions: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses and all gradients as in evaluation, where the last layer finishes every state."""
    monkeypatch.setattr(packed_attention, "SAVES", 0)
    model, finished = tiny_model(), []
    mlp = model.mllm.get_decoder().layers[-1].mlp
    mlp.register_forward_pre_hook(lambda _, args: finished.append(args[0].shape[:-1].numel()))
    torch.manual_seed(2)
    packed = batch(questions, torch.randn(2, 3, 32, 32), torch.randn(2, 3, 64, 64))
    packed |= {"truth": [torch.rand(SIZES[n // 3]) > 0.6 for n in range(6)], "sizes": SIZES, "resized": SIZES}
    found = []
    for mode in (True, False):
        output = model.train(mode)(**packed)
        parts = torch.stack([output.loss, output.text_loss, output.mask_loss])
        found.append([parts, *torch.autograd.grad(output.loss, list(model.parameters()), allow_unused=True)])
    states = int((packed["labels"] != -100).sum())  # every grounding token is supervised, too
    assert finished == [states, packed["input_ids"].numel()]
    for mine, its in zip(*found, strict=True):
        assert (mine is None) == (its is None)
        if mine is not None:
            torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-6)


def test_a_batch_without_masks_is_part_of_the_graph() -> None:
    model = tiny_model().train()
    rng = torch.Generator().manual_seed(1)
    packed = batch([[conversation(rng, 4, text_only=True)]], torch.randn(1, 3, 32, 32), torch.randn(1, 3, 64, 64))
    output = model(**packed, truth=[], sizes=[(40, 64)], resized=[(40, 64)])
    assert output.mask_loss.item() == 0.0
    output.loss.backward()
    used = [*model.projection.parameters(), *model.refiner.parameters(), *model.segmenter.mask_decoder.parameters()]
    assert all(p.grad is not None and p.grad.abs().sum() == 0 for p in used)
    assert model.mllm.lm_head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("refiner", ["none", "paper", "published", "region"])
def test_every_form_runs_and_the_first_mask_guides_the_last(levels: int, refiner: str) -> None:
    model = tiny_model(tiny_config(levels, refiner))
    features = model.encode(torch.randn(2, 3, 64, 64))
    tokens = torch.randn(levels, 3, model.segmenter.dim, requires_grad=True)
    found = model.segment(features, tokens, torch.tensor([0, 0, 1]))
    assert [m.shape for m in found] == [(3, 32, 32)] * levels
    found[-1].sum().backward()
    grads = tokens.grad.abs().sum(dim=(1, 2))
    assert (grads > 0).all(), "the gradient reaches every level through its mask prompt"
    bare = model.segment(features, tokens, torch.tensor([0, 0, 1]), use_location=False)
    one = model.segment(features, tokens[-1:], torch.tensor([0, 0, 1]))
    torch.testing.assert_close(bare[-1], one[-1])
    if levels > 1:
        assert (bare[-1] - found[-1]).abs().max() > 1e-3
