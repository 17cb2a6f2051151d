"""labelme's own files: every shape that it writes, the picture that a file is of, and the coordinates' place."""

import base64
import io
import json
import os
import tracemalloc

import numpy as np
import pytest
from data_files import square, write_pair, write_picture
from PIL import Image

from cores.data.sources import open_source
from cores.errors import DataError
from cores.masks import decode

SIZE = (60, 80)
TEXT = {"text": ["What is it?"], "is_sentence": True}


def labelme(root, *shapes, name="a.png", size=SIZE, orientation=None, **fields):
    write_picture(root / "mine" / name, size, orientation)
    (root / "mine" / "a.json").write_text(json.dumps({"shapes": list(shapes), "imagePath": name} | fields))
    return open_source("labelme:mine", root)


def shape(kind, *points, label="cup", **fields):
    return {"label": label, "shape_type": kind, "points": [list(point) for point in points]} | fields


def png(mask):
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def masks_of(source):
    return {c.turns[0].query: decode(c.turns[0].targets[0].mask) for c in source[0].conversations}


def filled(top, left, bottom, right, size=SIZE):
    mask = np.zeros(size, bool)
    mask[top : bottom + 1, left : right + 1] = True
    return mask


def round_mask():
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    return (columns - 30) ** 2 + (rows - 20) ** 2 <= 100


HALF = filled(0, 0, 20, 10, (21, 31))
PLACED = np.zeros(SIZE, bool)
PLACED[5:26, 7:38] = HALF
BOX = filled(10, 20, 30, 50)
SHAPES = {
    "polygon": (shape("polygon", (20, 10), (50, 10), (50, 30), (20, 30)), BOX),
    "no type": (square(20, 10, 50, 30, "cup"), BOX),
    "null": (shape(None, (20, 10), (50, 10), (50, 30), (20, 30)), BOX),
    "rectangle": (shape("rectangle", (50, 30), (20, 10)), BOX),
    "rectangle of four": (shape("rectangle", (20, 10), (50, 10), (50, 30), (20, 30)), BOX),
    "oriented_rectangle": (shape("oriented_rectangle", (20, 10), (50, 10), (50, 30), (20, 30)), BOX),
    "oriented_rectangle, crossed": (shape("oriented_rectangle", (20, 10), (50, 30), (50, 10), (20, 30)), BOX),
    "circle": (shape("circle", (30, 20), (36, 28)), round_mask()),
    "mask": (shape("mask", (7, 5), (37, 25), mask=png(HALF.astype(np.uint8))), PLACED),
    "mask of 255": (shape("mask", (7.4, 5.2), (37.9, 25.1), mask=png(HALF)), PLACED),
}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("text", [{}, TEXT])
def test_every_shape_counts_with_and_without_text(tmp_path, kind, text):
    drawn, wanted = SHAPES[kind]
    (mask,) = masks_of(labelme(tmp_path, drawn, **text)).values()
    assert np.array_equal(mask, wanted)


@pytest.mark.parametrize(
    ("drawn", "said"),
    [
        (shape("line", (1, 1), (9, 9)), "shape_type: is 'line', expected one of polygon"),
        (shape("linestrip", (1, 1), (9, 9), (9, 1)), "shape_type: is 'linestrip'"),
        (shape("point", (1, 1)), "shape_type: is 'point'"),
        (shape("points", (1, 1), (2, 2), (3, 3)), "shape_type: is 'points'"),
        (shape(["x"], (1, 1)), "shape_type: is"),
        (shape("polygon", (1, 1), (9, 9)), "is a polygon of 2 points, expected at least 3"),
        (shape("rectangle", (1, 1), (9, 9), (9, 1)), "is a rectangle of 3 points, expected 2 or 4"),
        (shape("oriented_rectangle", (1, 1), (9, 9)), "is a oriented_rectangle of 2 points, expected 4"),
        (shape("circle", (1, 1)), "is a circle of 1 points, expected 2"),
        (shape("mask", (1, 1), (9, 9)), "the field 'mask' is missing"),
        (shape("mask", (1, 1), (9, 9), mask="?"), "mask: is no base64"),
        (shape("mask", (1, 1), (9, 9), mask=base64.b64encode(b"no").decode()), "mask: is no picture"),
        (
            shape("mask", (1, 1), (9, 9), mask=png(HALF)),
            r"mask: is \(31, 21\) \(w, h\), but its points enclose \(9, 9\)",
        ),
        (shape("mask", (60, 5), (90, 25), mask=png(HALF)), "reaches out of the picture"),
        (shape("mask", (7, 5), (37, 25), mask=png(HALF & False)), "mask: is empty"),
        (shape("polygon", (1, 1), (9, 9), (1, 1)), "points: lie on one line, so that this polygon has no inside"),
        (shape("rectangle", (1, 1), (1, 9)), "points: lie on one line, so that this rectangle has no inside"),
        (shape("circle", (9, 9), (9, 9)), "points: are one point"),
        (shape("polygon", (-30, 20), (20, -30), (-30, -30)), "covers no pixel of the picture of 60 x 80"),
        (
            shape("polygon", *((n * (-1) ** n, n) for n in range(20_000))),
            "a polygon with an outline of 399,980,000 pix",
        ),
        (shape("polygon", (1, 1), (9, 1), (9, 9), label="\u200b\u3000"), "label: is blank"),
        (shape("polygon", (90, 1), (99, 1), (99, 9)), "lies outside the picture"),
        (shape("circle", (-90, 1), (-85, 1)), "lies outside the picture"),
        (shape("polygon", (0.1, 0.2), (0.9, 0.2), (0.9, 0.7)), r"all coordinates lie within 0\.\.1"),
        (shape("polygon", (10**400, 2), (1, 2), (1, 3)), r"expected \[x, y\] in pixels"),
        (shape("polygon", (1, 1), (9, 1), (9, 9), label=" "), "label: is blank"),
        (shape("polygon", (1, 1), (9, 1), (9, 9), group_id=[]), "group_id: found"),
    ],
)
@pytest.mark.parametrize("text", [{}, TEXT])
def test_what_encloses_nothing_of_the_picture_is_refused_by_name(tmp_path, drawn, said, text):
    source = labelme(tmp_path, drawn, **text)
    with pytest.raises(DataError, match=rf"a\.json: shape.*{said}"):
        source.look(0)


def test_a_shape_inside_another_of_its_group_is_a_hole(tmp_path):
    ring = [square(10, 10, 50, 50, "cup"), square(20, 20, 40, 40, "cup"), square(28, 28, 32, 32, "cup")]
    apart = square(60, 5, 70, 15, "cup")
    alone = masks_of(labelme(tmp_path, *ring, apart))["cup"]
    grouped = [one | {"group_id": 3} for one in (*ring, apart)]
    cup = masks_of(labelme(tmp_path, *grouped, square(22, 22, 26, 26, "lid") | {"group_id": 3}))["cup"]
    assert np.array_equal(alone, filled(10, 10, 50, 50) | filled(5, 60, 15, 70))
    hole = filled(20, 20, 40, 40) & ~filled(28, 28, 32, 32)
    assert np.array_equal(cup, alone & ~hole)
    other = [ring[0] | {"group_id": 1}, ring[1] | {"group_id": 2}]
    assert np.array_equal(masks_of(labelme(tmp_path, *other))["cup"], filled(10, 10, 50, 50))


def test_the_same_shape_twice_is_no_hole_and_holes_leave_something(tmp_path):
    ring = [square(10, 10, 50, 50, "cup"), square(20, 20, 40, 40, "Cup"), square(20, 20, 40, 40, "cup")]
    source = labelme(tmp_path, *(one | {"group_id": 3} for one in (*ring, ring[0])))
    assert np.array_equal(masks_of(source)["cup"], filled(10, 10, 50, 50) & ~filled(20, 20, 40, 40))
    halves = [ring[0], square(10, 10, 30, 50, "cup"), square(31, 10, 50, 50, "cup")]
    with pytest.raises(DataError, match=r"a\.json: nothing is left of 'cup': shapes of its group_id are its holes"):
        labelme(tmp_path, *(one | {"group_id": 3} for one in halves))[0]


def test_shares_of_the_sides_beside_pixels_are_seen(tmp_path):
    small = shape("polygon", (0.1, 0.2), (0.9, 0.2), (0.9, 0.7))
    with pytest.raises(DataError, match=r"a\.json: shape 1: all coordinates lie within 0\.\.1"):
        labelme(tmp_path, square(1, 1, 9, 9), small)[0]


def test_labels_written_differently_are_one(tmp_path):
    same = ["Caf\u00e9 Cup", "cafe\u0301  cup "]
    source = labelme(tmp_path, square(1, 1, 9, 9, same[0]), square(20, 20, 29, 29, same[1]))
    assert np.array_equal(masks_of(source)["caf\u00e9 cup"], filled(1, 1, 9, 9) | filled(20, 20, 29, 29))
    assert [q.category for q in source.record(0).questions] == same[:1]
    source = labelme(tmp_path, square(1, 1, 9, 9, "Lid"), square(1, 1, 9, 9, "What you lift"))
    assert [q.form for q in source.record(0).questions] == ["phrase", "sentence"]


def test_text_that_is_null_or_empty(tmp_path):
    assert list(masks_of(labelme(tmp_path, square(1, 1, 9, 9, "cup"), text=None))) == ["cup"]
    with pytest.raises(DataError, match="text: is empty, expected at least one"):
        labelme(tmp_path, square(1, 1, 9, 9, "cup"), text=[], is_sentence=True)[0]
    assert labelme(tmp_path, **TEXT)[0].conversations[0].turns[0].targets == ()


# -- the picture ---------------------------------------------------------------------------------------------------


def test_another_size_than_the_pictures_is_an_error(tmp_path):
    box = square(20, 10, 50, 30, "cup")
    assert np.array_equal(masks_of(labelme(tmp_path, box, imageHeight=60, imageWidth=80))["cup"], BOX)
    for height, width in ((120, 160), (80, 60), (0, 0)):
        source = labelme(tmp_path, box, imageHeight=height, imageWidth=width)
        with pytest.raises(
            DataError, match=rf"imageHeight x imageWidth is \({height}, {width}\) \(h, w\), but the pic"
        ):
            source.look(0)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_points_on_the_stored_pixels_turn_with_the_picture(tmp_path, orientation):
    box = square(20, 10, 50, 30, "cup")
    stored = {"imageHeight": 60, "imageWidth": 80}
    source = labelme(tmp_path, box, orientation=orientation, name="a.jpg", **stored)
    wanted = {3: BOX, 6: np.rot90(BOX, -1), 8: np.rot90(BOX, 1)}[orientation]  # 3: both sizes are one; labelme turns
    assert np.array_equal(masks_of(source)["cup"], wanted)
    source = labelme(
        tmp_path, square(10, 20, 30, 50, "cup"), orientation=6, name="a.jpg", imageHeight=80, imageWidth=60
    )
    assert np.array_equal(masks_of(source)["cup"], filled(20, 10, 50, 30, (80, 60)))


@pytest.mark.parametrize("named", ["a.png", "..\\mine\\a.png", "C:\\Users\\me\\a.png", "/home/me/a.png", "./a.png"])
def test_image_path_says_which_picture_it_is(tmp_path, named):
    write_picture(tmp_path / "mine" / "a.jpg", (30, 40))
    source = labelme(tmp_path, square(1, 1, 9, 9, "cup"), imagePath=named)
    assert (len(source), source.place(0)[0]) == (1, "mine/a.png")
    assert source[0].image.resolve() == (tmp_path / "mine" / "a.png").resolve()
    assert source[0].size == SIZE


def test_a_picture_of_another_name_belongs_to_the_file_that_names_it(tmp_path):
    source = labelme(tmp_path, square(1, 1, 9, 9, "cup"), name="photo 1.png")
    assert (len(source), source.place(0)[0]) == (1, "mine/photo 1.png")
    write_picture(tmp_path / "mine" / "b.png", SIZE)
    source = open_source("labelme:mine", tmp_path)
    assert len(source) == 2
    with pytest.raises(DataError, match=r"b\.png: there is no b\.json beside it"):
        source[1]


def test_two_pictures_that_may_be_meant_are_named(tmp_path):
    source = labelme(tmp_path, square(1, 1, 9, 9, "cup"), imagePath="gone.png")
    assert source[0].image.name == "a.png"  # renamed together with its file
    write_picture(tmp_path / "mine" / "a.jpg", SIZE)
    with pytest.raises(DataError, match=r"a\.json: a\.jpg and a\.png are both there"):
        open_source("labelme:mine", tmp_path)[0]
    (tmp_path / "mine" / "a.jpg").unlink()
    write_picture(tmp_path / "mine" / "b.png", SIZE)
    (tmp_path / "mine" / "b.json").write_text((tmp_path / "mine" / "a.json").read_text().replace("gone", "a"))
    with pytest.raises(DataError, match=r"b\.json: imagePath: names a\.png, which a\.json is of"):
        open_source("labelme:mine", tmp_path)[1]


def test_the_picture_inside_the_file_is_used_when_there_is_no_other(tmp_path):
    source = labelme(tmp_path, square(20, 10, 50, 30, "cup"), imagePath="pics\\photo.png")
    path = tmp_path / "mine" / "a.png"
    content = json.loads((tmp_path / "mine" / "a.json").read_text())
    content["imageData"] = base64.b64encode(path.read_bytes()).decode()
    pixels = np.asarray(Image.open(path))
    path.unlink()
    with pytest.raises(DataError, match=r"a\.json: there is no photo\.png beside it"):
        open_source("labelme:mine", tmp_path)[0]
    (tmp_path / "mine" / "a.json").write_text(json.dumps(content))
    source = open_source("labelme:mine", tmp_path)
    assert np.array_equal(np.asarray(source[0].image), pixels)
    assert np.array_equal(masks_of(source)["cup"], BOX)
    assert source.place(0)[0] == "mine/photo.png"
    assert source.files(0) == (tmp_path / "mine" / "a.json",)
    (tmp_path / "mine" / "a.json").write_text(json.dumps(content | {"imageData": "AAAA"}))
    with pytest.raises(DataError, match=r"a\.json: imageData: is no picture"):
        open_source("labelme:mine", tmp_path)[0]


def test_files_that_cannot_be_read_leave_the_others(tmp_path):
    labelme(tmp_path, square(1, 1, 9, 9, "cup"))
    mine = tmp_path / "mine"
    for name in "bcde":
        write_picture(mine / f"{name}.png", SIZE)
    (mine / "b.json").write_text((mine / "a.json").read_text().replace("cup", "杯子"), "gbk")
    (mine / "c.json").symlink_to("c.json")
    (mine / "d.json").mkdir()
    os.mkfifo(mine / "e.json")  # reading it would wait without end
    source = open_source("labelme:mine", tmp_path)
    assert source[0].size == SIZE
    for number, said in enumerate(
        (r"b\.json: is no UTF-8 text", r"c\.json: ", r"d\.json: is a folder", r"e\.json: is a")
    ):
        assert source.place(1 + number)[0] == f"mine/{'bcde'[number]}.png"
        with pytest.raises(DataError, match=said):
            source[1 + number]


def test_an_empty_folder_is_no_source(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match="mine holds no JSON file and no picture"):
        open_source("labelme:mine", tmp_path)


# -- what is ReasonSeg's alone -------------------------------------------------------------------------------------


def test_reasonseg_reads_its_files_as_ever_and_nobody_else_does(tmp_path):
    """Its points are a polygon whatever the shape says, and some of its files are cp1252."""
    box = square(20, 10, 50, 30) | {"shape_type": "linestrip"}
    size = {"size": SIZE}
    write_pair(tmp_path, "a", texts=["naïve?"], shapes=[box], encoding="cp1252", **size)
    (conversation,) = open_source("ReasonSeg|train", tmp_path)[0].conversations
    assert conversation.turns[0].query == "naïve?"
    assert np.array_equal(decode(conversation.turns[0].targets[0].mask), BOX)
    with pytest.raises(DataError, match="is no UTF-8 text"):
        open_source("labelme:reason_seg/ReasonSeg/train", tmp_path)[0]
    write_pair(tmp_path, "a", shapes=[box], **size)
    with pytest.raises(DataError, match="shape_type: is 'linestrip'"):
        open_source("labelme:reason_seg/ReasonSeg/train", tmp_path)[0]


def test_a_ticked_flag_says_what_is_not_there(tmp_path):
    flags = {"absent: The  Zebra": True, "Absent: what flies?": True, "absent: lid": False, "blurred": True}
    drawn = shape("rectangle", (50, 30), (20, 10))
    (sample,) = labelme(tmp_path, drawn, flags=flags)
    found = {turn.query: (turn.form, len(turn.targets)) for c in sample.conversations for turn in c.turns}
    assert found == {"cup": ("phrase", 1), "the zebra": ("phrase", 0), "what flies?": ("sentence", 0)}
    (sample,) = labelme(tmp_path, flags={"absent: cup": True})
    assert [turn.targets for c in sample.conversations for turn in c.turns] == [()]
    for none in ([], ["absent: cup"], None, "absent: cup", {"absent: cup": "yes"}):
        (sample,) = labelme(tmp_path, drawn, flags=none)
        assert [turn.query for c in sample.conversations for turn in c.turns] == ["cup"]
    with pytest.raises(
        DataError, match="flags: 'absent: Cup' is ticked, but shapes are labelled so: keep one of them"
    ):
        labelme(tmp_path, drawn, flags={"absent: Cup": True})[0]
    with pytest.raises(DataError, match="flags: 'absent: ': is blank"):
        labelme(tmp_path, drawn, flags={"absent: ": True})[0]


def test_what_a_mac_leaves_beside_files_is_no_data_and_its_accents_are_the_same(tmp_path):
    labelme(tmp_path, square(20, 10, 50, 30, "cup"), name="caf\u00e9.png")
    mine = tmp_path / "mine"
    (mine / "a.json").rename(mine / "caf\u00e9.json")
    (mine / "caf\u00e9.png").rename(mine / "cafe\u0301.png")
    for file in list(mine.iterdir()):
        (mine / f"._{file.name}").write_bytes(b"\0\5\x16\7" * 20)
    source = open_source("labelme:mine", tmp_path)
    assert len(source) == 1
    assert np.array_equal(masks_of(source)["cup"], BOX)


def test_many_large_shapes_take_no_memory_of_their_own(tmp_path):
    size = (3000, 4000)
    large = [shape("polygon", (0, 0), (3999, 0), (3999, 2999), (0, 2990 - n)) for n in range(40)]
    source = labelme(tmp_path, *large, size=size)
    tracemalloc.start()
    assert decode(source[0].conversations[0].turns[0].targets[0].mask).shape == size
    assert tracemalloc.get_traced_memory()[1] < 200e6  # 480e6 of their masks alone
    tracemalloc.stop()
