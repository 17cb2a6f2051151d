"""`samples=n`: several answers to a question, the likeliest first, the same for the same seed and question."""

import numpy as np
import pytest
from shipped_model import shipped

from cores.errors import UserError
from cores.inference.voting import vote
from cores.scenes.source import open_scenes

FREELY = {"samples": 5, "temperature": 1.5, "seed": 3}


@pytest.fixture(scope="module")
def scene():
    found = open_scenes("test", n=1)[0]
    queries = [talk.turns[0].query for talk in found.conversations]
    return found.image, [queries[0], queries[1], "an elephant"]


def words(found) -> list[list[str]]:
    return [[one.answer for one in own] for own in found]


def test_drawn_answers_hang_on_the_seed_and_the_question_alone(scene) -> None:
    (image, queries), model = scene, shipped()
    found = model.segment(image, queries, **FREELY)
    assert words(found) == words(model.ask(model.encode(image), queries, **FREELY))
    assert words(found)[::-1] == [words(model.segment(image, [query], **FREELY))[0] for query in reversed(queries)]
    assert words(found) != words(model.segment(image, queries, **FREELY | {"seed": 4}))
    assert [len(own) for own in found] == [5, 5, 5]
    assert len({answer for own in words(found) for answer in own}) > 5
    few = model.segment(image, queries, **FREELY | {"samples": 2})
    assert all(set(less) <= set(more) for less, more in zip(words(few), words(found), strict=True))


def test_the_likeliest_answer_comes_first_and_each_is_whole(scene) -> None:
    (image, queries), model = scene, shipped()
    for query, own in zip(queries, model.segment(image, queries, **FREELY), strict=True):
        scores = [one.score for one in own]
        assert scores == sorted(scores, reverse=True)
        assert scores[0] > scores[-1]
        assert all(one.query == query and one.picture is not None for one in own)
        assert all(0 < target.confidence <= 1 for one in own for target in one.targets)
        votes = sum(one.mask.astype(int) for one in own)
        assert np.array_equal(vote(own), votes >= 3)


def test_one_sample_without_temperature_is_the_greedy_answer(scene) -> None:
    (image, queries), model = scene, shipped()
    encoded = model.encode(image)
    for greedy, (drawn,) in zip(
        model.ask(encoded, queries), model.ask(encoded, queries, samples=1, temperature=0), strict=True
    ):
        assert drawn == greedy
    narrow = model.ask(encoded, queries, samples=2, top_p=1e-6)  # the nucleus is the likeliest word
    assert words(narrow) == [[one.answer] * 2 for one in model.ask(encoded, queries)]


def test_the_picture_is_looked_at_and_its_prefix_read_once(scene, monkeypatch) -> None:
    """Also where the answers are said in several passes."""
    (image, queries), model, looked = scene, shipped(), []
    for owner, name in ((type(model.model), "encode"), (type(model.model.mllm), "encode_images")):
        real = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda self, pixels, real=real, name=name: looked.append(name) or real(self, pixels)
        )
    monkeypatch.setattr(model, "questions_per_pass", 4)
    found = model.segment(image, queries, **FREELY)
    assert sorted(looked) == ["encode", "encode_images"]
    monkeypatch.undo()
    assert words(found) == words(model.segment(image, queries, **FREELY))


def test_drawn_answers_are_asked_as_others_are(scene) -> None:
    (image, queries), model = scene, shipped()
    ((plain,),) = model.segment(image, queries[:1], samples=1, temperature=0)
    ((strict,),) = model.segment(image, queries[:1], samples=1, temperature=0, threshold=0.9)
    assert strict.mask.sum() < plain.mask.sum()
    (cut,) = model.segment(image, queries[:1], max_seconds=0, **FREELY)
    assert all(one.cut and one.answer == "" for one in cut)
    assert model.segment(image, [], samples=2) == []


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"samples": 0}, "samples: found 0, expected a whole number from 1"),
        ({"samples": True}, "samples: found True"),
        ({"samples": 2, "temperature": 0}, "so that all 2 answers would be the same: take more, or samples=1"),
        ({"samples": 2, "temperature": -1}, "temperature: found -1"),
        ({"samples": 2, "temperature": "1"}, "temperature: found '1', expected a number"),
        ({"samples": 2, "top_p": 0}, "top_p: found 0"),
        ({"samples": 2, "seed": -1}, "seed: found -1"),
        ({"temperature": 0.7}, "temperature: is for drawn answers: say how many, such as samples=8"),
        ({"samples": 2, "chain": "constrained"}, "a constrained answer is not drawn: leave samples out, or chain"),
        ({"samples": 2, "sample": 3}, "there is no 'sample' to ask with"),
    ],
)
def test_what_cannot_be_drawn_is_said_before_the_picture_is_read(how: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        shipped().segment("missing.png", ["cup"], **how)


def test_streams_and_batches_give_one_answer() -> None:
    with pytest.raises(UserError, match="samples: answers are drawn by a model's `segment` and `ask`"):
        shipped().segment_batch(["missing.png"], [["cup"]], samples=2)
    with pytest.raises(UserError, match="seed: answers are drawn by a model's `segment` and `ask`"):
        next(shipped().stream("missing.png", "cup", seed=2))
