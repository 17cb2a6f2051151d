"""The mixture: a function of (seed, epoch, i), rates kept, bad items by policy, statistics without reading."""

import json
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from data_files import rows, say, square, write_map, write_pair, write_records
from PIL import Image

from cores.data.bad import BadItems
from cores.data.mixture import Mixture
from cores.data.sources import open_source
from cores.errors import DataError


@pytest.fixture
def root(tmp_path):
    for n in range(3):
        write_map(tmp_path, "ade20k", rows(1 + n, 5, 6, 7, 8), stem=f"a{n}")
    for n in range(4):
        write_pair(tmp_path, f"r{n}", texts=[f"{n}?", "same?"], shapes=[square(0, 0, 5, 5)])
    write_pair(tmp_path, "empty", texts=["x?"], shapes=[])
    write_records(tmp_path, say("q", "a", "r", "b"), say("q", "a"))
    return tmp_path


def mixture(root, **more):
    families = {
        "sem": [open_source("ade20k", root)],
        "reason": [open_source("ReasonSeg|train", root)],
        "vqa": [open_source("llava_instruct_150k", root), open_source("scenes|train")],
    }
    return Mixture(families, {"sem": 6, "reason": 3}, **({"questions": 2, "seed": 5} | more))


def told(sample):
    """What a sample asks, in words that can be compared."""
    asked = [(t.query, t.form, t.answer, [x.mask for x in t.targets]) for c in sample.conversations for t in c.turns]
    return json.dumps([sample.meta["family"], sample.meta["name"], asked])


def part(mixed, keys):
    return [told(mixed[key]) for key in keys]


def test_a_draw_is_the_same_in_any_process_and_any_order(root):
    mixed, keys = mixture(root), [(epoch, i) for epoch in (0, 7) for i in range(12)]
    alone = part(mixed, keys)
    assert part(mixture(root), keys[::-1]) == alone[::-1]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:  # a mixture can be sent to a worker
        apart = list(pool.map(part, [mixed] * 2, [keys[0::2], keys[1::2]]))
    assert [one for pair in zip(*apart, strict=True) for one in pair] == alone
    assert len(set(alone[:12])) > 8
    assert alone[:12] != alone[12:]
    assert part(mixture(root, seed=6), keys) != alone


def test_families_by_rate_sources_of_a_family_equally(root):
    counts = mixture(root).statistics(0, range(4000))
    assert counts["sem: ade20k"] == pytest.approx(2400, abs=120)
    assert counts["reason: ReasonSeg|train"] == pytest.approx(1200, abs=110)
    assert counts["vqa: llava_instruct_150k"] == pytest.approx(200, abs=60)
    assert counts["vqa: scenes|train"] == pytest.approx(200, abs=60)


def test_statistics_are_those_of_what_is_drawn(root):
    mixed = mixture(root)
    drawn = Counter(f"{s.meta['family']}: {s.meta['source']}" for s in (mixed[3, i] for i in range(60)))
    assert mixed.statistics(3, range(60)) == dict(sorted(drawn.items()))


def test_up_to_so_many_questions_and_a_talk_stays_whole(root):
    mixed = mixture(root)
    for i in range(60):
        sample = mixed[0, i]
        asked = [conversation.turns for conversation in sample.conversations]
        if sample.meta["source"] == "llava_instruct_150k":
            assert len(asked) == 1
            assert len(asked[0]) in (1, 2)
        else:
            assert len(asked) == (2 if sample.meta["name"] != "empty.jpg" else 1)
            assert len({turns[0].query for turns in asked}) == len(asked)
    assert {len(mixture(root, questions=9)[0, i].conversations) for i in range(40)} >= {5}


def test_an_image_with_nothing_to_ask_is_drawn_again(tmp_path):
    write_map(tmp_path, "ade20k", rows(0), stem="nothing")
    with pytest.raises(DataError, match="ade20k: 100 images drawn, none with a question"):
        Mixture({"sem": [open_source("ade20k", tmp_path)]})[0, 0]
    write_map(tmp_path, "ade20k", rows(1), stem="wall")
    mixed = Mixture({"sem": [open_source("ade20k", tmp_path)]})
    assert {mixed[0, i].meta["name"] for i in range(20)} == {"wall.jpg"}


def test_bad_items_stop_a_run_or_are_left_out(tmp_path, caplog):
    for n in range(150):
        write_pair(tmp_path, f"r{n}", texts=["x?"])
    source = open_source("ReasonSeg|train", tmp_path)
    source.files(7)[1].write_text("{")
    strict = Mixture({"reason": [source]})
    with pytest.raises(DataError, match=r"is no JSON"):
        [strict[0, i] for i in range(1000)]
    mixed = Mixture({"reason": [source]}, on_bad="skip")
    names = [mixed[0, i].meta["name"] for i in range(400)]
    assert mixed.bad.used == 400
    assert 0 < mixed.bad.skipped < 10
    assert source.files(7)[0].name not in names
    assert caplog.text.count("left out:") == 1
    for n in range(20):
        source.files(n)[1].unlink()
    with pytest.raises(DataError, match="items cannot be used, more than 1%"):
        [mixed[1, i] for i in range(1000)]


def test_the_policy_counts():
    with pytest.raises(DataError, match="first"):
        BadItems().skip(DataError("first"))
    bad = BadItems("skip", used=1000)
    for _ in range(10):
        bad.skip(DataError("again"))
    assert bad.reasons == {"again": 10}
    with pytest.raises(DataError, match="11 of 1011 items cannot be used"):
        bad.skip(DataError("again"))


def test_a_picture_that_cannot_be_decoded_is_a_bad_item(tmp_path):
    from cores.processing.pixels import open_picture

    folder = write_pair(tmp_path, "a", texts=["x?"], size=(200, 300))
    for n in range(3):
        write_pair(tmp_path, f"b{n}", texts=["x?"])
    content = (folder / "a.jpg").read_bytes()
    (folder / "a.jpg").write_bytes(content[: len(content) // 2])  # its header is whole
    families = {"reason": [open_source("ReasonSeg|train", tmp_path)]}
    assert {Mixture(families)[0, i].meta["name"] for i in range(30)} >= {"a.jpg"}
    mixed = Mixture(families, on_bad="skip", open_picture=open_picture)
    drawn = [mixed[0, i] for i in range(12)]
    assert all(isinstance(sample.image, Image.Image) for sample in drawn)
    assert "a.jpg" not in {sample.meta["name"] for sample in drawn}
    assert mixed.bad.skipped
    assert drawn[0].image.size == drawn[0].size[::-1]


@pytest.mark.parametrize(
    ("families", "rates", "said"),
    [
        ({}, {}, "there are no sources"),
        ({"a": []}, {}, "the family a has no sources"),
        ({"a": ["scenes|train"]}, {"b": 1}, "there is a rate for b, which is no family"),
        ({"a": ["scenes|train"]}, {"a": 0}, "the rate of a is 0"),
        ({"a": ["scenes|train"]}, {"a": float("nan")}, "the rate of a is nan"),
    ],
)
def test_what_cannot_be_drawn_from_is_refused(families, rates, said):
    opened = {name: [open_source(source) for source in sources] for name, sources in families.items()}
    with pytest.raises(DataError, match=said):
        Mixture(opened, rates)


def test_draws_do_not_follow_the_prompts_draws(root):
    """Both are seeded with (seed, epoch, index): equal streams would tie the exemplar to the family."""
    mixed = mixture(root)
    same = sum(
        mixed._choose(0, i)[1] == int(np.searchsorted(mixed.limits, np.random.default_rng([5, 0, i]).random()))
        for i in range(1000)
    )
    assert same < 600  # of families drawn 0.6, 0.3, 0.1 apart from each other: 0.46
