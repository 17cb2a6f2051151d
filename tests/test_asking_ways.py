"""Other ways of asking: whole chains whatever the model says, reasons, thresholds, holes, one more pass, spans."""

from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from shipped_model import shipped

from cores.asking.constrained import Constrained
from cores.errors import UserError
from cores.inference.options import Options
from cores.outlines import fill_holes
from cores.processing.reading import Reading
from cores.scenes.source import open_scenes

LOC, SEG, END, WORD = 7, 8, 9, 1
TEMPLATE = [2, 3, LOC, 4, SEG, 5, END]


@cache
def scene() -> tuple[Image.Image, list[str]]:
    found = open_scenes("test", n=4)[3]
    return found.image, [turn.query for conversation in found.conversations for turn in conversation.turns]


def said(wanted: list[int], most: int = 20) -> list[int]:
    """What comes of a model that wants to say these words, then an end, for ever."""
    choose, found = Constrained([LOC, SEG], TEMPLATE, [END], most), []
    for number in range(most):
        word = wanted[number] if number < len(wanted) else END
        (chosen,) = choose(torch.nn.functional.one_hot(torch.tensor([word]), 10).float(), [0]).tolist()
        found.append(chosen)
        if chosen == END:
            break
    return found


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ([WORD, LOC, WORD, SEG], [WORD, LOC, WORD, SEG, END]),  # right as it is
        ([LOC, SEG, WORD, LOC, SEG], [LOC, SEG, WORD, LOC, SEG, END]),
        ([WORD], [WORD, *TEMPLATE]),  # a refusal
        ([WORD, SEG, SEG], [WORD, LOC, SEG, END]),  # out of order
        ([WORD, LOC], [WORD, LOC, *TEMPLATE[3:]]),  # half a chain
        ([LOC, SEG, LOC], [LOC, SEG, LOC, *TEMPLATE[3:]]),
        ([WORD] * 30, [WORD] * 13 + TEMPLATE),  # no more room
        ([LOC, SEG, *[WORD] * 14, LOC], [LOC, SEG, *[WORD] * 14, END]),  # none for a second chain
    ],
)
def test_every_constrained_answer_is_whole_chains(wanted: list[int], found: list[int]) -> None:
    assert said(wanted) == found


def test_any_words_at_all_become_whole_chains() -> None:
    draw = np.random.default_rng(0)
    for _ in range(300):
        most = int(draw.integers(7, 20))
        answer = said(draw.choice([WORD, LOC, SEG, END, 2], size=20).tolist(), most)
        grounding = [word for word in answer if word in (LOC, SEG)]
        assert grounding
        assert grounding == [LOC, SEG] * (len(grounding) // 2)
        assert answer[-1] == END or len(answer) == most


def test_every_answer_of_a_model_holds_each_level_and_good_ones_are_as_they_were() -> None:
    image, queries = scene()
    queries = [*queries, "an elephant", "how many things are there?"]
    free, constrained = (shipped().segment(image, queries, chain=chain) for chain in ("free", "constrained"))
    assert any(one.status != "segmented" for one in free)
    for one, two in zip(free, constrained, strict=True):
        assert two.status == "segmented"
        assert not two.cut
        assert all([level.name for level in target.levels] == ["location", "target"] for target in two.targets)
        if one.status == "segmented":
            assert two.answer == one.answer
        else:
            assert two.answer.startswith(one.answer)
    with pytest.raises(UserError, match="max_new_tokens: found 3, a constrained answer takes"):
        shipped().segment(image, queries, chain="constrained", max_new_tokens=3)


def test_a_threshold_and_filled_holes_say_what_is_in_a_mask() -> None:
    image, queries = scene()
    usual, strict, loose = (shipped().segment(image, queries[:1], threshold=t)[0] for t in (0.5, 0.9, 0.1))
    assert (strict.mask <= usual.mask).all()
    assert (usual.mask <= loose.mask).all()
    assert strict.mask.sum() < loose.mask.sum()
    level = strict.targets[0].levels[-1]
    assert np.array_equal(level.mask, level.logits > np.log(9))
    filled = shipped().segment(image, queries[:1], fill_holes=True)[0]
    assert np.array_equal(filled.targets[0].mask, fill_holes(usual.targets[0].mask))


def test_holes_are_what_no_way_leads_out_of() -> None:
    ring = np.ones((7, 9), dtype=bool)
    ring[2:5, 2:4] = False
    open_ring = ring.copy()
    open_ring[3, 4:] = False
    assert fill_holes(ring).all()
    assert np.array_equal(fill_holes(open_ring), open_ring)
    assert not fill_holes(np.zeros((3, 4), dtype=bool)).any()


def test_refining_is_one_more_pass_with_the_mask_as_its_prompt() -> None:
    model, (image, queries) = shipped(), scene()
    encoded = model.encode(image)
    plain, refined = (model.ask(encoded, queries[:1], refine=refine)[0] for refine in (False, True))
    assert plain.answer == refined.answer
    one, two = (found.targets[0].levels for found in (plain, refined))
    assert np.array_equal(one[0].low_res, two[0].low_res)
    (answer,) = model._asker(Options()).generate(encoded, [(queries[0], "phrase")])
    logits, token = answer.low_res_logits[-1], answer.tokens[-1]
    index = torch.zeros(len(token), dtype=torch.long)
    with torch.no_grad():
        if model.model.refiner is not None:
            token = model.model.refiner(token, model.model.segmenter.grid(encoded.features), index, logits)
        again = model.model.segmenter.decode(encoded.features, token[:, None], index, logits)
    assert np.allclose(again[0].numpy(), two[-1].low_res, atol=1e-3)


def test_an_explanation_is_asked_for_as_in_training_and_a_phrase_becomes_a_question() -> None:
    model, (image, queries) = shipped(), scene()
    asker = model._asker(Options())
    assert asker.as_question("red kettle") == "What is red kettle in this image?"
    encoded = model.encode(image)
    (found,) = model.ask(encoded, ["red kettle"], explain=True)
    (told,) = model.ask(encoded, ["What is red kettle in this image?"], form="explain")
    assert (found.query, found.answer) == ("red kettle", told.answer)
    with pytest.raises(UserError, match="explain: does not go with form='raw'"):
        model.ask(encoded, queries, form="raw", explain=True)


def test_a_name_is_found_where_it_stands_in_the_text() -> None:
    text = "the cup: it is. cup: it is. It is."
    found = Reading("", text, "segmented", ["the cup", "cup", None])
    assert [text[slice(*span)] if span else None for span in found.spans] == ["the cup", "cup", None]
    assert found.spans == [(0, 7), (16, 19), None]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"chain": "loose"}, "chain: found 'loose', expected free or constrained"),
        ({"threshold": 1}, "threshold: found 1, expected a probability"),
        ({"threshold": "0.5"}, "threshold: found '0.5'"),
    ],
)
def test_what_cannot_be_asked_with_is_named(how: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        shipped().segment("missing.png", ["cup"], **how)  # type: ignore[arg-type]
