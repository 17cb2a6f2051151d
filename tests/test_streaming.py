"""Answers as they are said: the same as in one piece, cut where they are told to, from any number of threads."""

import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import Any

import pytest
import torch
from PIL import Image
from shipped_model import shipped

from cores.errors import UserError
from cores.inference.facade import Cores
from cores.inference.segmentation import Segmentation
from cores.inference.streaming import Pieces
from cores.scenes.source import open_scenes


@cache
def asked() -> list[tuple[Image.Image, str]]:
    """Questions of every kind, several targets and refusals too."""
    scenes = open_scenes("test", n=4)
    return [(scenes[n].image, turn.query) for n in range(4) for c in scenes[n].conversations for turn in c.turns]


def by_token() -> Cores:
    """The same model, which says a token a pass."""
    return Cores(shipped().model, shipped().processor, drafts="off")


def close(one: Segmentation, two: Segmentation) -> bool:
    """The same words, and the same masks but for rounding on their borders."""
    differ = (one.mask ^ two.mask).sum()
    return (one.answer, one.status, len(one.targets)) == (two.answer, two.status, len(two.targets)) and differ < 20


def split(told: Iterator[str | Segmentation]) -> tuple[list[str], Segmentation]:
    *pieces, last = told
    assert isinstance(last, Segmentation)
    assert all(isinstance(piece, str) for piece in pieces)
    return [str(piece) for piece in pieces], last


def test_the_pieces_are_the_answer_and_the_last_is_what_asking_gives() -> None:
    model = shipped()
    for image, query in asked()[::2]:
        pieces, found = split(model.stream(image, query))
        assert "".join(pieces) == found.answer
        assert close(found, model.segment(image, [query])[0])
    assert len(pieces) > 1


def test_words_are_given_when_they_are_whole() -> None:
    pieces = Pieces()
    growing = ["It", "It is", "It is \ufffd", "It is é [SEG]", "It is é [SEG]."]
    assert [pieces.more(text) for text in growing] == ["", "It", " is", " é", ""]
    assert pieces.rest(growing[-1]) == " [SEG]."


def test_closing_the_stream_ends_the_work_at_the_next_token(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (image, query) = by_token(), asked()[0]
    reads: list[int] = []
    kind = type(model.model.mllm)
    forward = kind.hidden_states
    monkeypatch.setattr(kind, "hidden_states", lambda *args: (reads.append(1), forward(*args))[1])
    told = model.stream(image, query)
    next(told)
    upto = len(reads)
    told.close()
    assert len(reads) == upto
    whole = model.segment(image, [query])[0]
    assert len(reads) - upto > upto
    assert whole.status == "segmented"


def test_a_stop_cuts_the_answer_at_the_next_token() -> None:
    model, (image, query) = by_token(), asked()[0]
    calls: list[int] = []
    (found,) = model.segment(image, [query], stop=lambda: bool(calls.append(1)) or len(calls) > 3)
    whole = model.segment(image, [query])[0]
    assert found.cut
    assert found.tokens == 3
    assert whole.answer.startswith(found.answer)
    pieces, streamed = split(model.stream(image, query, stop=lambda: True))
    assert (pieces, streamed.cut, streamed.tokens, streamed.status) == ([], True, 0, "text")


def test_no_time_is_no_word_and_enough_time_is_the_whole_answer() -> None:
    model, (image, query) = shipped(), asked()[0]
    none, enough = (model.segment(image, [query], max_seconds=seconds)[0] for seconds in (0, 1e6))
    assert (none.cut, none.answer, none.targets) == (True, "", ())
    assert close(enough, model.segment(image, [query])[0])


def test_one_of_a_batch_is_cut_and_the_others_are_whole() -> None:
    model = shipped()
    images, queries = [image for image, _ in asked()[:4]], [[query] for _, query in asked()[:4]]
    heard: dict[tuple[int, int], str] = {}

    def hear(image: int, query: int, words: str) -> bool:
        heard[image, query] = heard.get((image, query), "") + words
        return image != 2

    found = model.segment_batch(images, queries, hear=hear)
    whole = model.segment_batch(images, queries)
    assert (found[2][0].cut, found[2][0].answer) == (True, "")
    assert all(close(found[n][0], whole[n][0]) for n in (0, 1, 3))
    assert [heard[n, 0] for n in (0, 1, 3)] == [found[n][0].answer for n in (0, 1, 3)]


def test_eight_threads_get_what_each_would_get_alone() -> None:
    model = shipped()
    alone = [model.segment(image, [query])[0] for image, query in asked()[:12]]
    barrier = Barrier(8)

    def work(thread: int) -> list[Segmentation]:
        barrier.wait()
        found = []
        for number in range(thread, len(alone), 8):
            image, query = asked()[number]
            if number % 2:
                found.append(split(model.stream(image, query))[1])
            else:
                found.append(model.ask(model.encode(image), [query])[0])
        return found

    with ThreadPoolExecutor(8) as pool:
        for thread, found in enumerate(pool.map(work, range(8))):
            assert all(close(one, alone[number]) for one, number in zip(found, range(thread, 12, 8), strict=True))


def test_a_model_with_its_lock_can_be_pickled() -> None:
    model, (image, query) = pickle.loads(pickle.dumps(shipped())), asked()[0]
    with model.lock:
        assert close(model.segment(image, [query])[0], shipped().segment(image, [query])[0])


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"max_seconds": -1}, "max_seconds: found -1"),
        ({"max_seconds": "soon"}, "max_seconds: found 'soon'"),
        ({"stop": 3}, "stop: found 3"),
        ({"patience": 3}, "there is no 'patience' to ask with"),
    ],
)
def test_what_cannot_be_asked_with_is_named_before_the_picture_is_read(how: Any, said: str) -> None:
    for ask in (shipped().segment, shipped().stream):
        with pytest.raises(UserError, match=said):
            ask("missing.png", ["cup"] if ask == shipped().segment else "cup", **how)


def test_a_stream_leaves_the_gradient_mode_of_who_reads_it_alone() -> None:
    for _ in shipped().stream(*asked()[0]):
        assert torch.is_grad_enabled()
