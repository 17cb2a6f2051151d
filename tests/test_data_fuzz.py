"""Every reader against spoilt files: it gives a sample that is one, or a DataError; never anything else.

Annotations have a value somewhere replaced by one of another kind, or removed, or the file is cut or has bytes
changed; pictures are of every odd kind there is.
"""

import json
import pickle
import struct
import zlib

import numpy as np
import pytest
from data_files import READABLE, rows, say, square, write_map, write_pair, write_picture, write_records
from PIL import Image
from py2_pickle import pickled

from cores import masks
from cores.data.formats.picture_headers import decode_check
from cores.data.sources import open_source
from cores.errors import DataError

SIZE = (20, 30)
BOX = [[2, 2, 10, 2, 10, 8, 2, 8]]
STRANGE = [
    None,
    True,
    -1,
    0,
    7,
    1 << 70,
    10**400,
    -(10**400),
    1e308,
    -0.5,
    float("nan"),
    "",
    "x",
    "é\u0000",
    "n" * 5000,
    "..\\x",
    "C:\\x.jpg",
    "\ud800",
    [],
    [[]],
    [{}],
    {},
    {"size": [True, True], "counts": [1]},
    {"size": [65535, 65535], "counts": [65535**2]},
    [None],
]


def boxed():
    mask = np.zeros(SIZE, bool)
    mask[3:9, 4:20] = True
    return masks.encode(mask)


def coco_file(**image):
    annotations = [
        {"id": n, "image_id": 1, "category_id": 1, "segmentation": s, "text": "the lid"}
        for n, s in enumerate([BOX, boxed(), [boxed(), boxed()], {"size": [20, 30], "counts": [100, 500]}])
    ]
    images = [{"id": 1, "file_name": "a.jpg", "height": 20, "width": 30} | image]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "Dog:head"}]}


def reasonseg(root):
    shapes = [square(0, 0, 9, 9), square(2, 2, 5, 5, "ignore"), square(1, 1, 2, 2, "flag")]
    folder = write_pair(root, "a", texts=["what?", "that?"], shapes=shapes)
    (folder.parent / "explanatory").mkdir()
    told = folder.parent / "explanatory" / "train.json"
    told.write_text(json.dumps([{"image": "a.jpg", "outputs": "So."}]))
    return "ReasonSeg|train", [folder / "a.json", told], folder / "a.jpg"


def labelme(root):
    picture = write_picture(root / "own" / "a.jpg")
    box = {"label": "lid", "shape_type": "rectangle", "points": [[1, 1], [5, 5]]}
    (root / "own" / "a.json").write_text(json.dumps({"shapes": [box, square(0, 0, 5, 5, "cup")]}))
    return "labelme:own", [root / "own" / "a.json"], picture


def mapillary(root):
    write_map(root, "mapillary", rows(0, 1, 2, 3))
    assert len(READABLE) == 4
    return "mapillary", [root / "mapillary" / "config_v2.0.json"], root / "mapillary" / "training" / "images" / "a.jpg"


def refer(root):
    home = root / "refer_seg" / "grefcoco"
    picture = write_picture(root / "refer_seg" / "images" / "mscoco" / "images" / "train2014" / "a.jpg")
    home.mkdir(parents=True)
    refs = [
        {"ann_id": ann, "image_id": 1, "split": "val", "sentences": [{"sent": "the lid"}]} for ann in ([0, 1], [-1], 3)
    ]
    (home / "grefs(unc).json").write_text(json.dumps(refs))
    (home / "instances.json").write_text(json.dumps(coco_file()))
    return "grefcoco|val", [home / "grefs(unc).json", home / "instances.json"], picture


def parts(root):
    home = root / "vlpart" / "pascal_part"
    picture = write_picture(home / "VOCdevkit" / "VOC2010" / "JPEGImages" / "a.jpg")
    (home / "train.json").write_text(json.dumps(coco_file()))
    (home / "reason.json").write_text(json.dumps({"Dog head": "What barks?"}))
    return "seg_part", [home / "train.json", home / "reason.json"], picture


def llava(root):
    write_records(root, say("<image>\nq", "a", "r", "b"))
    return (
        "llava_instruct_150k",
        [root / "llava_dataset" / "llava_instruct_150k.json"],
        root / "coco/train2017/000000000001.jpg",
    )


def manifest(root):
    target = {"mask": boxed(), "location": [[0, 0], [9, 0], [9, 9]], "phrase": "lid"}
    line = {"image": "a.jpg", "query": "x?", "targets": [target, BOX, "m.png"], "answer": "So.", "ignore": boxed()}
    (root / "m.jsonl").write_text(json.dumps(line))
    Image.fromarray(masks.decode(boxed())).save(root / "m.png")
    return "manifest:m.jsonl", [root / "m.jsonl"], write_picture(root / "a.jpg")


def coco(root):
    (root / "c.json").write_text(json.dumps(coco_file()))
    return "coco:c.json", [root / "c.json"], write_picture(root / "a.jpg")


READERS = [reasonseg, labelme, mapillary, refer, parts, llava, manifest, coco]


def read_all(name, root):
    """Everything of a source, decoded; how many questions there are. Anything but a DataError is a fault."""
    asked = 0
    try:
        source = open_source(name, root)
        for i in range(len(source)):
            sample = source[i]
            for conversation in sample.conversations:
                for turn in conversation.turns:
                    assert isinstance(turn.query, str)
                    asked += 1
                    for target in turn.targets:
                        assert masks.decode(target.mask).shape == sample.size
    except DataError as error:
        return str(error)
    return asked


def places(value, path=()):
    """The paths to all values inside a value of JSON."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(value, path, new):
    """The value with another one at a path; `...` removes it."""
    if not path:
        return None if new is ... else new
    copy = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1 and new is ...:
        del copy[path[0]]
    else:
        copy[path[0]] = changed(copy[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize("reader", READERS)
def test_values_of_another_kind(tmp_path, reader):
    name, files, _ = reader(tmp_path)
    assert read_all(name, tmp_path) in range(1, 20)
    rng = np.random.default_rng(0)
    refused = 0
    for file in files:
        content = json.loads(file.read_text())
        everywhere = list(places(content))
        for number in range(50):
            path = everywhere[number % len(everywhere) if number < 25 else rng.integers(len(everywhere))]
            new = [*STRANGE, ...][rng.integers(len(STRANGE) + 1)]
            file.write_text(json.dumps(changed(content, path, new)))
            refused += isinstance(read_all(name, tmp_path), str)
        file.write_text(json.dumps(content))
    assert refused > 10


@pytest.mark.parametrize("reader", READERS)
def test_files_that_are_cut_or_have_bytes_changed(tmp_path, reader):
    name, files, picture = reader(tmp_path)
    rng = np.random.default_rng(1)
    for file in [*files, picture, *tmp_path.rglob("*.png")]:
        content = file.read_bytes()
        for _ in range(6):
            file.write_bytes(content[: rng.integers(len(content))])
            read_all(name, tmp_path)
            spoilt = bytearray(content)
            for place in rng.integers(len(content), size=3):
                spoilt[place] = rng.integers(256)
            file.write_bytes(spoilt)
            read_all(name, tmp_path)
        file.write_bytes(content)
    assert read_all(name, tmp_path) in range(1, 20)


def odd_pictures(path):
    """Pictures of the same size that are odd but right, written to `path` one after the other."""
    values = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    plain = Image.fromarray(values)
    for image, kind in (
        (plain.convert("CMYK"), "JPEG"),
        (plain.convert("L"), "JPEG"),
        (plain.convert("P"), "PNG"),
        (plain.convert("RGBA"), "PNG"),
        (plain.convert("LA"), "PNG"),
        (plain.convert("1"), "PNG"),
        (Image.fromarray(values[..., 0].astype(np.uint16) * 257), "PNG"),
        (plain, "GIF"),
        (plain, "BMP"),
        (plain, "WEBP"),
        (plain, "TIFF"),
    ):
        image.save(path, kind)
        yield f"{image.mode} {kind}"


@pytest.mark.parametrize("reader", READERS)
def test_odd_pictures_are_pictures(tmp_path, reader):
    name, _, picture = reader(tmp_path)
    wanted = read_all(name, tmp_path)
    for kind in odd_pictures(picture):
        assert read_all(name, tmp_path) == wanted, kind
        decode_check(picture)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def broken_pictures():
    head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    bomb = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    none = chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 0, 8, 2, 0, 0, 0)) + chunk(b"IEND", b"")
    signature = b"\x89PNG\r\n\x1a\n"
    return {"empty": b"", "text": b"<html>", "bomb": signature + bomb, "no pixels": signature + none}


@pytest.mark.parametrize("reader", READERS)
def test_broken_pictures_are_named(tmp_path, reader):
    name, _, picture = reader(tmp_path)
    for content in broken_pictures().values():
        picture.write_bytes(content)
        assert str(picture) in read_all(name, tmp_path)
    picture.unlink()
    assert picture.name in read_all(name, tmp_path)


def test_a_cut_jpeg_is_found_by_decoding(tmp_path):
    path = write_picture(tmp_path / "a.jpg", (200, 300))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(DataError, match=r"a\.jpg: is damaged"):
        decode_check(path)


@pytest.mark.parametrize("protocol", [0, 2])
def test_pickles_with_bytes_changed(tmp_path, protocol):
    _, (refs, _), _ = refer(tmp_path)
    value = json.loads(refs.read_text())
    content = pickled(value, protocol)
    assert pickle.loads(content) == value
    refs.unlink()
    path = refs.with_name("grefs(unc).p")
    rng = np.random.default_rng(2)
    for _ in range(60):
        spoilt = bytearray(content)
        for place in rng.integers(len(content), size=2):
            spoilt[place] = rng.integers(256)
        path.write_bytes(spoilt[: rng.integers(1, len(content) * 3)])
        read_all("grefcoco|val", tmp_path)
    path.write_bytes(content)
    assert read_all("grefcoco|val", tmp_path) == 3
