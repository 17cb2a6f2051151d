"""Free reasoning before an answer: how it begins and ends, what it never holds, and what is learned of it."""

from dataclasses import replace

import pytest
import torch

import cores
from cores.asking.asker import Asker
from cores.asking.thinking import Thinking
from cores.errors import UserError
from cores.modeling.generation import Said
from cores.modeling.sampling import Sampling
from cores.processing.tokens import encode
from cores.recipe import ReinforcementSection
from cores.scenes.source import open_scenes
from cores.training.reinforcement.collate import PolicyCollate
from cores.training.reinforcement.drawn_batch import with_drawn, with_thoughts
from cores.training.reinforcement.rollout import roll_out
from cores.vocabulary import UNSUPERVISED

OPENING, ENDING, NEVER = [1, 2], [3, 4], [7, 10]  # the last is beyond the words
SECTION = ReinforcementSection(samples=3, temperature=1.5, think=6, think_cost=0.3)


def spoken(thinking: Thinking, wanted: dict[int, list[int]], passes: int) -> dict[int, list[int]]:
    """What is said to questions that would say these words behind the opening, the last of them for ever."""
    said: dict[int, list[int]] = {number: [] for number in wanted}
    for at in range(passes):
        chances = torch.full((len(wanted), 10), -9.0)
        for row, words in enumerate(wanted.values()):
            chances[row, 9] = -2.0  # the second choice
            chances[row, words[min(max(at - len(OPENING), 0), len(words) - 1)]] = -1.0
        for number, word in zip(wanted, thinking(chances, list(wanted)).tolist(), strict=True):
            said[number].append(word)
    return said


def test_a_thought_is_opened_and_ends_by_itself_or_is_closed():
    thinking = Thinking(OPENING, ENDING, 4, NEVER, None)
    assert thinking.room == 8
    said = spoken(thinking, {0: [5, 3, 4, 7, 8], 3: [7, 5, 6, 5, 6, 5, 8]}, 9)
    assert said[0] == [1, 2, 5, 3, 4, 7, 8, 8, 8]  # closed by itself; behind it any word may be said
    assert said[3] == [1, 2, 9, 5, 6, 5, 3, 4, 8]  # its room is over; the shut word gave way to the second choice
    assert [list(thinking.spoken(number, said[number])) for number in (0, 3)] == [[7, 8, 8, 8], [8]]
    whole = [Said(said[n], torch.arange(9.0)[:, None], torch.arange(9.0), 0.0) for n in (0, 3)]
    (first, rest), (second, other) = (thinking.apart(n, one) for n, one in zip((0, 3), whole, strict=True))
    assert (first.ids, first.chosen, first.inner, first.length) == ((1, 2, 5, 3, 4), (2, 5), (5,), 3)
    assert (second.ids, second.chosen, second.inner) == ((1, 2, 9, 5, 6, 5, 3, 4), (2, 6), (9, 5, 6, 5))
    assert (rest.ids, rest.states[:, 0].tolist(), rest.score) == ([7, 8, 8, 8], [5, 6, 7, 8], 6.5)
    assert (other.ids, other.score) == ([8], 8)
    cut = Thinking(OPENING, ENDING, 4, NEVER, None)
    begun = spoken(cut, {0: [5]}, 3)[0]
    assert cut.spoken(0, begun) == []
    thought, nothing = cut.apart(0, replace(whole[0], ids=begun, states=whole[0].states[:3], sure=whole[0].sure[:3]))
    assert (thought.ids, thought.chosen, nothing.ids, nothing.score) == ((1, 2, 5), (2, 3), [], 0.0)


def test_room_that_a_short_thought_leaves_is_not_the_answers():
    thinking = Thinking(OPENING, ENDING, 4, NEVER, None)
    said = spoken(thinking, {0: [5, 3, 4, 7, 8], 3: [5, 6]}, 9)
    heard: list[int] = []
    goes_on = thinking.limited(3, lambda number, ids: not heard.append(len(ids)))
    assert [goes_on(0, said[0][:length]) for length in (3, 5, 7, 8)] == [True, True, True, False]
    assert [goes_on(3, said[3][:length]) for length in (6, 9)] == [True, True]
    assert heard == [3, 5, 7, 8, 6, 9]


def test_a_recipe_that_draws_nothing_has_no_thoughts():
    assert list(SECTION.problems()) == []
    for wrong, says in ((replace(SECTION, think=-1), "think: found -1"), (replace(SECTION, samples=0), "think: only")):
        (problem,) = wrong.problems()
        assert says in problem


@pytest.fixture(scope="module")
def shipped() -> cores.Cores:
    found = cores.load()
    assert isinstance(found, cores.Cores)
    return found


def test_drawn_thoughts_are_the_same_alone_and_hold_no_grounding_token(shipped):
    source, sampling = open_scenes("val", 2), Sampling(1.5)
    asked = [[("the red thing", "phrase"), ("what holds water?", "sentence")], [("a cup", "phrase")]]
    keys = [[(0, 0), (0, 1)], [(1, 0)]]
    asker = Asker(shipped.model, shipped.processor, think=6)
    images = asker.encode_images([source[i].image for i in range(2)])
    together = asker.draw_batch(images, asked, keys, 4, sampling)
    tokenizer, never = shipped.processor.tokenizer, [*shipped.processor.token_ids, shipped.processor.closing[0]]
    opening, ending = encode(tokenizer, "<think>"), encode(tokenizer, "</think>")
    for answer in (one for own in together for group in own for one in group):
        ids = list(answer.thought.ids)
        assert ids[: len(opening)] == opening
        assert ids[-len(ending) :] == ending
        assert not set(ids) & set(never)
        assert len(answer.thought.inner) <= answer.thought.length <= 6
        assert asker.thought_of(answer) == asker.text_of(answer.thought.inner).strip()
    fresh = Asker(shipped.model, shipped.processor, questions_per_pass=1, think=6)
    for query, key, group in zip(asked[0], keys[0], together[0], strict=True):
        alone = fresh.draw_batch([images[0]], [[query]], [[key]], 4, sampling)[0][0]
        assert [(one.thought, one.ids) for one in alone] == [(one.thought, one.ids) for one in group]


def test_a_question_is_asked_with_thought(shipped):
    image = open_scenes("val", 1)[0].image
    found = shipped.segment(image, ["the red thing"], think=5)[0]
    assert found.thought
    assert found.to_dict()["thought"] == found.thought
    assert "think" not in found.text
    plain = shipped.segment(image, ["the red thing"])[0]
    assert plain.thought == ""
    assert "thought" not in plain.to_dict()
    *texts, last = shipped.stream(image, "the red thing", think=5)
    assert last == found
    assert "".join(texts).strip() == found.answer
    for wrong, says in (({"think": -1}, "think: found -1"), ({"think": 2, "chain": "constrained"}, "constrained")):
        with pytest.raises(UserError, match=says):
            shipped.segment(image, ["the red thing"], **wrong)


def test_marks_are_not_learned_and_length_costs(shipped):
    source, collate = open_scenes("train", 2), PolicyCollate(shipped.processor, 0, None, supervised=False)
    batch = collate([(source[i], 0, i) for i in range(2)])
    samples, keys = batch.pop("samples"), batch.pop("keys")
    rolled = roll_out(Asker(shipped.model, shipped.processor, think=6), samples, keys, SECTION)
    tokenizer = shipped.processor.tokenizer
    opening, ending = encode(tokenizer, "<think>"), encode(tokenizer, "</think>")
    for one in rolled:
        marks = [one.answer[k] for k in range(len(one.answer)) if k not in one.chosen]
        assert marks in (opening, [*opening, *ending])  # who closes a thought by itself has chosen to
        assert 0 < one.parts.thought <= 1
        assert (one.parts.thought == 1) or marks == opening
        assert one.reward == pytest.approx(one.parts.total(SECTION.rewards) - 0.3 * one.parts.thought)
    drawn = with_drawn(batch, rolled, 3)
    flat, places = drawn["input_ids"].flatten(), drawn["drawn"]["places"]
    assert drawn["drawn"]["words"].tolist() == [one.answer[k] for one in rolled for k in one.chosen]
    assert torch.equal(flat[places + 1], drawn["drawn"]["words"])  # each is predicted by the place before it
    assert len(drawn["drawn"]["advantages"]) == len(places)


def test_given_answers_stand_behind_drawn_thoughts(shipped):
    """The same words and masks are supervised, at the places to which the thoughts have moved them."""
    source, collate = open_scenes("train", 3), PolicyCollate(shipped.processor, 0, None, supervised=True)
    batch = collate([(source[i], 0, i) for i in range(3)])
    samples, keys = batch.pop("samples"), batch.pop("keys")
    rolled = roll_out(Asker(shipped.model, shipped.processor, think=6), samples, keys, SECTION)
    moved = with_thoughts(batch, rolled, 3)

    def supervised(one):
        flat = one["labels"].flatten()
        assert int((flat != UNSUPERVISED).sum()) == len(one["supervised"])
        return flat[one["supervised"] + 1].tolist()

    assert supervised(moved) == supervised(batch)
    rows = batch["image_index"][None].expand_as(batch["token_positions"])
    for level, token in enumerate(shipped.processor.token_ids):
        assert set(moved["input_ids"][rows, moved["token_positions"] + 1][level].tolist()) == {token}
    first = {(one.row, tuple(one.question)): one for one in reversed(rolled)}
    thought_of = {key: one.answer[: one.behind] for key, one in first.items()}
    found = 0
    for row, (ids, old) in enumerate(zip(moved["input_ids"], batch["input_ids"], strict=True)):
        for number in range(1, int(moved["segment_ids"][row].max()) + 1):
            words = ids[moved["segment_ids"][row] == number].tolist()
            given = old[batch["segment_ids"][row] == number].tolist()
            labels = batch["labels"][row][batch["segment_ids"][row] == number].tolist()
            place = next(k for k, label in enumerate(labels) if label != UNSUPERVISED)
            thought = thought_of.get((row, tuple(given[:place])), [])
            assert words == [*given[:place], *thought, *given[place:]]
            found += bool(thought)
    assert found == len(thought_of) > 10
    assert with_drawn(moved, rolled, 3)["counts"]["answers"] == len(rolled)
