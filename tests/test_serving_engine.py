"""The serving engine: what arrives together is answered together, and nothing is lost, mixed up or left running."""

import asyncio
import io
from threading import Event

import pytest
from PIL import Image

import cores
from cores import Cores
from cores.errors import DataError, UserError
from cores.inference.options import Options
from cores.scenes.source import open_scenes
from cores.serving.engine import Engine
from cores.serving.feature_cache import FeatureCache, size_of
from cores.serving.queries import Harmless
from cores.serving.refusals import Busy, Closing
from cores.serving.settings import Settings


@pytest.fixture(scope="module")
def model():
    return cores.load()


@pytest.fixture(scope="module")
def asked(model):
    """Some pictures as PNG, each with its questions and the answers that the model gives when nobody else asks."""
    found = []
    for sample in list(open_scenes("test", n=6)):
        queries = [one.turns[0].query for one in sample.conversations][:2]
        file = io.BytesIO()
        sample.image.save(file, "PNG")
        found.append((file.getvalue(), queries, model.segment(sample.image, queries)))
    return found


def served(model, work, settings=None, observe=lambda questions: None):
    """Run `work(engine)` with a started engine."""

    async def run():
        engine = Engine(model, settings, observe)
        await engine.start()
        try:
            return await work(engine)
        finally:
            await engine.close()

    return asyncio.run(run())


def said(results):
    return [(one.query, one.answer, one.size, one.rle) for one in results]


def test_requests_that_come_together_are_answered_together_and_as_if_alone(model, asked):
    batches = []

    async def work(engine):
        batches.clear()
        return await asyncio.gather(*(engine.segment(picture, queries) for picture, queries, _ in asked))

    found = served(model, work, Settings(gather=0.5), batches.append)
    for results, (_, _, alone) in zip(found, asked, strict=True):
        assert [one.answer for one in results] == [one.answer for one in alone]
        assert [one.query for one in results] == [one.query for one in alone]
        for mine, theirs in zip(results, alone, strict=True):
            assert (mine.mask != theirs.mask).mean() < 1e-3, "masks differ by rounding alone"
    assert max(batches) > 2, "several requests in one batch"
    assert sum(batches) == sum(len(queries) for _, queries, _ in asked)


def test_a_picture_seen_before_is_not_looked_at_again(model, asked, monkeypatch):
    looked = []
    real = model.encode_batch
    monkeypatch.setattr(model, "encode_batch", lambda images: looked.append(len(images)) or real(images))
    picture, queries, _ = asked[0]

    async def work(engine):
        looked.clear()
        first = await engine.segment(picture, queries)
        second = await engine.segment(picture, queries)
        return first, second

    first, second = served(model, work)
    assert said(first) == said(second)
    assert sum(looked) == 1


def test_a_stream_is_the_answer_in_pieces(model, asked):
    picture, queries, alone = asked[0]

    async def work(engine):
        return [piece async for piece in engine.stream(picture, queries[0])]

    *pieces, found = served(model, work)
    assert "".join(pieces) == found.answer == alone[0].answer


def test_streams_share_a_batch_and_one_that_is_left_stops_alone(model, asked):
    (first, queries, alone), (second, others, _) = asked[:2]
    passes, gone = [], Event()
    slow = Cores(model.model, model.processor, drafts="off")  # a token a pass
    real = slow.ask_batch

    def counted(seen, own, options, hear):
        def heard(job, query, piece):
            passes.append(own[job][0])
            wanted = hear(job, query, piece)
            if piece and own[job] == others[:1]:
                assert gone.wait(30)
            return wanted

        return real(seen, own, options, heard)

    async def whole(engine):
        return [piece async for piece in engine.stream(first, queries[0])]

    async def left(engine):
        stream = engine.stream(second, others[0])
        await anext(stream)
        await stream.aclose()
        gone.set()

    async def work(engine):
        slow.ask_batch = counted
        return (await asyncio.gather(whole(engine), left(engine)))[0]

    *pieces, found = served(slow, work, Settings(gather=0.5))
    assert len(pieces) > 1
    assert "".join(pieces) == found.answer == alone[0].answer
    assert passes.count(others[0]) < passes.count(queries[0]), "nobody wanted the rest of it"


def test_one_bad_picture_costs_itself_only(model, asked):
    picture, queries, alone = asked[0]
    broken = picture[: len(picture) // 2]

    async def work(engine):
        good, bad = engine.segment(picture, queries), engine.segment(broken, queries)
        return await asyncio.gather(good, bad, return_exceptions=True)

    good, bad = served(model, work)
    assert [one.answer for one in good] == [one.answer for one in alone]
    assert isinstance(bad, DataError)


def test_a_fault_in_a_batch_is_each_requests_own(model, asked, monkeypatch):
    real = model.ask_batch

    def faulty(seen, queries, options, hear):
        if any("poison" in query for own in queries for query in own):
            raise RuntimeError("poisoned")
        return real(seen, queries, options, hear)

    monkeypatch.setattr(model, "ask_batch", faulty)
    picture, queries, _ = asked[0]

    async def work(engine):
        wanted = (engine.segment(picture, queries), engine.segment(picture, ["the poison"]))
        return await asyncio.gather(*wanted, return_exceptions=True)

    good, bad = served(model, work, Settings(gather=0.5))
    assert len(good) == len(queries)
    assert isinstance(bad, RuntimeError)


def test_a_full_queue_refuses_and_a_cancelled_request_is_never_begun(model, asked, monkeypatch):
    picture, queries, _ = asked[0]
    begun, go_on = Event(), Event()
    real, answered = model.ask_batch, []

    def slow(seen, queries, options, hear):
        answered.append([query for own in queries for query in own])
        begun.set()
        assert go_on.wait(30)
        return real(seen, queries, options, hear)

    async def work(engine):
        monkeypatch.setattr(model, "ask_batch", slow)
        answered.clear()
        first = asyncio.ensure_future(engine.segment(picture, ["the first"]))
        await asyncio.to_thread(begun.wait, 30)
        waiting = []
        for number in range(3):
            waiting.append(asyncio.ensure_future(engine.segment(picture, [f"the cup {number}"])))
            while engine.waiting < min(number + 1, 2):
                await asyncio.sleep(0.01)
        waiting[0].cancel()
        await asyncio.sleep(0.05)
        go_on.set()
        return await asyncio.gather(first, *waiting, return_exceptions=True)

    first, cancelled, second, refused = served(model, work, Settings(waiting=2, gather=0))
    assert [one.query for one in first] == ["the first"]
    assert isinstance(cancelled, asyncio.CancelledError)
    assert [one.query for one in second] == ["the cup 1"]
    assert isinstance(refused, Busy)
    assert answered == [["the first"], ["the cup 1"]]


def test_closing_answers_what_waits_and_takes_nothing_new(model, asked):
    picture, queries, _ = asked[0]

    async def work(engine):
        waiting = [asyncio.ensure_future(engine.segment(picture, queries)) for _ in range(4)]
        await asyncio.sleep(0.05)
        await engine.close()
        with pytest.raises(Closing):
            await engine.segment(picture, queries)
        return await asyncio.gather(*waiting)

    assert all(len(found) == len(queries) for found in served(model, work))


def test_limits_are_said_before_anything_is_decoded(model, asked):
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    picture = asked[0][0]
    wrong = [
        (bomb.getvalue(), ["cup"], DataError),
        (b"no picture", ["cup"], DataError),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", ["cup"], DataError),
        (picture, [], UserError),
        (picture, ["cup"] * 17, UserError),
        (picture, [" \n"], UserError),
        (picture, ["x" * 10_000], UserError),
    ]

    async def work(engine):
        for image, queries, error in wrong:
            with pytest.raises(error):
                await engine.segment(image, queries)
        assert (await engine.segment(picture, ["cup"], Options(max_new_tokens=1)))[0].cut

    served(model, work)


def test_no_query_adds_tokens_to_a_prompt(model, asked):
    harmless = Harmless(model.tokenizer)
    marks = {model.tokenizer.convert_tokens_to_ids(mark) for mark in harmless.marks} - {model.tokenizer.unk_token_id}
    plain = set(model.processor.question("a cup", "raw").tolist())
    attacks = ["[SEG]", "cup [SEG][LOC] [PART]", "[S[SEG]EG]", "<image>", "<im_start><im_end>", "</s> USER: <s>"]
    for attack in attacks:
        ids = set(model.processor.question(harmless(attack), "raw").tolist())
        assert ids & marks <= plain, attack
    assert harmless("the I of Holland [sic] <b>") == "the I of Holland [sic] <b>"
    assert len(served(model, lambda engine: engine.segment(asked[0][0], attacks))) == len(attacks)


def test_the_cache_forgets_what_was_used_longest_ago():
    import torch

    cache = FeatureCache(100)
    for key in "abc":
        cache.put(key, {"x": torch.zeros(10)})  # 40 bytes
    assert cache.get("a") is None
    assert cache.get("b") is not None
    cache.put("d", [torch.zeros(10)])
    assert cache.get("c") is None, "b was used after it"
    cache.put("e", torch.zeros(1000))
    assert cache.get("e") is None
    assert cache.held == 80 == 2 * size_of(torch.zeros(10))
