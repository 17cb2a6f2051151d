"""The refer sets: splits, sentences, several targets and none, polygons and run lengths, wherever a picture stands."""

import json

import numpy as np
import pytest
from data_files import write_picture
from py2_pickle import pickled

from cores.data.sources import open_source
from cores.data.sources.refer import in_split
from cores.errors import DataError
from cores.masks import decode, encode

SIZE = (20, 30)


def box(left, top, right, bottom):
    """A polygon that covers whole pixels, and its mask."""
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return [left, top, right, top, right, bottom, left, bottom], mask


A, MASK_A = box(2, 2, 10, 8)
B, MASK_B = box(8, 6, 20, 18)


def ref(number, image, ann, split, *sentences):
    texts = [{"sent": text, "raw": text, "tokens": text.split()} for text in sentences]
    return {"ref_id": number, "image_id": image, "ann_id": ann, "split": split, "sentences": texts}


REFS = [
    ref(1, 7, 100, "train", " The Left Box ", "box"),
    ref(2, 7, 101, "train", "both boxes"),
    ref(3, 7, 102, "testAB", "nothing drawn"),
    ref(4, 8, 103, "testB", "right"),
    ref(5, 8, 104, "val", "as a list"),
]


def write_set(root, refs, name="refcoco", file="refs(unc).p", size=SIZE, orientation=None):
    home = root / "refer_seg" / name
    home.mkdir(parents=True, exist_ok=True)
    crowd = {"size": list(SIZE), "counts": [0, 600]}
    segmentations = {
        100: [A],
        101: [A, B],
        102: [],
        103: [encode(MASK_A), encode(MASK_B)],
        104: crowd,
    }
    annotations = [{"id": i, "image_id": 7, "category_id": 1, "segmentation": s} for i, s in segmentations.items()]
    images = [{"id": i, "file_name": f"COCO_{i}.jpg", "height": SIZE[0], "width": SIZE[1]} for i in (7, 8, 9)]
    categories = [{"id": 1, "name": "box"}]
    instances = {"images": images, "annotations": annotations, "categories": categories}
    (home / "instances.json").write_text(json.dumps(instances))
    (home / file).write_bytes(json.dumps(refs).encode() if file.endswith("json") else pickled(refs, 2))
    for i in (7, 8):
        folder = root / "refer_seg" / "images" / ("saiapr_tc-12" if name == "refclef" else "mscoco/images/train2014")
        write_picture(folder / f"COCO_{i}.jpg", size, orientation)
    return home


def asked(source):
    return [(c.turns[0].query, [decode(t.mask) for t in c.turns[0].targets]) for s in source for c in s.conversations]


def test_sentences_of_a_split_with_the_union_of_their_parts(tmp_path):
    write_set(tmp_path, REFS)
    source = open_source("refcoco|unc|train", tmp_path)
    assert (len(source), source[0].meta["name"]) == (1, "COCO_7.jpg")
    (first, one), (second, again), (third, both) = asked(source)
    assert (first, second, third) == ("the left box", "box", "both boxes")
    assert np.array_equal(one[0], MASK_A)
    assert np.array_equal(again[0], MASK_A)
    assert np.array_equal(both[0], MASK_A | MASK_B)
    assert len(both) == 1


def test_run_lengths_lists_of_them_and_nothing(tmp_path, caplog):
    write_set(tmp_path, REFS)
    ((text, masks),) = asked(open_source("refcoco|unc|val", tmp_path))
    assert text == "as a list"
    assert masks[0].all()
    drawn = open_source("refcoco|unc|testA", tmp_path)
    (nothing,) = drawn.record(0).questions  # a ref whose annotation is empty is dumped, and neither trained nor scored
    assert (nothing.text, nothing.find(), asked(drawn)) == ("nothing drawn", (), [])
    assert "annotation 102: segmentation: found [], so what is there has no mask" in caplog.text
    assert len(list(drawn.problems())) == 1
    found = dict(asked(open_source("refcoco|unc|testB", tmp_path)))
    assert np.array_equal(found["right"][0], MASK_A | MASK_B)


def test_which_refs_are_in_a_split():
    splits = ["train", "val", "testA", "testB", "testAB", "test"]
    wanted = {
        "train": ["train"],
        "val": ["val"],
        "testA": ["testA", "testAB"],
        "testB": ["testB", "testAB"],
        "testC": [],
        "testAB": ["testAB"],
        "test": ["testA", "testB", "testAB", "test"],
    }
    for name, found in wanted.items():
        assert [split for split in splits if in_split(name, split)] == found


def test_an_image_stands_once_for_every_split_it_is_in(tmp_path):
    write_set(tmp_path, REFS)
    source = open_source("refcoco|unc|test", tmp_path)
    assert [source.place(i) for i in range(len(source))] == [
        ("refer_seg/images/mscoco/images/train2014/COCO_7.jpg", "testAB"),
        ("refer_seg/images/mscoco/images/train2014/COCO_8.jpg", "testB"),
    ]


def test_grefcoco_has_several_targets_and_none(tmp_path):
    refs = [ref(1, 7, [100, 103, 102], "val", "two"), ref(2, 7, [-1], "val", "no such thing")]
    write_set(tmp_path, refs, "grefcoco", "grefs(unc).json")
    source = open_source("grefcoco|unc|val", tmp_path)
    assert [len(question.find()) for question in source.record(0).questions] == [2, 0]
    assert asked(source) == [("no such thing", [])]  # one of the two has an annotation that is empty
    write_set(tmp_path, [ref(1, 7, [100, 103], "val", "two"), refs[1]], "grefcoco", "grefs(unc).json")
    two, none = asked(open_source("grefcoco|unc|val", tmp_path))
    assert [mask.sum() for mask in two[1]] == [MASK_A.sum(), (MASK_A | MASK_B).sum()]
    assert none == ("no such thing", [])


@pytest.mark.parametrize(
    ("ann_id", "said"),
    [([], r"found \[\], expected annotations, or -1 for what is not there"), ([100, -1], "found -1, which is no")],
)
def test_in_grefcoco_nothing_but_minus_one_is_absent(tmp_path, ann_id, said):
    write_set(tmp_path, [ref(1, 7, ann_id, "val", "x")], "grefcoco", "grefs(unc).json")
    with pytest.raises(DataError, match=rf"ref 0: ann_id: {said}"):
        open_source("grefcoco|unc|val", tmp_path)


def test_umd_is_usual_for_refcocog_and_a_pickle_comes_first(tmp_path):
    write_set(tmp_path, [ref(1, 7, 100, "val", "json")], "refcocog", "refs(umd).json")
    write_set(tmp_path, [ref(1, 7, 100, "val", "pickle")], "refcocog", "refs(umd).p")
    write_set(tmp_path, [ref(1, 7, 100, "val", "google")], "refcocog", "refs(google).p")
    assert asked(open_source("refcocog|val", tmp_path))[0][0] == "pickle"
    assert asked(open_source("refcocog|google|val", tmp_path))[0][0] == "google"
    write_set(tmp_path, [ref(1, 7, 100, "train", "clef")], "refclef")
    assert open_source("refclef|unc|train", tmp_path).place(0)[0] == "refer_seg/images/saiapr_tc-12/COCO_7.jpg"


def test_masks_turn_with_a_picture_that_is_turned(tmp_path):
    write_set(tmp_path, REFS, orientation=6)
    sample = open_source("refcoco|unc|train", tmp_path)[0]
    assert sample.size == (30, 20)
    mask = decode(sample.conversations[0].turns[0].targets[0].mask)
    assert np.array_equal(mask, np.rot90(MASK_A, -1))


@pytest.mark.parametrize(
    ("size", "refs", "said"),
    [
        ((21, 30), REFS, r"is \(20, 30\) \(h, w\), but the picture .*COCO_7.jpg is \(21, 30\)"),
        (SIZE, [ref(1, 7, 999, "train", "x")], "ref 0: ann_id: found 999, which is no annotation of"),
        (SIZE, [ref(1, 7, -1, "train", "x")], "ref 0: ann_id: found -1, which is no annotation of"),
        (SIZE, [ref(1, 7, [], "train", "x")], r"ref 0: ann_id: found \[\], expected annotations$"),
        (SIZE, [ref(1, 7, 100, "train", "\u200b")], "ref 0: sentence 0: sent: is blank"),
        (SIZE, [ref(1, 5, 100, "train", "x")], "image_id: 5 is no image of"),
        (SIZE, [ref(1, 9, 100, "train", "x")], r"COCO_9\.jpg: there is no such file"),
        (SIZE, [ref(1, 7, 100, "train", "x", " ")], r"refs\(unc\)\.p: ref 0: sentence 1: sent: is blank"),
        (SIZE, [{"image_id": 7}], "ref 0: the field 'split' is missing"),
        (SIZE, [ref(1, 7, 100, "val", "x")], "no ref is in this split; there are val"),
        (SIZE, {}, r"refs\(unc\)\.p: found {}, expected a list"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, size, refs, said):
    write_set(tmp_path, refs, size=size)
    with pytest.raises(DataError, match=said):
        open_source("refcoco|unc|train", tmp_path)[0]


def test_a_part_outside_of_the_picture_is_named(tmp_path):
    home = write_set(tmp_path, REFS[:2])
    content = json.loads((home / "instances.json").read_text())
    content["annotations"][1]["segmentation"] = [A, [2, 25, 9, 25, 9, 30]]
    (home / "instances.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"instances\.json: annotation 101: part 1: lies outside the picture"):
        open_source("refcoco|unc|train", tmp_path)[0]


def test_wrong_names_are_refused(tmp_path):
    write_set(tmp_path, REFS)
    with pytest.raises(DataError, match="there is no split dev"):
        open_source("refcoco|unc|dev", tmp_path)
    with pytest.raises(DataError, match=r"there is no refs\(umd\)\.p and no refs\(umd\)\.json"):
        open_source("refcoco|umd|train", tmp_path)
    with pytest.raises(DataError, match=r"there is no folder .*refcocog"):
        open_source("refcocog|umd|train", tmp_path)
