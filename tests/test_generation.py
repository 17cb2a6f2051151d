"""Answers with the prefix's cache equal answers one by one without any cache, generated and forced."""

import pytest
import torch
from tiny import BOS, EOS, IM_END, IM_START, IMAGE, IMAGE_TOKENS, LOC, SEG, tiny_config, tiny_model

from cores.asking.answers import Answered, find_chains, segment_answers
from cores.modeling import CoresModel
from cores.modeling.generation import generate, teacher_force
from cores.modeling.prefix_cache import read_prefix
from cores.modeling.segmenters.base import Features

PREFIX = torch.tensor([BOS, 5, 6, IM_START, *[IMAGE] * IMAGE_TOKENS, IM_END])


def speak_in_chains(model: CoresModel) -> None:
    """A head of few words, so that answers of random weights have grounding tokens in them."""
    few = [LOC, SEG, 20, 21, 22, EOS]
    rows = torch.randn(len(few), 32, generator=torch.Generator().manual_seed(3))
    model.mllm.lm_head.weight.zero_()
    model.mllm.lm_head.weight[few] = rows


def answer(
    model: CoresModel,
    pixels: torch.Tensor,
    features: Features,
    questions: list[torch.Tensor],
    answers: list[torch.Tensor] | None = None,
    closing: list[int] | None = None,
    max_new_tokens: int = 12,
) -> list[Answered]:
    """All questions in one pass, generated or teacher-forced."""
    ends = closing or [EOS]
    prefix = [read_prefix(model, {"pixel_values": pixels}, PREFIX)] * len(questions)
    if answers is None:
        said = generate(model, prefix, questions, ends, max_new_tokens)
    else:
        said = teacher_force(model, prefix, questions, answers, ends)
    return segment_answers(model, [features], said, [0] * len(said), masks_per_pass=16)


def plain(
    model: CoresModel, pixels: torch.Tensor, question: torch.Tensor, steps: int
) -> tuple[list[int], torch.Tensor]:
    """Greedy, one question, everything computed anew at every step."""
    ids, states = torch.cat([PREFIX, question]), []
    for _ in range(steps):
        inputs = model.mllm.embed(ids[None], model.mllm.encode_images({"pixel_values": pixels}))
        hidden = model.mllm.model.language_model(inputs_embeds=inputs, use_cache=False).last_hidden_state[0]
        states.append(hidden[-1])
        best = model.mllm.lm_head(hidden[-1]).argmax()
        ids = torch.cat([ids, best[None]])
        if best == EOS:
            break
    return ids[len(PREFIX) + len(question) :].tolist(), torch.stack(states)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_cached_equals_one_by_one(attention: str) -> None:
    model = tiny_model()
    model.set_attn_implementation(attention)
    speak_in_chains(model)
    pixels, big = torch.randn(1, 3, 32, 32), torch.randn(1, 3, 64, 64)
    features = model.encode(big)
    questions = [torch.randint(10, 80, (n,)) for n in (3, 11, 6)]
    read: list[tuple[int, ...]] = []
    hook = model.mllm.model.language_model.register_forward_hook(
        lambda module, args, kwargs, output: read.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    found = answer(model, pixels, features, questions, max_new_tokens=12)
    hook.remove()
    # the prefix once, the questions together, then a token at a time
    assert read[:3] == [(1, len(PREFIX)), (3, 11), (3, 1)]
    assert any(one.chains for one in found)
    for question, one in zip(questions, found, strict=True):
        ids, states = plain(model, pixels, question, 12)
        assert [i for i in ids if i != EOS] == one.ids
        for number, chain in enumerate(one.chains):
            tokens = [model.projection(states[place]) if place is not None else None for place in chain]
            for level, token in enumerate(tokens):
                if token is not None:
                    torch.testing.assert_close(one.tokens[level, number], token, rtol=1e-5, atol=1e-5)
            if None not in chain:
                masks = model.segment(features, torch.stack(tokens)[:, None], torch.tensor([0]))
                torch.testing.assert_close(one.low_res_logits[-1][number], masks[-1][0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_forced_equals_generated() -> None:
    model = tiny_model()
    speak_in_chains(model)
    pixels, features = torch.randn(1, 3, 32, 32), model.encode(torch.randn(1, 3, 64, 64))
    questions = [torch.randint(10, 80, (n,)) for n in (4, 9)]
    closing = answer(model, pixels, features, questions, max_new_tokens=8)[0].ids[5:6]
    free = answer(model, pixels, features, questions, closing=closing, max_new_tokens=10)
    assert len(free[0].ids) < 10, "it closes by itself, and its score counts the closing token"
    assert any(one.chains for one in free)
    given = [torch.tensor(one.ids + closing * (len(one.ids) < 10)) for one in free]
    forced = answer(model, pixels, features, questions, given, closing=closing)
    for a, b in zip(free, forced, strict=True):
        assert a.ids == b.ids
        assert a.chains == b.chains
        assert a.score == pytest.approx(b.score, abs=1e-5)
        torch.testing.assert_close(a.tokens, b.tokens, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(a.low_res_logits[-1], b.low_res_logits[-1], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_an_answer_ends_with_its_closing_tokens() -> None:
    model = tiny_model()
    speak_in_chains(model)
    pixels, features = torch.randn(1, 3, 32, 32), model.encode(torch.randn(1, 3, 64, 64))
    question = [torch.tensor([11, 12])]
    (free,) = answer(model, pixels, features, question, max_new_tokens=8)
    closing = free.ids[2:4]
    (stopped,) = answer(model, pixels, features, question, closing=closing, max_new_tokens=8)
    assert stopped.ids == free.ids[: len(stopped.ids)]
    assert len(stopped.ids) <= 2


def test_a_target_goes_with_the_nearest_location_of_its_own() -> None:
    ids = [3, LOC, 4, LOC, SEG, 5, SEG, LOC, 6, SEG, LOC]
    assert find_chains(ids, [LOC, SEG]) == [(3, 4), (None, 6), (7, 9)]
    assert find_chains(ids, [SEG]) == [(4,), (6,), (9,)]
    assert find_chains([1, 2], [LOC, SEG]) == []


@torch.no_grad()
def test_a_target_without_location_runs_without_mask_prompt() -> None:
    model = tiny_model(tiny_config())
    pixels, features = torch.randn(1, 3, 32, 32), model.encode(torch.randn(1, 3, 64, 64))
    said = [torch.tensor([7, SEG, 8, LOC, SEG, EOS])]
    (one,) = answer(model, pixels, features, [torch.tensor([11])], said)
    assert one.chains == [(None, 1), (3, 4)]
    alone = model.segment(features, one.tokens[-1:, :1], torch.tensor([0]))
    torch.testing.assert_close(one.low_res_logits[1][0], alone[0][0])
    assert not (one.low_res_logits[0][0] > 0).any()


@torch.no_grad()
def test_an_answer_that_does_not_close_in_time_is_cut() -> None:
    model = tiny_model()
    speak_in_chains(model)
    pixels, features = torch.randn(1, 3, 32, 32), model.encode(torch.randn(1, 3, 64, 64))
    questions = [torch.tensor([11, 12])]
    (free,) = answer(model, pixels, features, questions, max_new_tokens=8)
    (closed,) = answer(model, pixels, features, questions, closing=free.ids[3:5], max_new_tokens=8)
    (cut,) = answer(model, pixels, features, questions, closing=free.ids[3:5], max_new_tokens=2)
    assert (closed.cut, cut.cut, len(cut.ids)) == (False, True, 2)
