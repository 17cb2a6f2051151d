"""LLaVA-Instruct: turns in order, the picture's marker gone, what cannot be a conversation refused."""

import pytest
from data_files import say, write_records
from shared import shared

from cores.data.sources import open_source
from cores.errors import DataError


def records(root, *talks):
    write_records(root, *talks)
    return open_source("llava_instruct_150k", root)


def test_a_record_is_one_conversation_without_the_marker(tmp_path):
    source = records(tmp_path, say("What is it?\n<image>", "A bus.", "Which?", " Red. "), say("<image>\nX", "Y"))
    (talk,) = source[0].conversations
    assert [(t.query, t.answer, t.form, t.targets) for t in talk.turns] == [
        ("What is it?", "A bus.", "raw", ()),
        ("Which?", " Red. ", "raw", ()),
    ]
    assert source[1].conversations[0].turns[0].query == "X"


def test_an_answer_before_any_question_is_dropped_and_a_question_without_answer_teaches_nothing(tmp_path):
    source = records(tmp_path, say("hello", "Q", "A", "B", first="gpt"), say("Q"))
    assert [(t.query, t.answer) for t in source[0].conversations[0].turns] == [("Q", "A")]
    assert [t.answer for t in source.record(0).talks[0].turns] == ["A", None]
    assert source[1].conversations == ()


@pytest.mark.parametrize(
    ("talk", "said"),
    [
        ([{"from": "human", "value": "x"}, {"from": "human", "value": "y"}], "human speaks twice in a row"),
        ([{"from": "user", "value": "x"}], "from: found 'user', expected human or gpt"),
        ([{"from": "human"}], "0: the field 'value' is missing"),
        (say("only", first="gpt"), "nobody asks anything"),
        ("hello", "found 'hello', expected a list"),
        (say("<image>\n", "A bus."), "conversations: 0: value: is blank"),
        (say("What is it?", "A bus.", " \u200b", "Red."), "conversations: 2: value: is blank"),
    ],
)
def test_what_is_no_conversation_is_named(tmp_path, talk, said):
    with pytest.raises(DataError, match=rf"150k\.json: record 0: .*{said}"):
        records(tmp_path, talk)[0]


def test_the_real_records():
    source = open_source("llava_instruct_150k", shared("samples/formats/llava"))
    assert len(source) == 4
    talks = [sample.conversations[0] for sample in source]
    assert [len(talk.turns) for talk in talks] == [3, 1, 1, 1]
    assert not any(
        "<image>" in turn.query or turn.query != turn.query.strip() for talk in talks for turn in talk.turns
    )
