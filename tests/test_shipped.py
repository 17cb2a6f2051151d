"""The models that come with cores load, hold their score, and use their tokens."""

from pathlib import Path

import pytest

import cores
from cores.checkpoints.find import shipped
from cores.checkpoints.load import load
from cores.data.sources import open_source
from cores.evaluation.evaluator import evaluate
from cores.scenes.source import open_scenes


def test_small_enough_to_ship() -> None:
    for name in ("cores-tiny", "bases-tiny"):
        assert sum(f.stat().st_size for f in shipped(name).rglob("*.safetensors")) <= 16_000_000


def test_it_holds_its_score_on_unseen_scenes() -> None:
    model, processor = load(None)
    scenes = open_scenes("test", n=24)
    result = evaluate(model, processor, [scenes[i] for i in range(24)], ("generated",), progress=False)
    figures = result.compute()["generated"]
    assert figures["giou"] > 0.70
    assert figures["answers"]["refusal"] > 0.8
    assert figures["answers"]["false_refusal"] < 0.1
    sanity = figures["sanity"]
    assert sanity["swapped_giou"] < sanity["foreground_giou"], "the grounding tokens are used"
    assert sanity["own_giou"] > sanity["foreground_giou"] + 0.3


def test_one_line_from_picture_to_mask() -> None:
    scenes = open_scenes("test", n=6)
    sample = scenes[3]
    segmenter = cores.load()
    queries = [c.turns[0].query for c in sample.conversations]
    found = segmenter.segment(sample.image, queries)
    assert [one.mask.shape for one in found] == [(128, 128)] * len(queries)
    again = segmenter.segment(sample.image, queries[::-1])[::-1]
    assert [one.answer for one in found] == [one.answer for one in again], "an answer depends on no other question"
    assert any(one.status == "segmented" for one in found)


@pytest.mark.parametrize("name", ["scenes|test", "scenes|novel", "scenes|phrasing"])
def test_scenes_are_a_source_like_any_other(name: str, tmp_path: Path) -> None:
    source = open_source(name, tmp_path)
    assert len(source) > 0
    assert source[0].conversations
