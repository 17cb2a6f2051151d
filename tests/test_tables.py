"""Hugging Face tables: every form of a mask's cell, which files are which split, and tables that are damaged."""

import io
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_files import write_picture
from PIL import Image

from cores.data.inspect.doctor import examine
from cores.data.sources import open_source
from cores.errors import DataError
from cores.masks import decode, encode

SIZE = (20, 30)
DOWN, RIGHT = np.mgrid[:20, :30]
LEFT = RIGHT < 6


def png(values):
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


PICTURE = png(np.zeros((*SIZE, 3), np.uint8))


def rows(masks, texts=None, kind=None):
    columns = {"image": [{"bytes": PICTURE, "path": "x.png"}] * len(masks), "text": texts or ["the lid"] * len(masks)}
    return pa.table(columns | {"mask": pa.array(masks, kind)})


def write(path, *masks, kind=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows(list(masks), kind=kind), path)


def targets(source):
    return [turn.targets for sample in source for talk in sample.conversations for turn in talk.turns]


NESTED = pa.list_(pa.list_(pa.int64()))


@pytest.mark.parametrize("kind", ["bool", "uint8", "int8", "int32", "int64", "float32", "float64"])
def test_rows_of_numbers_of_any_type(tmp_path, kind):
    full = [LEFT.astype(kind)] if kind in ("bool", "int8") else [LEFT.astype(kind), LEFT.astype(kind) * 255]
    leaf = pa.list_(pa.list_(pa.from_numpy_dtype(kind)))
    write(tmp_path / "t.parquet", *[values.tolist() for values in full], kind=leaf)
    for (target,) in targets(open_source("hf:t.parquet", tmp_path)):
        assert np.array_equal(decode(target.mask), LEFT)


BOX = [0, 0, 6, 0, 6, 20, 0, 20]
STACK = np.stack([LEFT, ~LEFT]).astype(np.uint8)


@pytest.mark.parametrize(
    ("cell", "wanted"),
    [
        ({"bytes": png(LEFT), "path": None}, [LEFT]),
        (png(LEFT), [LEFT]),
        ({"size": list(SIZE), "counts": encode(LEFT)["counts"].encode()}, [LEFT]),
        (encode(LEFT), [LEFT]),
        (BOX, [LEFT]),
        ([BOX], [LEFT]),
        (
            [[float(n) for n in BOX], [10.0, 0.0, 12.0, 0.0, 12.0, 20.0, 10.0, 20.0]],
            [LEFT | ((RIGHT > 9) & (RIGHT < 12))],
        ),
        ([{"bytes": png(LEFT), "path": None}, {"bytes": png(~LEFT), "path": None}], [LEFT, ~LEFT]),
        ([encode(LEFT), encode(~LEFT)], [LEFT, ~LEFT]),
        (STACK.tolist(), [LEFT, ~LEFT]),
        (LEFT[..., None].astype(int).tolist(), [LEFT]),
        (None, []),
    ],
)
def test_every_form_of_a_mask(tmp_path, cell, wanted):
    write(tmp_path / "t.parquet", cell)
    (found,) = targets(open_source("hf:t.parquet", tmp_path))
    assert [decode(target.mask).tolist() for target in found] == [mask.tolist() for mask in wanted]


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ([], "mask: is empty; for what is not there leave the cell null"),
        (LEFT[:9].astype(int).tolist(), r"is \(9, 30\) \(h, w\), but the picture"),
        (LEFT.astype(int).ravel().tolist(), "is a flat list of 600 numbers: give the mask's rows"),
        ((RIGHT // 8).tolist(), "4 levels .*which may be labels"),
        ([[1, 2, 3], [4, 5]], "rows are not of one length"),
        ([png(LEFT), None], "mask: 1: found None, expected rows of numbers"),
        ({"bytes": None, "path": None}, "found {'bytes': None, 'path': None}, expected rows of numbers"),
    ],
)
def test_what_is_no_mask_is_named(tmp_path, cell, said):
    write(tmp_path / "t.parquet", cell)
    with pytest.raises(DataError, match=rf"t\.parquet: row 0: {said}" if said.startswith("mask") else said):
        open_source("hf:t.parquet", tmp_path)[0]


def test_a_table_without_masks_is_no_table_of_refusals(tmp_path):
    """Every file of a split is looked at, not the first alone."""
    write(tmp_path / "train-00000-of-00002.parquet", None)
    pq.write_table(rows([None]).rename_columns(["image", "text", "label"]), tmp_path / "train-00001-of-00002.parquet")
    with pytest.raises(DataError, match="00001-of-00002.parquet: has no column mask; there are image, text, label"):
        open_source("hf:.", tmp_path)


def test_a_file_without_any_mask_is_told(tmp_path):
    write(tmp_path / "t.parquet", None, None)
    write(tmp_path / "u.parquet", None, LEFT.tolist())
    found = [(f.level, f.source, f.problem) for f in examine(tmp_path, ["hf:t.parquet", "hf:u.parquet"]).findings]
    assert ("warning", "hf:t.parquet", "no row has a mask: all of them ask for what is not there") in found
    assert "hf:u.parquet" not in [source for _, source, problem in found if "no row" in problem]


# -- splits and configurations ---------------------------------------------------------------------------------------


def lay(root, *names):
    """Files of one row each, which tells them apart by the mask's first column."""
    for number, name in enumerate(names):
        write(root / name, (RIGHT == number).astype(int).tolist(), kind=NESTED)


def column(source):
    (((target,),)) = targets(source)
    return int(decode(target.mask)[0].argmax())


@pytest.mark.parametrize(
    "names",
    [
        ["data/val-00000-of-00001.parquet", "data/test-00000-of-00001.parquet", "data/testA-00000-of-00001.parquet"],
        ["data/testA-00000-of-00001.parquet", "data/testB-00000-of-00001.parquet"],
        ["testA.parquet", "testB.parquet"],
        ["default/testA/0000.parquet", "default/testB/0000.parquet"],
        ["train/data-00000-of-00001.parquet", "val_unseen/data-00000-of-00001.parquet"],
        ["train/part-00000.snappy.parquet", "test/part-00000.snappy.parquet"],
        ["odd name.parquet", "other.parquet"],
    ],
)
def test_any_split_by_its_name_and_none_joined(tmp_path, names):
    lay(tmp_path, *names)
    with pytest.raises(DataError, match="which split") as error:
        open_source("hf:.", tmp_path)
    splits = str(error.value).split("There are ")[1].split(": say")[0].split(", ")
    assert len(splits) == len(names)
    for split in splits:
        source = open_source(f"hf:.|{split}", tmp_path)
        assert (source.split, len(source)) == (split, 1)
        assert split in names[column(source)]


def test_configurations_are_asked_for(tmp_path):
    lay(tmp_path, *(f"{c}/{s}-00000-of-00001.parquet" for c in ("refcoco", "captions") for s in ("train", "val")))
    for asked in ("hf:.", "hf:.|train"):
        with pytest.raises(DataError, match="which configuration.* captions, refcoco: say hf:.|captions|SPLIT"):
            open_source(asked, tmp_path)
    with pytest.raises(DataError, match=r"hf:\.\|captions: which split\? There are train, val"):
        open_source("hf:.|captions", tmp_path)
    assert column(open_source("hf:.|refcoco|val", tmp_path)) == 1
    assert column(open_source("hf:.|captions|train", tmp_path)) == 2
    assert column(open_source("hf:refcoco|val", tmp_path)) == 1


def test_one_split_of_each_configuration_needs_no_name(tmp_path):
    lay(tmp_path, "a/train-00000-of-00001.parquet", "b/train-00000-of-00001.parquet")
    assert column(open_source("hf:.|b", tmp_path)) == 1
    with pytest.raises(DataError, match="which split"):
        open_source("hf:.|b|test", tmp_path)


README = """---
license: mit
configs:
- config_name: easy
  data_files:
  - {split: testA, path: "raw/x*"}
  - {split: testB, path: [raw/y.parquet]}
- config_name: hard
  data_files: {val: "raw/z.*"}
---
# Words
"""


def test_a_readme_says_which_files_are_which_split(tmp_path):
    lay(tmp_path, "raw/x1.parquet", "raw/y.parquet", "raw/z.parquet", "raw/nobody.parquet")
    (tmp_path / "README.md").write_text(README)
    with pytest.raises(DataError, match="which configuration.* easy, hard"):
        open_source("hf:.", tmp_path)
    assert [column(open_source(f"hf:.|{name}", tmp_path)) for name in ("easy|testA", "easy|testB", "hard")] == [
        0,
        1,
        2,
    ]
    (tmp_path / "README.md").write_text("# Words alone")
    with pytest.raises(DataError, match="which split.* nobody, x1, y, z"):
        open_source("hf:.", tmp_path)


@pytest.mark.parametrize("path", ["/etc/*", "../*", "[7]", "{}"])
def test_a_readme_that_leads_elsewhere_is_refused(tmp_path, path):
    lay(tmp_path, "x.parquet")
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n- data_files:\n  - split: train\n    path: {path}\n---\n")
    with pytest.raises(DataError, match=r"README\.md: path"):
        open_source("hf:.", tmp_path)


def test_a_missing_part_of_a_split_is_told(tmp_path):
    lay(tmp_path, "train-00000-of-00003.parquet", "train-00002-of-00003.parquet")
    with pytest.raises(DataError, match="found 2 files of this split, expected 3"):
        open_source("hf:.", tmp_path)


# -- folders of pictures ---------------------------------------------------------------------------------------------


def folder(root, *lines):
    for name in ("a.jpg", "b.jpg"):
        write_picture(root / name, SIZE)
    Image.fromarray(LEFT).save(root / "m1.png")
    Image.fromarray(~LEFT).save(root / "m2.png")
    (root / "metadata.jsonl").write_text(
        "".join(f"{json.dumps({'file_name': 'a.jpg', 'text': 'x'} | line)}\n" for line in lines)
    )


def test_a_folder_of_pictures_with_several_masks_a_row(tmp_path):
    folder(
        tmp_path / "train",
        {"mask_file_name": "m1.png"},
        {"file_name": "b.jpg", "text": ["the two?", "both"], "mask_file_names": ["m1.png", "m2.png"]},
        {"mask_file_name": None},
    )
    source = open_source("hf:.", tmp_path)
    assert [len(found) for found in targets(source)] == [1, 2, 2, 0]
    assert np.array_equal(decode(targets(source)[1][1].mask), ~LEFT)
    assert source.place(1) == ("train/b.jpg", "train")
    assert open_source("hf:train", tmp_path).split == "train"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({}, "line 1: expected one of the fields mask_file_name"),
        ({"mask": "m1.png", "text": ""}, "line 1: text: one of its texts is empty"),
        ({"mask": []}, r"line 1: mask: found \[\]; for what is not there say null"),
        ({"mask": 7}, "line 1: mask: found 7"),
        ({"mask": "gone.png"}, "gone.png: there is no such file"),
    ],
)
def test_a_wrong_line_of_a_folder_is_named(tmp_path, line, said):
    folder(tmp_path, line)
    with pytest.raises(DataError, match=said):
        open_source("hf:.", tmp_path)[0]


def test_rows_of_two_splits_are_shared_by_their_pictures_not_their_numbers(tmp_path):
    other = png(np.ones((*SIZE, 3), np.uint8))
    for split, pictures in (("train", [PICTURE, other]), ("val", [png(np.full((*SIZE, 3), 9, np.uint8)), other])):
        texts = [f"the {split} {n}" for n in range(2)]
        table = pa.table({"image": pictures, "text": texts, "mask": pa.array([None, None], NESTED)})
        pq.write_table(table, tmp_path / f"{split}.parquet")
    report = examine(tmp_path, ["hf:.|train", "hf:.|val"])
    assert report.ok
    assert [finding.problem for finding in report.findings if "shares" in finding.problem] == [
        "shares 1 images with hf:.|val, such as row-000001 and row-000001"
    ]


# -- damage ----------------------------------------------------------------------------------------------------------


def test_damage_is_told(tmp_path):
    table = rows([LEFT.tolist()], texts=["the lid" * 999])
    with pa.OSFile(str(tmp_path / "whole.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    whole = (tmp_path / "whole.arrow").read_bytes()
    (tmp_path / "cut.arrow").write_bytes(whole[:-300])
    offsets = np.array([0, 7 * 999], np.int32).tobytes()  # of the one text: made to point far outside
    head, _, body = whole.rpartition(offsets)
    (tmp_path / "wild.arrow").write_bytes(head + np.array([0, 1 << 30], np.int32).tobytes() + body)
    assert len(open_source("hf:whole.arrow", tmp_path)) == 1
    for name in ("cut", "wild"):
        with pytest.raises(DataError, match=f"{name}.arrow: is no Arrow or Parquet file that can be read"):
            open_source(f"hf:{name}.arrow", tmp_path)


@pytest.mark.parametrize("name", ["a.arrow", "a.parquet"])
def test_a_pipe_in_a_tables_place_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(DataError, match=f"{name}: is a pipe"):
        open_source("hf:.", tmp_path)


def test_columns_that_nobody_needs_are_not_read(tmp_path):
    table = rows([None]).append_column("notes", pa.array([{"a": [1]}]))
    pq.write_table(table, tmp_path / "t.parquet")
    source = open_source("hf:t.parquet", tmp_path)
    assert source.tables[0].column_names == ["image", "text", "mask"]


def test_page_checksums_are_verified(tmp_path):
    pq.write_table(rows([None]), tmp_path / "t.parquet", write_page_checksum=True, compression="none")
    content = bytearray((tmp_path / "t.parquet").read_bytes())
    content[content.index(b"IDAT") + 9] ^= 1
    (tmp_path / "t.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"t\.parquet: .*(CRC|checksum)"):
        open_source("hf:t.parquet", tmp_path)


def test_what_is_far_larger_than_its_file_is_not_unpacked(tmp_path, monkeypatch):
    """Equal values take no room in Parquet: a kilobyte can say that a mask has a thousand million of them."""
    write(tmp_path / "t.parquet", (RIGHT == 17).tolist())
    monkeypatch.setattr("cores.data.formats.arrow_tables.VALUES", 599)
    with pytest.raises(DataError, match=r"t\.parquet: is damaged: .* 1 rows, of up to 600 values"):
        open_source("hf:t.parquet", tmp_path)
    monkeypatch.setattr("cores.data.formats.arrow_tables.VALUES", 600)
    assert len(open_source("hf:t.parquet", tmp_path)) == 1


def test_a_mask_far_larger_than_its_picture_is_not_decoded(tmp_path, monkeypatch):
    write(tmp_path / "t.parquet", {"bytes": png(np.zeros((9000, 9000), bool)), "path": None})
    source = open_source("hf:t.parquet", tmp_path)
    monkeypatch.setattr("cores.data.formats.mask_pixels.inside_numbers", None)  # which decoded pixels are given to
    with pytest.raises(DataError, match=r"is \(9000, 9000\) \(h, w\), but the picture"):
        source[0]
