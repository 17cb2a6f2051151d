"""The synthetic world: the same seed gives the same pixels, and what is asked is true of them."""

import json

import cv2
import numpy as np
import pytest

from cores.masks import decode
from cores.scenes.kinds import KINDS, LEARNED, OWN, PARTS
from cores.scenes.scene import make_scene
from cores.scenes.source import open_scenes
from cores.scenes.words import clauses, held_out
from cores.scenes.write import outlines, write_scenes


def test_same_seed_same_pixels() -> None:
    first, again, other = make_scene(5, LEARNED), make_scene(5, LEARNED), make_scene(6, LEARNED)
    assert np.array_equal(np.asarray(first.picture), np.asarray(again.picture))
    assert np.array_equal(first.parts, again.parts)
    assert not np.array_equal(np.asarray(first.picture), np.asarray(other.picture))
    a, b = open_scenes("test", n=3), open_scenes("test", n=9)
    assert a[2].conversations == b[2].conversations


def test_the_world_is_as_large_as_promised() -> None:
    learned_parts = {part.name for kind in LEARNED for part in kind.parts}
    assert len(LEARNED) >= 12
    assert len(learned_parts) >= 24
    assert len(OWN) >= 8
    assert not {k.name for k in LEARNED} & {k.name for k in OWN}
    homes = {part: [k.name for k in LEARNED if part in {p.name for p in k.parts}] for part in PARTS}
    assert len(homes["handle"]) >= 4, "the same part on different objects"
    for kind in KINDS.values():
        assert set(clauses()[kind.name]) == {"", *(part.name for part in kind.parts)}


@pytest.mark.parametrize("size", [128, 200])
def test_parts_fill_their_object_and_nothing_else(size: int) -> None:
    for seed in range(6):
        scene = make_scene(seed, LEARNED, size)
        assert scene.picture.size == (size, size)
        for n, thing in enumerate(scene.things):
            whole = scene.mask(n)
            parts = [scene.mask(n, part.name) for part in thing.kind.parts]
            assert np.array_equal(np.sum(parts, axis=0), whole.astype(int))


def test_reasoning_never_names_its_target() -> None:
    for i in range(60):
        sample = open_scenes("test", n=60)[i]
        scene = open_scenes("test", n=60).scene(i)
        for conversation, family in zip(sample.conversations, sample.meta["kinds"], strict=True):
            turn = conversation.turns[0]
            words = turn.query.lower().replace("?", "").replace(".", "").split()
            if family in ("means", "means part", "explain"):
                present = {
                    t.kind.name
                    for t in scene.things
                    if np.array_equal(decode(turn.targets[0].location), scene.mask(scene.things.index(t)))
                }
                assert not present & set(words), turn.query
            if family in ("absent", "text"):
                assert turn.targets == ()
            else:
                assert all(decode(t.mask).sum() > 60 for t in turn.targets)
                assert all(not (decode(t.mask) & ~decode(t.location)).any() for t in turn.targets)


def test_train_never_asks_for_a_combination_of_the_novel_split() -> None:
    names = [(c, k, p) for c in ("red", "blue") for k in LEARNED for p in ("", "on the left")]
    kept = [held_out(c, k, p) for c, k, p in names]
    assert 0 < sum(kept) < len(kept) / 3
    asked = {
        turn.query.lower()
        for i in range(150)
        for c in open_scenes("train", n=150)[i].conversations
        for turn in c.turns
    }
    for colour, kind, place in names:
        if held_out(colour, kind, place) and place:
            assert not any(f"the {colour} {kind.name} {place}" in query for query in asked)


def test_phrasing_shares_no_clause_with_train() -> None:
    for kind in clauses().values():
        for bank in kind.values():
            assert len(bank) >= 4
            assert bank[-1] not in bank[:-1]


def test_written_polygons_paint_the_exact_mask(tmp_path) -> None:
    scenes = open_scenes("val", n=4, kinds="own")
    counts = write_scenes(scenes, tmp_path, progress=False)
    pairs = sorted((tmp_path / "reason_seg" / "ReasonSeg" / "val").glob("*.json"))
    assert len(pairs) == counts["files"] > 4
    masks = {}
    for i in range(4):
        for number, conversation in enumerate(scenes[i].conversations):
            turn = conversation.turns[0]
            masks[f"{scenes[i].meta['name']}-{number}"] = [decode(t.mask) for t in turn.targets]
    for pair in pairs:
        painted = np.zeros((128, 128), np.uint8)
        for shape in json.loads(pair.read_text())["shapes"]:
            points = np.array(shape["points"]).astype(np.int32)
            cv2.polylines(painted, [points], True, 1, 1)
            cv2.fillPoly(painted, [points], 1)
        wanted = np.logical_or.reduce([np.zeros((128, 128), bool), *masks[pair.stem]])
        assert np.array_equal(painted.astype(bool), wanted), pair.stem
    lines = [json.loads(line) for line in (tmp_path / "val.jsonl").read_text().splitlines()]
    assert len(lines) == counts["questions"]
    assert all((tmp_path / line["image"]).exists() for line in lines)


def test_a_ring_keeps_its_hole() -> None:
    ring = np.zeros((30, 30), np.uint8)
    cv2.circle(ring, (15, 15), 12, 1, -1)
    cv2.circle(ring, (15, 15), 6, 0, -1)
    (points,) = outlines(ring.astype(bool))
    painted = np.zeros_like(ring)
    cv2.fillPoly(painted, [points.astype(np.int32)], 1)
    assert np.array_equal(painted, ring)
