"""Label maps: which pixel value is which class, what is ignored, palettes, and pictures that are turned."""

import hashlib

import numpy as np
import pytest
from data_files import READABLE, rows, write_map
from shared import shared

from cores.data.sources import open_source
from cores.data.sources.label_maps import class_list
from cores.errors import DataError
from cores.masks import decode

ADE = "f9dbd8a75a0722c971d8c82db76dc205e06cb422d98153f4e5bbf90408ef5438"
STUFF = "e305236cc45ca43319c348100a0d6909e7282e958d2508202877acc0ec3b4ea9"


def classes(source, i=0):
    record = source.record(i)
    return {q.text: int(decode(q.find()[0].mask).sum()) for q in record.questions}, record


def test_ade20k_counts_from_one_and_ignores_nothing_and_255(tmp_path):
    write_map(tmp_path, "ade20k", rows(0, 1, 150, 255))
    found, record = classes(open_source("ade20k", tmp_path))
    assert found == {"wall": 150, "flag": 150}
    assert decode(record.ignore).sum() == 300
    assert decode(record.ignore)[:5].all()


def test_cocostuff_counts_from_zero_and_ignores_what_has_a_hyphen(tmp_path):
    names = class_list("cocostuff")
    write_map(tmp_path, "cocostuff", rows(0, names.index("sky"), names.index("wall-wood"), 181, 255))
    found, record = classes(open_source("cocostuff", tmp_path))
    assert found == {"person": 120, "sky": 120, "wood": 120}
    assert decode(record.ignore).sum() == 240


@pytest.mark.parametrize("mode", ["L", "P"])
def test_mapillary_reads_indices_and_drops_nothing(tmp_path, mode):
    write_map(tmp_path, "mapillary", rows(0, 2, 3, 1), mode)
    found, record = classes(open_source("mapillary", tmp_path))
    assert found == {"bird": 150, "ground animal": 150, "lane marking - other": 150, "unlabeled": 150}
    assert [q.category for q in record.questions] == READABLE
    assert record.ignore is None


def test_a_map_of_the_stored_size_turns_with_the_picture_and_one_of_the_turned_size_stays(tmp_path):
    flat = rows(1, 2)
    write_map(tmp_path, "ade20k", flat, stem="a", orientation=8)
    write_map(tmp_path, "ade20k", np.rot90(flat), stem="b", size=(20, 30), orientation=8)
    source = open_source("ade20k", tmp_path)
    for i in range(2):
        sample = source[i]
        assert sample.size == (30, 20)
        wall = decode(sample.conversations[0].turns[0].targets[0].mask)
        assert np.array_equal(wall, np.rot90(flat == 1))


def test_the_class_lists_are_the_published_ones():
    ade, stuff = class_list("ade20k"), class_list("cocostuff")
    assert (len(ade), len(stuff)) == (150, 182)
    assert (ade[89], ade[139], stuff[156], stuff[0]) == ("television receiver", "fan", "sky", "person")
    assert sum("-" in name for name in stuff) == 28
    # sha256 of the names, a line each, in the files of LISA's repository
    assert hashlib.sha256("\n".join(ade).encode()).hexdigest() == ADE
    assert hashlib.sha256("\n".join(stuff).encode()).hexdigest() == STUFF


def test_the_class_lists_agree_with_their_sources():
    lines = (shared("samples/formats/class_lists/ade20k_objectInfo150.txt")).read_text().splitlines()[1:]
    official = [line.split("\t")[-1].split(",")[0].strip() for line in lines]
    assert [n for n, (a, b) in enumerate(zip(official, class_list("ade20k"), strict=True)) if a != b] == [89]
    lines = (shared("samples/formats/class_lists/cocostuff_labels.txt")).read_text().splitlines()[1:]
    official = [line.split(": ")[1] for line in lines]
    assert [(a, b) for a, b in zip(official, class_list("cocostuff"), strict=True) if a != b] == [("sky-other", "sky")]


@pytest.mark.parametrize(
    ("values", "picture", "said"),
    [
        (rows(1, 151), {}, r"a\.png: has the values 151, but there are 150 classes"),
        (rows(1), {"size": (20, 31)}, r"a\.png is \(20, 30\) \(h, w\), but the picture .*a\.jpg is \(20, 31\)"),
        (np.zeros((20, 30, 3), int), {"size": (20, 30)}, r"a\.png: is RGB, expected one number a pixel"),
    ],
)
def test_what_cannot_be_is_named(tmp_path, values, picture, said):
    write_map(tmp_path, "ade20k", values, **picture)
    with pytest.raises(DataError, match=said):
        open_source("ade20k", tmp_path)[0]


def test_a_broken_or_missing_file_is_named(tmp_path):
    write_map(tmp_path, "ade20k", rows(1))
    source = open_source("ade20k", tmp_path)
    image, label = source.files(0)
    content = label.read_bytes()
    label.write_bytes(content[:-25])
    with pytest.raises(DataError, match=r"a\.png: is damaged"):
        source[0]
    label.write_bytes(content)
    image.unlink()
    with pytest.raises(DataError, match=r"a\.jpg: there is no such file"):
        source[0]
    with pytest.raises(IndexError):
        source[1]


@pytest.mark.parametrize(("name", "folder"), [("ade20k", "ade20k"), ("mapillary", "mapillary")])
def test_the_real_files(name, folder):
    """Every pixel of a real label map is in one class or ignored."""
    source = open_source(name, shared(f"samples/formats/{folder}"))
    for sample in source:
        covered = np.zeros(sample.size, int) if sample.ignore is None else decode(sample.ignore).astype(int)
        for conversation in sample.conversations:
            covered += decode(conversation.turns[0].targets[0].mask)
        assert (covered == 1).all()
        assert len(sample.conversations) > 2
