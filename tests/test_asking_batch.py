"""Batches over pictures and questions say what one picture and one question at a time say, word by word."""

from collections.abc import Sequence

import pytest
import torch
from learned import learned, sample
from PIL import Image
from test_mllm_families import Chain, prefix_of, text
from tiny_families import FAMILIES, Picture, joined
from tiny_tokenizer import tiny_processor

from cores.asking.answerer import Query
from cores.asking.answers import Answered
from cores.asking.asker import Asker
from cores.modeling.generation import Said, generate, teacher_force
from cores.modeling.prefix_cache import PrefixCache, read_prefix, read_prefixes

KETTLE: list[Query] = [("kettle", "phrase"), ("kettle and cup", "phrase"), ("knife", "phrase")]
TEXT: Query = ("how many cup are there?", "raw")
LONG: Query = ("cup " * 12 + "and kettle", "sentence")


def pictures(count: int) -> list[Image.Image]:
    """Different ones of two sizes, of which the first two are known by heart."""
    found = []
    for number in range(count):
        image = sample(number % 2).image
        assert isinstance(image, Image.Image)
        found.append(image if number < 2 else image.rotate(90 * number, expand=True))
    return found


def assert_same(one: Answered, other: Answered) -> None:
    assert (one.ids, one.chains, one.cut) == (other.ids, other.chains, other.cut)
    assert one.score == pytest.approx(other.score, abs=1e-5)
    torch.testing.assert_close(one.tokens, other.tokens, rtol=1e-5, atol=1e-5)
    for level, same in zip(one.low_res_logits, other.low_res_logits, strict=True):
        largest = same.abs().amax() if len(same) else 1.0
        torch.testing.assert_close(level, same, rtol=0, atol=1e-5 * max(1.0, float(largest)))


@pytest.mark.parametrize("given", [False, True], ids=["generated", "teacher-forced"])
@pytest.mark.parametrize("exemplars", ["off", "random"], ids=["one length", "mixed lengths"])
def test_a_batch_is_its_pictures_one_by_one(given: bool, exemplars: str) -> None:
    model = learned()[0]
    processor = learned()[1] if exemplars == "off" else tiny_processor(exemplars=exemplars)
    queries: list[list[Query]] = [KETTLE, [TEXT], [], [*KETTLE, TEXT, LONG] * 6, [LONG], [KETTLE[1]]]
    assert len(queries[3]) == 30
    asker = Asker(model, processor, max_new_tokens=24)
    images = asker.encode_images(pictures(len(queries)))
    lengths = {len(processor.prefix(0, image.picture.key)) for image in images}
    assert (len(lengths) > 1) == (exemplars == "random")

    def ask(numbers: Sequence[int], asked: Sequence[Sequence[Query]]) -> list[list[Answered]]:
        looked = [images[number] for number in numbers]
        if given:
            answers = [[f"It is {'[LOC] ' * (len(query) % 2)}[SEG]." for query, _ in own] for own in asked]
            return asker.teacher_force_batch(looked, asked, answers)
        return asker.generate_batch(looked, asked)

    together = ask(range(len(queries)), queries)
    assert [len(answers) for answers in together] == [len(own) for own in queries]
    for number, (own, answers) in enumerate(zip(queries, together, strict=True)):
        for query, answer in zip(own[:6], answers, strict=False):
            assert_same(answer, ask([number], [[query]])[0][0])
    if not given:
        assert {len(answer.chains) for answers in together for answer in answers} >= {0, 1, 2}
    assert ask([], []) == []


def test_pictures_are_looked_at_together_and_alike() -> None:
    asker = Asker(*learned())
    for one, picture in zip(asker.encode_images(pictures(6)), pictures(6), strict=True):
        alone = asker.encode_image(picture)
        assert (one.picture.key, one.size, one.resized) == (alone.picture.key, alone.size, alone.resized)
        assert (one.features.coarse - alone.features.coarse).abs().max() <= 1e-5 * alone.features.coarse.abs().max()
        assert one.features.coarse.untyped_storage().nbytes() == alone.features.coarse.untyped_storage().nbytes()


def close(one: Said, other: Said) -> None:
    assert (one.ids, one.cut) == (other.ids, other.cut)
    assert one.score == pytest.approx(other.score, abs=1e-5)
    assert (one.states - other.states).abs().max() <= 1e-5 * other.states.abs().max()


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_every_family_reads_prefixes_of_several_pictures_together(name: str) -> None:
    """Of different lengths, with different counts of questions; those that cannot go one by one."""
    tiny = FAMILIES[name]
    model = Chain(tiny.build("sdpa"))
    pictures: list[Picture] = [tiny.picture(number) for number in range(3)]
    ids = [prefix_of(model.mllm, picture, number) for number, picture in enumerate(pictures)]
    alone = [read_prefix(model, *pair) for pair in zip(pictures, ids, strict=True)]
    together = read_prefixes(model, joined(pictures), ids) if model.mllm.packs else alone
    assert [one.length for one in together] == [len(one) for one in ids]
    of = [0, 1, 1, 1, 2, 0]
    questions = [text(length, 20 + length) for length in (9, 3, 11, 4, 6, 3)]
    answers = [text(length, 30 + length) for length in (5, 2, 7, 5, 1, 3)]

    def rows(prefixes: Sequence[PrefixCache]) -> list[PrefixCache]:
        return [prefixes[number] for number in of]

    said = generate(model, rows(together), questions, [2], 6)
    forced = teacher_force(model, rows(together), questions, answers, [2])
    for number, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        prefix = [alone[of[number]]]
        close(said[number], generate(model, prefix, [question], [2], 6)[0])
        close(forced[number], teacher_force(model, prefix, [question], [answer], [2])[0])
