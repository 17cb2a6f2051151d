"""ReasonSeg's folders and labelme's own: what is painted, what is asked, and what is refused."""

import json

import cv2
import numpy as np
import pytest
from data_files import square, write_pair, write_picture
from shared import shared

from cores.data.sources import open_source
from cores.errors import DataError
from cores.masks import decode
from cores.scenes.source import open_scenes
from cores.scenes.write import write_scenes


def target(sample, turn=0):
    return decode(sample.conversations[turn].turns[0].targets[0].mask)


def test_small_shapes_lie_on_large_ones_and_flags_count_for_nothing(tmp_path):
    shapes = [
        square(2, 2, 6, 6, "Ignored part"),
        square(0, 0, 12, 12),
        square(4, 4, 4, 4),  # a dot in the hole, and last of all
        {"label": "FLAG", "points": [[0, 0], [29, 19]]},
    ]
    write_pair(tmp_path, "a", shapes=shapes, texts=["x?", "y?"])
    sample = open_source("ReasonSeg|train", tmp_path)[0]
    wanted = np.zeros((20, 30), bool)
    wanted[:13, :13] = True
    wanted[2:7, 2:7] = False
    wanted[4, 4] = True
    assert np.array_equal(target(sample), wanted)
    assert np.array_equal(target(sample, 1), wanted)
    ignored = np.zeros((20, 30), bool)
    ignored[2:7, 2:7] = True
    ignored[4, 4] = False
    assert np.array_equal(decode(sample.ignore), ignored)


def test_points_are_cut_towards_zero_and_may_lie_outside(tmp_path):
    points = [[-3.9, -0.9], [7.9, -0.9], [7.9, 5.9], [-3.9, 5.9]]
    write_pair(tmp_path, "a", shapes=[{"label": "target", "points": points}])
    wanted = np.zeros((20, 30), bool)
    wanted[:6, :8] = True
    assert np.array_equal(target(open_source("ReasonSeg|train", tmp_path)[0]), wanted)


def test_equal_areas_paint_the_later_shape_first(tmp_path):
    write_pair(tmp_path, "a", shapes=[square(0, 0, 5, 5), square(3, 0, 8, 5, "ignore")])
    sample = open_source("ReasonSeg|train", tmp_path)[0]
    assert target(sample).sum() == 36
    assert decode(sample.ignore).sum() == 18


def test_without_target_shapes_the_thing_is_not_there(tmp_path):
    write_pair(tmp_path, "a", shapes=[])
    write_pair(tmp_path, "b", shapes=[square(0, 0, 5, 5, "ignore")])
    for sample in open_source("ReasonSeg|train", tmp_path):
        (conversation,) = sample.conversations
        assert conversation.turns[0].targets == ()
        assert conversation.turns[0].answer is None


def test_polygons_are_painted_on_the_turned_picture(tmp_path):
    write_pair(tmp_path, "a", shapes=[square(0, 25, 3, 29)], size=(20, 30), orientation=6)
    sample = open_source("ReasonSeg|train", tmp_path)[0]
    assert sample.size == (30, 20)
    assert target(sample)[25:, :4].all()
    assert target(sample).sum() == 20


def test_splits_join_filter_and_validate_on_the_first_text(tmp_path):
    write_pair(tmp_path, "b", "train", ["café?", "x?"], encoding="cp1252")
    write_pair(tmp_path, "a", "val", ["y?", "z?"])
    write_pair(tmp_path, "short", "test", ["The Lid"], sentence=False)
    write_pair(tmp_path, "long", "test")
    both = open_source("ReasonSeg|train_val", tmp_path)
    assert [both.record(i).split for i in range(2)] == ["train", "val"]
    assert both[0].conversations[0].turns[0].query == "café?"
    assert [len(sample.conversations) for sample in both] == [2, 2]
    evaluated = open_source("ReasonSeg|val", tmp_path, evaluation=True)
    assert [turn.query for c in evaluated[0].conversations for turn in c.turns] == ["y?"]
    short = open_source("ReasonSeg|testshort", tmp_path)
    (turn,) = short[0].conversations[0].turns
    assert (len(short), turn.query, turn.form) == (1, "The Lid", "phrase")
    assert "phrases" in short.note


def test_explanations_are_known_by_the_image_and_only_in_train(tmp_path):
    for split in ("train", "val"):
        folder = write_pair(tmp_path, "a", split, ["x?", "y?"], [square(0, 0, 5, 5)])
    write_pair(tmp_path, "b", "train")
    told = folder.parent / "explanatory" / "train.json"
    told.parent.mkdir()
    told.write_text(json.dumps([{"image": n, "query": "-", "outputs": "Because."} for n in ("a.jpg", "gone.jpg")]))
    source = open_source("ReasonSeg|train", tmp_path)
    assert [len(sample.conversations) for sample in source] == [3, 1]
    turn = source[0].conversations[2].turns[0]
    assert (turn.query, turn.form, turn.answer, len(turn.targets)) == ("x?", "explain", "Because.", 1)
    assert len(open_source("ReasonSeg|explanatory", tmp_path)) == 1
    assert len(open_source("ReasonSeg|val", tmp_path)[0].conversations) == 2
    drawn = [source.record(0).draw(3, np.random.default_rng(seed)) for seed in range(300)]
    forms = [sample.conversations[0].turns[0].form for sample in drawn]
    assert forms.count("raw") == pytest.approx(30, abs=15)
    assert forms.count("explain") == pytest.approx(135, abs=30)
    assert all(len({c.turns[0].form for c in sample.conversations}) == 1 for sample in drawn)
    raw = drawn[forms.index("raw")].conversations[0].turns[0]
    assert (raw.targets, raw.answer) == ((), "Because.")
    never = [source.record(0).draw(3, np.random.default_rng(seed), explain=-1) for seed in range(20)]
    assert {turn.form for sample in never for c in sample.conversations for turn in c.turns} == {"sentence"}


def test_labelmes_own_files_ask_for_every_label(tmp_path):
    write_picture(tmp_path / "mine" / "a.png")
    box = {"label": "Big Lid", "shape_type": "rectangle", "points": [[8, 2], [4, 1]]}
    shapes = [box, square(0, 0, 1, 1, "cup"), square(10, 10, 11, 11, "cup")]
    (tmp_path / "mine" / "a.json").write_text(json.dumps({"version": "5", "shapes": shapes, "imagePath": "a.png"}))
    source = open_source("labelme:mine", tmp_path)
    lid, cup = (conversation.turns[0] for conversation in source[0].conversations)
    assert (lid.query, cup.query, lid.form) == ("big lid", "cup", "phrase")
    assert decode(lid.targets[0].mask).sum() == 10
    assert decode(cup.targets[0].mask).sum() == 8


def test_scenes_written_as_reasonseg_are_read_back_exactly(tmp_path):
    scenes = open_scenes("val", n=3)
    write_scenes(scenes, tmp_path, progress=False)
    wanted = {}
    for i in range(3):
        for number, conversation in enumerate(scenes[i].conversations):
            wanted[f"{scenes[i].meta['name']}-{number}.png"] = conversation.turns[0]
    source = open_source("ReasonSeg|val", tmp_path)
    assert len(source) > 5
    for sample in source:
        (conversation,), turn = sample.conversations, wanted[sample.meta["name"]]
        assert conversation.turns[0].query == turn.query
        assert [t.mask for t in conversation.turns[0].targets] == [t.mask for t in turn.targets]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"text": "what?"}, "a.json: text: found 'what?', expected a list"),
        ({"text": []}, "text: is empty"),
        ({"text": [""]}, "one of its texts is empty"),
        ({"text": [3]}, "expected text"),
        ({"is_sentence": "yes"}, "is_sentence: found 'yes', expected true or false"),
        ({"shapes": None}, "shapes: found None, expected a list"),
        ({"shapes": [{"points": []}]}, "shape 0: the field 'label' is missing"),
        ({"shapes": [{"label": "target", "points": []}]}, "shape 0: points: found [], expected a list of"),
        ({"shapes": [{"label": "target", "points": [[1, "2"]]}]}, "expected [x, y] in pixels"),
        ({"shapes": [{"label": "target", "points": [[1, float("nan")]]}]}, "expected [x, y] in pixels"),
        ({"shapes": [{"label": "target", "points": [[1, 1e9]]}]}, "expected [x, y] in pixels"),
        ({"shapes": [square(0, 0, 5, 5), square(50, 0, 55, 5)]}, "shape 1: covers no pixel of the picture of 20 x 30"),
        ({"shapes": [square(0, 0, 5, 5), square(-9, 0, -2, 5, "ignore")]}, "shape 1: covers no pixel"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, change, said):
    folder = write_pair(tmp_path, "a", shapes=[square(0, 0, 5, 5)])
    record = json.loads((folder / "a.json").read_text()) | change
    (folder / "a.json").write_text(json.dumps(record))
    with pytest.raises(DataError) as error:
        open_source("ReasonSeg|train", tmp_path)[0]
    assert said in str(error.value)
    assert "a.json" in str(error.value)


@pytest.mark.parametrize("spoil", [b"", b"{", b'{"text": ["\x81\x8d"]}', b"[" * 100_000, b"[]"])
def test_a_broken_json_is_named(tmp_path, spoil):
    folder = write_pair(tmp_path, "a")
    (folder / "a.json").write_bytes(spoil)
    with pytest.raises(DataError, match=r"a\.json"):
        open_source("ReasonSeg|train", tmp_path)[0]


def test_a_file_without_its_partner_is_named(tmp_path):
    folder = write_pair(tmp_path, "a")
    write_pair(tmp_path, "b")
    (folder / "a.jpg").unlink()
    (folder / "b.json").unlink()
    source = open_source("ReasonSeg|train", tmp_path)
    with pytest.raises(DataError, match=r"a\.json: there is no a\.jpg beside it"):
        source[0]
    with pytest.raises(DataError, match=r"b\.jpg: there is no b\.json beside it"):
        source[1]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ReasonSeg|val", "there is no folder"),
        ("ReasonSeg", "which split"),
        ("reasonseg|val", "did you mean ReasonSeg"),
        ("scenes|nowhere", "no such split"),
        ("labelme:", "which file or folder"),
        ("labelme:nowhere", "there is no folder"),
    ],
)
def test_a_wrong_name_is_refused(tmp_path, name, said):
    write_pair(tmp_path, "a")
    with pytest.raises(DataError, match=said):
        open_source(name, tmp_path)


def test_the_real_files():
    """Three files of train: outlines and fill by OpenCV, whatever else paints here."""
    root = shared("samples/formats/reasonseg")
    source = open_source("ReasonSeg|train", root)
    assert [len(record.questions) for record in map(source.record, range(3))] == [6, 6, 5]
    assert source.record(0).explanations[0].startswith("When eating a bowl of soup, a spoon")
    for i in range(3):
        image, annotation = source.files(i)
        painted = np.zeros(source[i].size, np.uint8)
        for shape in json.loads(annotation.read_text())["shapes"]:
            cv2.fillPoly(painted, [np.array(shape["points"], int)], 1)
        difference = target(source[i]) ^ painted.astype(bool)
        assert difference.sum() <= max(8, 0.005 * painted.sum())
        assert image.suffix == ".jpg"
