"""A talk about one picture: each question alone behind it, or behind the turns before it."""

from functools import cache

import pytest
import torch
from PIL import Image
from shipped_model import shipped

from cores.errors import UserError
from cores.inference.following import worded
from cores.inference.options import Options
from cores.modeling.generation import generate
from cores.scenes.source import open_scenes


@cache
def asked() -> tuple[Image.Image, list[str]]:
    scene = open_scenes("test", n=4)[3]
    return scene.image, [turn.query for conversation in scene.conversations for turn in conversation.turns]


def test_questions_that_stand_alone_are_those_of_ask() -> None:
    image, queries = asked()
    chat = shipped().chat(image)
    found = [chat.ask(query) for query in queries]
    alone = shipped().ask(shipped().encode(image), queries)
    assert [one.answer for one in found] == [one.answer for one in alone] == [one.answer for one in chat.turns]
    assert all((one.mask ^ two.mask).sum() < 20 for one, two in zip(found, alone, strict=True))


def test_a_question_behind_others_is_read_as_one_conversation() -> None:
    """The cache that grows turn by turn says what the whole conversation says, read at once behind the picture."""
    model, (image, queries) = shipped(), asked()
    chat = model.chat(image, remember="conversation")
    found = [chat.ask(query) for query in queries[:3]]
    queries_in_words = worded(queries[:3], None)
    said = [*(one.answer for one in found[:2]), None]
    turns = [
        (model.processor.writer.ask(*query), answer) for query, answer in zip(queries_in_words, said, strict=True)
    ]
    ids = torch.tensor(model.processor._conversation(turns).ids)  # as training writes it
    (prefix,) = model._asker(Options()).encoding.prefixes_of([model.encode(image)])
    (whole,) = generate(model.model, [prefix], [ids], model.processor.closing, model.model.max_new_tokens)
    assert model.processor.parse_answer(whole.ids).text == found[2].answer
    assert abs(whole.score - found[2].score) < 1e-4


def test_a_turn_can_be_undone_and_one_that_was_closed_is_none() -> None:
    image, queries = asked()
    chat = shipped().chat(image, remember="conversation")
    first = chat.ask(queries[0])
    second = chat.ask(queries[1])
    assert chat.undo() == second
    told = chat.stream(queries[2])
    next(told)
    told.close()
    assert chat.turns == [first]
    assert chat.ask(queries[1]).answer == second.answer
    assert len(chat.turns) == 2


def test_what_cannot_be_remembered_is_named() -> None:
    with pytest.raises(UserError, match="remember: found 'all', expected picture or conversation"):
        shipped().chat(asked()[0], remember="all")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no turn to undo"):
        shipped().chat(asked()[0]).undo()
