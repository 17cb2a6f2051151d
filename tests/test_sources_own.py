"""One's own data: a manifest, COCO's form, Hugging Face tables."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_files import write_picture
from PIL import Image
from shared import shared

from cores.cli import main
from cores.data.sources import open_source
from cores.errors import DataError
from cores.masks import decode, encode
from cores.scenes.source import open_scenes
from cores.scenes.write import write_scenes

SIZE = (20, 30)


def mask(left, right):
    found = np.zeros(SIZE, bool)
    found[:, left:right] = True
    return found


def turns(source):
    return [turn for sample in source for conversation in sample.conversations for turn in conversation.turns]


# -- manifest ------------------------------------------------------------------------------------------------------


def manifest(root, *lines, picture=None):
    write_picture(root / "pics" / "a.jpg", **(picture or {"size": SIZE}))
    (root / "mine.jsonl").write_text("".join(f"{json.dumps({'image': 'pics/a.jpg'} | line)}\n\n" for line in lines))
    return open_source("manifest:mine.jsonl", root)


def test_masks_as_run_lengths_polygons_and_pictures(tmp_path):
    Image.fromarray(mask(4, 9).astype(np.uint8) * 7).save(tmp_path / "m.png")
    points = [[0, 0], [4, 0], [4, 19], [0, 19]]
    kinds = [
        (encode(mask(0, 5)), 5),
        ({"size": list(SIZE), "counts": [100, 100, 400]}, 5),
        (points, 5),
        ([points, [[10, 0], [11, 0], [11, 19], [10, 19]]], 7),
        ([0, 0, 5, 0, 5, 20, 0, 20], 5),
        ([[0, 0, 5, 0, 5, 20, 0, 20]], 5),
        ("m.png", 5),
    ]
    lines = [{"query": str(n), "targets": [kind if n % 2 else {"mask": kind}]} for n, (kind, _) in enumerate(kinds)]
    source = manifest(tmp_path, *lines)
    assert len(source) == 1
    found = [decode(turn.targets[0].mask) for turn in turns(source)]
    assert [m.sum() // 20 for m in found] == [columns for _, columns in kinds]
    assert np.array_equal(found[6], mask(4, 9))


def test_every_kind_of_question(tmp_path):
    two = [{"mask": encode(mask(0, 2)), "phrase": "the lid", "location": encode(mask(0, 9))}, encode(mask(4, 6))]
    source = manifest(
        tmp_path,
        {"query": "the cup", "targets": two, "kind": "pairs"},
        {"query": "What is used to pour?", "targets": [encode(mask(0, 2))], "explanation": "It has a spout."},
        {"query": "the zebra", "targets": []},
        {"query": "Describe it.", "answer": "A table."},
        {"query": "the cup.", "form": "phrase", "targets": [], "ignore": encode(mask(20, 30))},
        {"query": "Where?", "targets": [encode(mask(0, 2))], "answer": "On {loc}, it is {seg}."},
    )
    found = turns(source)
    assert [turn.form for turn in found] == ["phrase", "explain", "phrase", "raw", "phrase", "sentence"]
    assert [len(turn.targets) for turn in found] == [2, 1, 0, 0, 0, 1]
    assert [turn.answer for turn in found] == [
        None,
        "It has a spout.",
        None,
        "A table.",
        None,
        "On {loc}, it is {seg}.",
    ]
    lid = found[0].targets[0]
    assert (lid.phrase, decode(lid.location).sum()) == ("the lid", 180)
    assert source[0].meta["kinds"][0] == "pairs"
    assert np.array_equal(decode(source[0].ignore), mask(20, 30))


def test_scenes_come_back_from_their_manifest_as_they_were(tmp_path):
    scenes = open_scenes("val", n=4)
    write_scenes(scenes, tmp_path, progress=False)
    source = open_source("manifest:val.jsonl", tmp_path)
    assert [sample.conversations for sample in source] == [sample.conversations for sample in scenes]
    assert [sample.meta["kinds"] for sample in source] == [sample.meta["kinds"] for sample in scenes]
    assert source.place(0)[0] == f"scenes/{scenes[0].meta['name']}.png"


def test_stored_masks_turn_with_their_picture(tmp_path):
    line = {"query": "x", "targets": [encode(mask(0, 3)), encode(np.rot90(mask(0, 3)).copy())]}
    source = manifest(tmp_path, line, picture={"size": SIZE, "orientation": 8})
    first, second = turns(source)[0].targets
    assert first.mask == second.mask == encode(np.rot90(mask(0, 3)).copy())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"query": " "}, "line 1: query: is empty"),
        ({"query": "\u200b\u3000"}, "line 1: query: is empty"),
        ({"query": "x"}, "has neither targets nor an answer"),
        ({"query": "x", "targets": [], "labels": 3}, "there is no field labels"),
        ({"query": "x", "targets": {}}, "targets: found {}, expected a list"),
        ({"query": "x", "targets": [{}]}, "targets: 0: the field 'mask' is missing"),
        ({"query": "x", "targets": [[]]}, "targets: 0: mask: is empty"),
        ({"query": "x", "targets": [5]}, "targets: 0: found 5, expected polygons or run lengths"),
        ({"query": "x", "targets": ["gone.png"]}, "gone.png: there is no such file"),
        ({"query": "x", "targets": [[1, 2, 3, 4]]}, "a polygon of 2 points has no inside"),
        ({"query": "x", "targets": [[[1, 2], [3, 4]]]}, "a polygon of 2 points has no inside"),
        ({"query": "x", "targets": [[[40, 2], [50, 4], [40, 9]]]}, "outside the picture"),
        (
            {"query": "x", "targets": [[[[4, 4], [9, 4], [9, 9]], [[40, 2], [50, 4], [40, 9]]]]},
            "line 1: targets: 0: part 1: lies outside the picture",
        ),
        ({"query": "x", "targets": [[[0.1, 0.2], [0.5, 0.2], [0.5, 0.9]]]}, r"lie within 0\.\.1"),
        ({"query": "x", "targets": [encode(mask(0, 0))]}, "targets: 0: mask: is empty"),
        ({"query": "x", "targets": [encode(np.ones((9, 9), bool))]}, r"is \(9, 9\) \(h, w\), but the picture"),
        ({"query": "x", "targets": [{"size": [20, 30], "counts": "11"}]}, "do not fill the size 20 x 30"),
        ({"query": "x", "targets": [{"size": [20, 30], "counts": [600, 600]}]}, "do not fill the size 20 x 30"),
        ({"query": "x", "targets": [{"size": "big", "counts": "11"}]}, "size: found 'big', expected a list"),
        ({"query": "x", "targets": [], "form": "poem"}, "form: found 'poem', expected phrase, sentence"),
        ({"query": "x", "targets": [], "form": "raw"}, "raw needs an answer or targets"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, said):
    source = manifest(tmp_path, line)
    with pytest.raises(DataError, match=said) as error:
        source[0]
    assert "mine.jsonl: line 1" in str(error.value)


def test_a_broken_line_is_named_when_the_file_is_opened(tmp_path):
    for content, said in (
        (b'{"image": "a"\n', "line 1: is no JSON"),
        (b"\n[]\n", "line 2: found"),
        (b"\n", "is empty"),
    ):
        (tmp_path / "m.jsonl").write_bytes(content)
        with pytest.raises(DataError, match=rf"m\.jsonl: {said}"):
            open_source("manifest:m.jsonl", tmp_path)
    with pytest.raises(DataError, match="there is no file"):
        open_source("manifest:nowhere.jsonl", tmp_path)


def test_a_line_is_compared_with_what_it_was(tmp_path):
    """Lines that changed places are of other pictures: no question is asked of a picture it is not about."""
    source = manifest(tmp_path, {"query": "the cup", "targets": []}, {"query": "the jug", "targets": []})
    path = tmp_path / "mine.jsonl"
    path.write_text(path.read_text().replace("cup", "jug"))
    with pytest.raises(DataError, match=r"mine\.jsonl: line 1: is not what it was when the file was opened"):
        source[0]


def test_paths_of_windows_and_two_spellings_of_one_picture(tmp_path):
    Image.fromarray(mask(4, 9)).save(tmp_path / "pics_m.png")
    line = {"query": "a", "targets": ["C:\\work\\pics_m.png"]}
    source = manifest(
        tmp_path,
        line,
        {"image": "pics\\a.jpg", "query": "b", "targets": []},
        {"image": "./pics/a.jpg", "query": "c", "targets": []},
    )
    assert [turn.query for turn in turns(source)] == ["a", "b", "c"]
    assert (len(source), source.place(0)[0]) == (1, "pics/a.jpg")
    assert np.array_equal(decode(turns(source)[0].targets[0].mask), mask(4, 9))
    strange = write_picture(tmp_path / "pics" / "b\\c.jpg", SIZE)
    (source,) = [manifest(tmp_path, {"image": "pics/b\\c.jpg", "query": "x", "targets": []})]
    assert source[0].image == strange


# -- COCO ----------------------------------------------------------------------------------------------------------


def coco(root, *annotations, place="images"):
    write_picture(root / place / "a.jpg", SIZE)
    images = [{"id": 1, "file_name": "a.jpg", "height": SIZE[0], "width": SIZE[1]}]
    found = [{"id": n, "image_id": 1, "category_id": 1 + n % 2} | a for n, a in enumerate(annotations)]
    names = [{"id": 1, "name": "Tea cup"}, {"id": 2, "name": "spoon"}]
    (root / "c.json").write_text(json.dumps({"images": images, "annotations": found, "categories": names}))
    return open_source("coco:c.json", root)


def test_without_texts_every_class_is_asked_at_once(tmp_path):
    source = coco(tmp_path, *({"segmentation": encode(mask(n, n + 2))} for n in (0, 5, 10)))
    cup, spoon = turns(source)
    assert (cup.query, spoon.query, cup.form) == ("tea cup", "spoon", "phrase")
    assert np.array_equal(decode(cup.targets[0].mask), mask(0, 2) | mask(10, 12))


def test_texts_are_asked_one_by_one(tmp_path):
    box = [[0, 0, 5, 0, 5, 20, 0, 20]]
    source = coco(
        tmp_path,
        {"segmentation": box, "text": ["the left cup", "What holds tea?"]},
        {"segmentation": box},
        {"segmentation": encode(mask(3, 9)), "text": "the left cup"},
        place=".",
    )
    found = turns(source)
    assert [(t.query, t.form) for t in found] == [
        ("the left cup", "phrase"),
        ("What holds tea?", "sentence"),
        ("the left cup", "phrase"),
        ("spoon", "phrase"),  # whose annotation has no text: asked by its class
    ]
    assert [decode(t.targets[0].mask).sum() // 20 for t in found] == [5, 5, 6, 5]


def test_an_annotation_without_a_text_asks_for_all_of_its_class(tmp_path):
    """Half of the cups would be a wrong answer to "the cup"."""
    members = [{"segmentation": encode(mask(n, n + 2)), "category_id": 1} for n in (0, 5)]
    one, cup = turns(coco(tmp_path, members[0] | {"text": "the left one"}, members[1] | {"text": None}))
    assert (one.query, cup.query) == ("the left one", "tea cup")
    assert np.array_equal(decode(cup.targets[0].mask), mask(0, 2) | mask(5, 7))


@pytest.mark.parametrize(
    "nothing",
    [{}, {"segmentation": None}, {"segmentation": []}, {"segmentation": [[]]}, {"segmentation": encode(mask(0, 0))}],
)
@pytest.mark.parametrize("text", [{}, {"text": "the left cup"}])
def test_a_box_without_a_mask_is_no_absence(tmp_path, nothing, text):
    """An export of boxes alone must not teach that what is there is not."""
    box = {"bbox": [1, 1, 9, 9], "area": 81, "category_id": 1}
    source = coco(tmp_path, {"segmentation": encode(mask(0, 2)), "category_id": 1}, box | nothing | text)
    for read in (source.record, source.look, source.__getitem__):
        with pytest.raises(DataError, match=r"c\.json: annotation 1: segmentation: found .*has no mask"):
            read(0)


def test_names_that_differ_in_case_and_ids_that_are_text(tmp_path):
    segments = [{"segmentation": encode(mask(n, n + 2)), "category_id": str(1 + n % 2)} for n in (0, 5, 10)]
    coco(tmp_path, *segments)
    content = json.loads((tmp_path / "c.json").read_text())
    content["categories"] = [{"id": "1", "name": "Cup"}, {"id": 2, "name": "cup "}]
    content["images"] = [{"id": "1", "file_name": "a.jpg"}, {"id": "b", "file_name": ".\\a.jpg"}]
    content["annotations"][2] |= {"image_id": "b"}
    (tmp_path / "c.json").write_text(json.dumps(content))
    source = open_source("coco:c.json", tmp_path)
    assert len(source) == 1  # one file under two ids
    (cup,) = turns(source)
    assert (cup.query, source.record(0).questions[0].category) == ("cup", "Cup")
    assert np.array_equal(decode(cup.targets[0].mask), mask(0, 2) | mask(5, 7) | mask(10, 12))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": [], "annotations": []}, "images: is empty"),
        ({"categories": [{"id": 1, "name": " "}, {"id": 2, "name": "x"}]}, "category 1: name: is blank"),
        ({"categories": [{"id": 1, "name": "\u200b"}, {"id": 2, "name": "x"}]}, "category 1: name: is blank"),
        (
            {"images": [{"id": 1, "file_name": "a.jpg"}, {"id": "1", "file_name": "b.jpg"}]},
            "id: 1 is another one's too",
        ),
        (
            {"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "a.jpg", "height": 9, "width": 9}]},
            "under two ids",
        ),
    ],
)
def test_a_wrong_coco_file_is_named(tmp_path, change, said):
    coco(tmp_path, {"segmentation": encode(mask(0, 2)), "category_id": 1})
    path = tmp_path / "c.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=rf"c\.json: .*{said}"):
        open_source("coco:c.json", tmp_path)


@pytest.mark.parametrize(
    ("polygons", "said"),
    [
        ([[4, 4, 9, 4, 9, 9], [2, 25, 9, 25, 9, 30]], "annotation 0: part 1: lies outside the picture"),
        ([[50, 10, 20, 40, 50, 40]], "annotation 0: lies outside the picture"),  # no point of it is in the picture
    ],
)
def test_polygons_of_a_picture_that_was_scaled(tmp_path, polygons, said):
    """Where the file states no size, the points alone can tell."""
    coco(tmp_path, {"segmentation": polygons})
    path = tmp_path / "c.json"
    content = json.loads(path.read_text())
    content["images"] = [{"id": 1, "file_name": "a.jpg"}]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"c\.json: {said}"):
        open_source("coco:c.json", tmp_path).look(0)


def test_one_bad_annotation_costs_one_picture(tmp_path):
    """`skip` skips it, and everything else is read."""
    coco(tmp_path, {"segmentation": [], "category_id": 1})
    content = json.loads((tmp_path / "c.json").read_text())
    content["images"].append({"id": 2, "file_name": "b.jpg"})
    content["annotations"].append({"id": 9, "image_id": 2, "category_id": 1, "segmentation": encode(mask(0, 2))})
    (tmp_path / "c.json").write_text(json.dumps(content))
    write_picture(tmp_path / "images" / "b.jpg", SIZE)
    out = tmp_path / "x.jsonl"
    assert main(["data", "check", str(tmp_path), "--source", "coco:c.json"]) == 1
    assert main(["data", "dump", "coco:c.json", "--data", str(tmp_path), "--out", str(out)]) == 2
    assert main(["data", "dump", "coco:c.json", "--data", str(tmp_path), "--out", str(out), "--on-bad", "skip"]) == 0
    assert [json.loads(line)["image"] for line in out.read_text().splitlines()] == ["images/b.jpg"]


def test_pictures_that_are_nowhere_are_looked_for_in_words(tmp_path):
    with pytest.raises(DataError, match=r"its first picture, a\.jpg, is in none of"):
        coco(tmp_path, {"segmentation": []}, place="elsewhere")


def test_real_lvis_rows():
    source = open_source("coco:lvis/lvis_val_excerpt.json", shared("samples/formats/lvis"))
    assert len(source) == 7
    named = {turn.query: decode(turn.targets[0].mask).sum() for turn in turns(source)}
    assert named["ski"] > 1000
    assert sum(len(sample.conversations) for sample in source) > 30


# -- Hugging Face --------------------------------------------------------------------------------------------------


def picture_bytes(orientation=None):
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation or 1
    Image.new("RGB", SIZE[::-1], "red").save(file, "JPEG", exif=exif)
    return file.getvalue()


def table(texts, masks, orientation=None):
    rows = [None if m is None else m.tolist() for m in masks]
    image = [{"bytes": picture_bytes(orientation), "path": "x.jpg"}] * len(texts)
    columns = {"image": image, "text": texts, "mask": pa.array(rows, pa.list_(pa.list_(pa.bool_())))}
    return pa.table(columns | {"image_id": [f"i{n}" for n in range(len(texts))]})


def test_parquet_by_split_with_masks_row_by_row(tmp_path):
    (tmp_path / "data").mkdir()
    pq.write_table(table(["a?", "the b"], [mask(0, 3), None]), tmp_path / "data" / "test-00000-of-00002.parquet")
    pq.write_table(table(["c?"], [mask(3, 9)]), tmp_path / "data" / "test-00001-of-00002.parquet")
    pq.write_table(table(["d?"], [mask(3, 9)]), tmp_path / "data" / "train-00000-of-00001.parquet")
    with pytest.raises(DataError, match=r"which split\? There are test, train"):
        open_source("hf:.", tmp_path)
    source = open_source("hf:.|test", tmp_path)
    assert (len(source), source.split, source[0].size) == (3, "test", SIZE)
    found = turns(source)
    assert [(t.query, t.form, len(t.targets)) for t in found] == [
        ("a?", "sentence", 1),
        ("the b", "phrase", 0),
        ("c?", "sentence", 1),
    ]
    assert np.array_equal(decode(found[2].targets[0].mask), mask(3, 9))
    assert np.asarray(source[0].image).shape == (*SIZE, 3)


def test_what_save_to_disk_writes(tmp_path):
    """A folder as `datasets` saves it: Arrow streams, named in state.json; several below dataset_dict.json."""
    for split, columns in (("train", (0, 3)), ("val", (5, 9))):
        home = tmp_path / "saved" / split
        home.mkdir(parents=True)
        rows = table(["x?"], [mask(*columns)])
        with pa.OSFile(str(home / "data-00000-of-00001.arrow"), "wb") as file:
            with pa.ipc.new_stream(file, rows.schema) as writer:
                writer.write_table(rows)
        (home / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (tmp_path / "saved" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "val"]}))
    for name, columns in (("hf:saved|val", (5, 9)), ("hf:saved/train", (0, 3))):
        (turn,) = turns(open_source(name, tmp_path))
        assert np.array_equal(decode(turn.targets[0].mask), mask(*columns))


def test_masks_as_pictures_and_run_lengths_turned_with_the_picture(tmp_path):
    file = io.BytesIO()
    Image.fromarray(mask(0, 3)).save(file, "PNG")
    for name, value in (("png", {"bytes": file.getvalue()}), ("rle", encode(mask(0, 3)))):
        rows = pa.table({"image": [picture_bytes(6)], "text": [["x", "y?"]], "mask": [value]})
        pq.write_table(rows, tmp_path / f"{name}.parquet")
        source = open_source(f"hf:{name}.parquet", tmp_path)
        assert [turn.query for turn in turns(source)] == ["x", "y?"]
        assert np.array_equal(decode(turns(source)[0].targets[0].mask), np.rot90(mask(0, 3), -1))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"picture": [1], "text": ["x"], "mask": [None]}, "has no column image; there are picture, text, mask"),
        ({"image": [b"no picture"], "text": ["x"], "mask": [None]}, "row 0: is no picture that can be read"),
        ({"image": [7], "text": ["x"], "mask": [None]}, "row 0: image: found 7"),
        ({"image": [picture_bytes()], "text": [7], "mask": [None]}, "text: found 7, expected a list"),
        ({"image": [picture_bytes()], "text": [""], "mask": [None]}, "one of its texts is empty"),
        ({"image": [picture_bytes()], "text": ["x"], "mask": [[[True], [True, False]]]}, "rows are not of one length"),
        ({"image": [picture_bytes()], "text": ["x"], "mask": [[[True]]]}, r"mask is \(1, 1\) \(h, w\)"),
        ({"image": [picture_bytes()], "text": ["x"], "mask": ["hello"]}, "mask: .*hello: there is no such file"),
    ],
)
def test_a_wrong_table_is_named(tmp_path, columns, said):
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=said) as error:
        open_source("hf:t.parquet", tmp_path)[0]
    assert "t.parquet" in str(error.value)


def test_a_name_that_is_neither_here_nor_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="is no folder or file here, and the hub does not give it"):
        open_source("hf:nobody/nothing", tmp_path)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="is no Arrow or Parquet file"):
        open_source("hf:bad.parquet", tmp_path)
