"""Objects and parts: names, single annotations or whole classes, sentences that ask for them."""

import json

import numpy as np
import pytest
from data_files import write_picture
from shared import shared

from cores.data.sources import open_source
from cores.data.sources.parts import paco_thing, part_imagenet_image, part_imagenet_thing, pascal_thing
from cores.errors import DataError
from cores.masks import decode, encode

SIZE = (20, 30)


def mask(left, right):
    found = np.zeros(SIZE, bool)
    found[:, left:right] = True
    return found


def write_parts(path, picture, categories, annotations, size=SIZE):
    """Annotations: (id, category, mask or segmentation)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = {"id": 5, "file_name": picture.name, "height": size[0], "width": size[1]}
    if "coco" in picture.parts:
        image["file_name"] = f"train2017/{picture.name}"
    found = [
        {"id": n, "image_id": 5, "category_id": c, "segmentation": encode(m) if isinstance(m, np.ndarray) else m}
        for n, c, m in annotations
    ]
    names = [{"id": n, "name": name} for n, name in categories.items()]
    path.write_text(json.dumps({"images": [image], "annotations": found, "categories": names}))
    write_picture(picture, SIZE)


def paco(root, annotations, **more):
    names = {1: "car_(automobile)", 2: "car_(automobile):side_mirror", 3: "trash_can:lid"}
    path = root / "vlpart/paco/annotations/paco_lvis_v1_train.json"
    write_parts(path, root / "coco/train2017/000000000005.jpg", names, annotations, **more)


def pascal(root, annotations):
    names = {1: "bus:license plate", 2: "dog:head"}
    path = root / "vlpart/pascal_part/train.json"
    write_parts(path, root / "vlpart/pascal_part/VOCdevkit/VOC2010/JPEGImages/2008_1.jpg", names, annotations)


def texts(source):
    return [(turn.query, turn.form) for sample in source for c in sample.conversations for turn in c.turns]


def test_names_are_cut_and_joined():
    assert paco_thing("car_(automobile):side_mirror").names == ("car side_mirror", "the side_mirror of the car")
    assert paco_thing("trash_can").names == ("trash_can",)
    assert paco_thing("pan_(for_cooking):handle_(long)").names[0] == "pan handle"
    assert pascal_thing("bus:license plate").names == ("bus license plate", "the license plate of the bus")
    assert part_imagenet_thing("Car Side Mirror").names == ("Car Side Mirror", "the Side Mirror of the Car")
    assert part_imagenet_image("n02100583_7691.JPEG") == "n02100583/n02100583_7691.JPEG"
    assert part_imagenet_image("n1/n1_2.JPEG") == "n1/n1_2.JPEG"


def test_every_annotation_is_a_question_in_the_order_of_ids(tmp_path):
    paco(tmp_path, [(9, 2, mask(0, 3)), (4, 1, mask(0, 9)), (6, 2, mask(5, 6)), (7, 3, [])])
    source = open_source("paco_lvis|train", tmp_path)
    record = source.record(0)
    assert [(q.text, q.category) for q in record.questions] == [
        ("car", "car_(automobile)"),
        ("car side_mirror", "car_(automobile):side_mirror"),
        ("trash_can lid", "trash_can:lid"),
        ("car side_mirror", "car_(automobile):side_mirror"),
    ]
    found = [[decode(t.mask) for t in q.find()] for q in record.questions]
    assert [len(targets) for targets in found] == [1, 1, 0, 1]
    assert np.array_equal(found[1][0], mask(5, 6))
    assert source.place(0) == ("coco/train2017/000000000005.jpg", "train")


def test_parts_are_also_called_the_part_of_the_object(tmp_path):
    pascal(tmp_path, [(1, 1, mask(0, 3)), (2, 2, mask(3, 9))])
    record = open_source("pascal_part|train", tmp_path).record(0)
    drawn = [record.draw(3, np.random.default_rng(seed)) for seed in range(200)]
    asked = [turn.query for sample in drawn for c in sample.conversations for turn in c.turns if "dog" in turn.query]
    assert asked.count("dog head") == pytest.approx(100, abs=30)
    assert asked.count("the head of the dog") == 200 - asked.count("dog head")
    plain = [record.draw(1, np.random.default_rng(seed), rename=False) for seed in range(20)]
    assert {s.conversations[0].turns[0].query for s in plain} == {"dog head", "bus license plate"}


def test_part_imagenet_asks_for_a_class_at_once(tmp_path):
    names = {0: "Quadruped Head", 1: "Car Side Mirror", 2: "car side  mirror"}
    path = tmp_path / "PartImageNet" / "val.json"
    annotations = [(3, 2, mask(0, 3)), (1, 0, mask(9, 12)), (2, 1, mask(5, 8))]
    write_parts(path, tmp_path / "PartImageNet" / "val" / "n01" / "n01_5.jpg", names, annotations)
    source = open_source("part_imagenet|val", tmp_path)
    head, mirror = source.record(0).questions
    assert (head.text, mirror.text) == ("quadruped head", "car side mirror")
    assert mirror.category == "Car Side Mirror"  # as it is written first
    assert np.array_equal(decode(mirror.find()[0].mask), mask(0, 3) | mask(5, 8))


def test_what_has_no_mask_is_said_and_neither_trained_nor_scored(tmp_path, caplog):
    """The dump keeps it, without targets, as the sets' own programs read it."""
    paco(tmp_path, [(4, 1, mask(0, 9)), (6, 2, []), (7, 3, encode(np.zeros((20, 30), bool)))])
    source = open_source("paco_lvis|train", tmp_path)
    record = source.record(0)
    assert [(q.text, len(q.find()) if q.lost else 1) for q in record.questions][:2] == [
        ("car", 1),
        ("car side_mirror", 0),
    ]
    assert "annotation 6: segmentation: found [], so what is there has no mask" in caplog.text
    assert [c.turns[0].query for c in source[0].conversations] == ["car"]
    drawn = [record.draw(3, np.random.default_rng(seed), rename=False) for seed in range(9)]
    assert {turn.query for sample in drawn for c in sample.conversations for turn in c.turns} == {"car"}
    assert [why.split(": ")[2] for _, why in source.problems()] == ["annotation 6", "annotation 7"]


def test_seg_part_asks_in_sentences_where_there_are_any(tmp_path, caplog):
    paco(tmp_path, [(1, 2, mask(0, 3)), (2, 3, mask(3, 5))])
    pascal(tmp_path, [(1, 2, mask(0, 3))])
    reasons = {"car side_mirror": "What shows the driver who is behind?"}
    (tmp_path / "vlpart" / "paco" / "reason.json").write_text(json.dumps(reasons))
    assert texts(open_source("seg_part", tmp_path)) == [
        ("dog head", "phrase"),
        ("What shows the driver who is behind?", "sentence"),
        ("trash_can lid", "phrase"),
    ]
    assert "pascal_part/reason.json is not there" in caplog.text
    assert texts(open_source("paco_lvis|train", tmp_path))[0] == ("car side_mirror", "phrase")


def test_a_part_of_another_size_is_an_error(tmp_path):
    paco(tmp_path, [(1, 1, {"size": [10, 10], "counts": encode(np.ones((10, 10), bool))["counts"]})])
    source = open_source("paco_lvis|train", tmp_path)
    with pytest.raises(DataError, match=r"annotation 1 is \(10, 10\) \(h, w\), but the picture"):
        source[0]
    paco(tmp_path, [(1, 1, mask(0, 3))], size=(21, 30))
    with pytest.raises(DataError, match=r"paco_lvis_v1_train.json: the size of 000000000005.jpg is \(21, 30\)"):
        open_source("paco_lvis|train", tmp_path)[0]


def test_a_polygon_outside_of_the_picture_is_named(tmp_path):
    paco(tmp_path, [(1, 1, [[2, 2, 9, 2, 9, 9], [-9, 2, -3, 2, -3, 9]])])
    with pytest.raises(DataError, match=r"v1_train\.json: annotation 1: part 1: lies outside the picture"):
        open_source("paco_lvis|train", tmp_path)[0]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("annotations", [{"id": 1, "image_id": 6, "category_id": 1}], "annotation 1: image_id: there is no image 6"),
        ("annotations", [{"id": 1, "image_id": 5, "category_id": 8}], "category_id: there is no category 8"),
        ("annotations", [{"image_id": 5}], "annotations: number 0: the field 'id' is missing"),
        ("annotations", {}, "annotations: found {}, expected a list"),
        ("categories", [{"id": 1.5, "name": "x"}], "id: found 1.5, expected a whole number"),
        ("categories", [{"id": 1, "name": " "}], "category 1: name: is blank"),
        ("images", [{"id": 5}], "image 5: the field 'file_name' is missing"),
        ("images", [{"id": 5, "file_name": "a.jpg", "height": -3, "width": 8}], "height, width: found"),
        ("images", [5], "found 5, expected an object"),
        ("categories", [{"id": 1, "name": "x"}, {"id": 1, "name": "y"}], "number 1: id: 1 is another one's too"),
    ],
)
def test_wrong_fields_are_named(tmp_path, key, value, said):
    paco(tmp_path, [(1, 1, mask(0, 3))])
    path = tmp_path / "vlpart/paco/annotations/paco_lvis_v1_train.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(DataError, match=said) as error:
        open_source("paco_lvis|train", tmp_path)
    assert "paco_lvis_v1_train.json" in str(error.value)


def test_the_real_files():
    """All rows of two excerpts; the box of an annotation in the file is the box of its mask here."""
    for name, folder, images, rows in (
        ("paco_lvis|train", "paco", 5, 35),
        ("pascal_part|train", "pascal_part", 6, 67),
    ):
        source = open_source(name, shared(f"samples/formats/{folder}"))
        coco = json.loads(source.json.read_text())
        boxes = sorted((a["image_id"], a["id"], a["bbox"]) for a in coco["annotations"])
        assert (len(source), len(boxes)) == (images, rows)
        by_name = {image["file_name"]: image["id"] for image in coco["images"]}
        for record in map(source.record, range(len(source))):
            known = [box for image, _, box in boxes if image == by_name[record.meta["name"]]]
            for question, (left, top, width, height) in zip(record.questions, known, strict=True):
                y, x = np.nonzero(decode(question.find()[0].mask))
                found = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])
                assert np.abs(found - [left, top, left + width, top + height]).max() <= 2
