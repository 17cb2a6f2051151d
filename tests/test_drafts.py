"""Drafts change no answer: the tokens are those of plain greedy decoding, whatever is guessed, in fewer passes."""

import random
from collections.abc import Iterator, Sequence
from functools import cache

import pytest
import torch
from learned import learned, sample
from test_mllm_families import Chain, prefix_of, text
from tiny_families import FAMILIES

from cores.asking.answerer import Query
from cores.asking.answers import Answered
from cores.asking.asker import Asker
from cores.asking.drafts import Drafts, Tally
from cores.asking.image_encoding import EncodedImage
from cores.checkpoints.load import load
from cores.data.sources import open_source
from cores.errors import UserError
from cores.inference.facade import Cores
from cores.modeling import CoresModel
from cores.modeling.drafting import Block
from cores.modeling.generation import generate, teacher_force
from cores.modeling.prefix_cache import Rows, read_prefix
from cores.processing import CoresProcessor


class Guesser:
    """Drafts the answer itself with some of its words changed, and others beside it: right, wrong and half right."""

    def __init__(self, answers: dict[tuple[int, ...], list[int]]) -> None:
        self.answers, self.draw = answers, random.Random(0)
        self.learned: set[tuple[int, ...]] = {()}

    def propose(self, question: Sequence[int], said: Sequence[int]) -> Iterator[Sequence[int]]:
        rest = self.answers[tuple(question)][len(said) :]
        for _ in range(3):
            yield [self.draw.randrange(3, 90) if self.draw.random() < 0.3 else word for word in rest]
        yield [self.draw.randrange(3, 90) for _ in range(4)]
        yield [*rest, 5, 6, 7]

    def learn(self, said: Sequence[int], new: int) -> None:
        assert tuple(said[:-new]) in self.learned, "it hears of every pass"
        self.learned.add(tuple(said))


@pytest.mark.parametrize("name", [name for name in FAMILIES])
@torch.no_grad()
def test_whatever_is_guessed_the_answer_is_the_same(name: str) -> None:
    tiny = FAMILIES[name]
    model = Chain(tiny.build("sdpa"))
    prefixes = [read_prefix(model, tiny.picture(n), prefix_of(model.mllm, tiny.picture(n), n)) for n in range(2)]
    rows, questions = [prefixes[0], prefixes[1], prefixes[0]], [text(length, 20 + length) for length in (9, 3, 6)]
    plain = generate(model, rows, questions, [2], 9)
    whole = [[*one.ids, 2] if not one.cut else one.ids for one in plain]
    guesser = Guesser({tuple(question.tolist()): ids for question, ids in zip(questions, whole, strict=True)})
    drafted = generate(model, rows, questions, [2], 9, drafter=guesser)
    for one, other in zip(plain, drafted, strict=True):
        assert (one.ids, one.cut) == (other.ids, other.cut)
        assert one.score == pytest.approx(other.score, abs=1e-5)
        assert (one.states - other.states).abs().max() <= 1e-5 * one.states.abs().max()
        assert other.passes < one.passes if model.mllm.packs else other.passes == one.passes
    assert (set(map(tuple, whole)) <= guesser.learned) == model.mllm.packs


def test_a_block_takes_so_many_tokens_and_its_walk_is_what_is_predicted() -> None:
    drafts = [[1, 2, 3], [1, 2, 4], [5], [1, 6]]
    block = Block([8, 9], drafts, room=6, longest=3)
    assert (block.ids, block.before, block.asked) == ([8, 9, 1, 2, 3, 4, 5, 6], [-1, 0, 1, 2, 3, 3, 1, 2], 7)
    assert block.walk([1, 2, 4, 0, 7, 0, 0]) == [1, 2, 3, 5]
    assert block.walk([7, 2, 4, 0, 7, 0, 0]) == [1]
    assert Block([8, 9], drafts, room=2, longest=3).ids == [8, 9, 1, 2]
    assert Block([8, 9], drafts, room=6, longest=1).ids == [8, 9, 1, 5]
    assert Block([8, 9], drafts, room=6, longest=0).ids == Block([8, 9]).ids == [8, 9]


def ask(drafts: str, *queries: Query) -> tuple[list[Answered], Tally]:
    asker = Asker(*learned(), drafts=drafts)  # type: ignore[arg-type]
    return asker.generate(asker.encode_image(sample(0).image), queries), asker.tally


def test_templates_are_guessed_at_once() -> None:
    """A model that says the validation answer says it in one pass, and one that never says a draft loses none."""
    plain, off = ask("off", ("kettle", "phrase"), ("knife", "phrase"))
    drafted, on = ask("call", ("kettle", "phrase"), ("knife", "phrase"))
    assert [one.ids for one in plain] == [one.ids for one in drafted]
    assert (off.answers, off.tokens) == (on.answers, on.tokens) == (2, sum(one.length for one in plain))
    assert off.passes == off.tokens + 2
    assert on.passes <= 8
    never = Asker(*learned(), drafts="run")
    never._drafts = Drafts([[4, 4, 4, 4]])
    never.generate(never.encode_image(sample(0).image), [("how many cup are there?", "raw")])
    assert never.tally.passes <= never.tally.tokens + 1


def test_drafts_of_a_call_depend_on_the_call_alone() -> None:
    """To the last bit; `run` remembers what was said, and needs fewer passes."""
    queries: list[Query] = [("kettle", "phrase"), ("kettle and cup", "phrase"), ("knife", "phrase")]
    for drafts, better in (("call", False), ("run", True)):
        asker = Asker(*learned(), drafts=drafts)  # type: ignore[arg-type]
        image = asker.encode_image(sample(0).image)
        first, passes = asker.generate(image, queries), asker.tally.passes
        asker.generate(image, [("how many cup are there?", "raw")])
        asker.tally = Tally()
        again = asker.generate(image, queries)
        assert (asker.tally.passes < passes) == better
        for one, other in zip(first, again, strict=True):
            assert one.ids == other.ids
            if not better:
                torch.testing.assert_close(one.tokens, other.tokens, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("drafts", "talks", "calls"), [("call", True, False), ("run", True, True), ("off", False, False)]
)
def test_a_model_guesses_from_what_it_said_in_other_talks_and_calls(
    drafts: str, talks: bool, calls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, picture, passes = Cores(*learned(), drafts=drafts), sample(0).image, []  # type: ignore[arg-type]
    monkeypatch.setattr(Rows, "read", lambda *args, read=Rows.read: passes.append(1) or read(*args))

    def took(talk: bool, query: str = "how many cup are there?") -> tuple[int, str]:
        passes.clear()
        found = model.chat(picture).ask(query, "raw") if talk else model.ask(model.encode(picture), [query], "raw")[0]
        return len(passes), found.answer

    for talk, better in ((False, calls), (True, talks)):
        model._said = None
        first, again = took(talk), took(talk)
        assert first[1] == again[1]
        assert again[0] < first[0] if better else again[0] == first[0], (talk, first, again)


def test_drafts_begin_anew_when_they_have_heard_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [[1, 2, 3, 4]]
    drafts, chance = Drafts(known), random.Random(0)
    begun = len(drafts.table)
    monkeypatch.setattr("cores.asking.drafts.MOST", 200)
    for _ in range(500):
        drafts.learn([chance.randrange(9, 99) for _ in range(12)], 12)
        assert len(drafts.table) < 300
    assert len(drafts.table) > begun
    drafts = Drafts(known)
    for _ in range(20):
        drafts.learn([5, 6, 7], 3)
    assert next(iter(drafts.propose([8], []))) == (5,)  # what was said often comes before what is only known


def test_other_drafts_are_refused() -> None:
    with pytest.raises(UserError, match="drafts: found 'all', expected one of call, run, off"):
        Asker(*learned(), drafts="all")  # type: ignore[arg-type]


@cache
def shipped() -> tuple[CoresModel, CoresProcessor]:
    model, processor = load(None, "cpu")
    return model.eval(), processor


def between(asker: Asker, image: EncodedImage, query: Query, one: Sequence[int], other: Sequence[int]) -> float:
    """How far apart the logits are of the words with which two answers part."""
    place = next(n for n, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1])
    question, closing = asker.processor.question(*query), asker.processor.closing
    given = torch.tensor(one[: place + 1])
    (said,) = teacher_force(asker.model, asker.encoding.prefixes_of([image]), [question], [given], closing)
    logits = asker.model.mllm.logits(said.states[-1:])[0]
    return float((logits[one[place]] - logits[other[place]]).abs())


@torch.no_grad()
def assert_lossless(spec: str, first: int, pictures: int, drafts: str) -> tuple[Tally, set[str], int]:
    """Every question of these pictures, drafted in batches of four pictures and plainly; what was asked, and how often
    two words were equally likely but for rounding, of which either may be said."""
    source, kinds, ties = open_source(spec, None), set(), 0
    askers = [Asker(*shipped(), drafts=way) for way in ("off", drafts)]  # type: ignore[arg-type]
    for number in range(first, min(first + pictures, len(source)), 4):
        samples = [source[n] for n in range(number, min(number + 4, len(source)))]
        images = askers[0].encode_images([sample.image for sample in samples])
        turns = [[turn for talk in sample.conversations for turn in talk.turns] for sample in samples]
        queries = [[(turn.query, turn.form) for turn in own] for own in turns]
        plain, drafted = (asker.generate_batch(images, queries) for asker in askers)
        for image, asked, own, other in zip(images, queries, plain, drafted, strict=True):
            for query, one, two in zip(asked, own, other, strict=True):
                if one.ids == two.ids:
                    assert one.cut == two.cut
                    assert one.score == pytest.approx(two.score, abs=1e-4)
                    continue
                ties += 1
                whole = ([*answer.ids, *askers[0].processor.closing] for answer in (one, two))
                assert between(askers[0], image, query, *whole) < 1e-4
        kinds |= {kind for sample in samples for kind in sample.meta["kinds"]}
    return askers[1].tally, kinds, ties


@pytest.mark.parametrize("drafts", ["call", "run"])
def test_answers_of_the_shipped_model_are_those_of_plain_decoding(drafts: str) -> None:
    tally, _, ties = assert_lossless("scenes|test", 0, 4, drafts)
    assert not ties
    assert tally.passes < 0.3 * (tally.tokens + tally.answers)


@pytest.mark.slow
def test_two_thousand_answers_are_those_of_plain_decoding() -> None:
    asked = [assert_lossless(spec, 0, 200, "call") for spec in ("scenes|test", "scenes|phrasing")]
    assert sum(tally.answers for tally, _, _ in asked) >= 2000
    assert sum(ties for _, _, ties in asked) <= 4
    for _, kinds, _ in asked:
        assert kinds >= {"absent", "several", "explain", "text"}
