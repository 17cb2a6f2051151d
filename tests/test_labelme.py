"""labelme's own files: every shape that has an inside, which picture they belong to, and what is asked."""

import base64
import io
import json
import math

import numpy as np
import pytest
from data_files import write_picture
from PIL import Image, ImageDraw

from cores.data.sources import open_source
from cores.errors import DataError
from cores.masks import decode

SIZE = (60, 80)
BOX = [[20.0, 15.0], [60.0, 15.0], [60.0, 45.0], [20.0, 45.0]]
ASKED = {"text": ["What would you lift?"], "is_sentence": True}


def shape(kind="polygon", points=BOX, label="lid", **more):
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}} | more


def write(root, *shapes, name="a", picture=True, orientation=None, **more):
    """mine/NAME.png with mine/NAME.json, as labelme 6 writes it."""
    if picture:
        write_picture(root / "mine" / f"{name}.png", SIZE, orientation)
    (root / "mine").mkdir(exist_ok=True)
    record = {"version": "6.0.0", "flags": {}, "shapes": shapes, "imagePath": f"{name}.png", "imageData": None}
    record |= {"imageHeight": SIZE[0], "imageWidth": SIZE[1]} | more
    (root / "mine" / f"{name}.json").write_text(json.dumps(record, ensure_ascii=False), "utf-8")
    return root


def asked(root, number=0):
    """What is asked -> the union of its masks."""
    sample = open_source("labelme:mine", root)[number]
    turns = [turn for conversation in sample.conversations for turn in conversation.turns]
    assert len({turn.query for turn in turns}) == len(turns)
    return {turn.query: decode(turn.targets[0].mask) if turn.targets else None for turn in turns}


def only(root):
    (mask,) = asked(root).values()
    return mask


def box(left, top, right, bottom, size=SIZE):
    mask = np.zeros(size, bool)
    mask[top : bottom + 1, left : right + 1] = True
    return mask


def corners(left, top, right, bottom):
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def base64_png(mask):
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def disc(x, y, radius):
    image = Image.new("1", SIZE[::-1])
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
    return np.asarray(image)


# -- shapes --------------------------------------------------------------------------------------------------------

CROP = np.array([[1, 1, 0], [0, 1, 1]], bool)
PATCH = np.zeros(SIZE, bool)
PATCH[10:12, 30:33] = CROP
DIAMOND = [[40, 10], [60, 30], [40, 50], [20, 30]]
SHAPES = {
    "polygon": (shape(), box(20, 15, 60, 45)),
    "no type": ({"label": "lid", "points": BOX}, box(20, 15, 60, 45)),
    "rectangle": (shape("rectangle", [BOX[0], BOX[2]]), box(20, 15, 60, 45)),
    "rectangle from below": (shape("rectangle", [BOX[2], BOX[0]]), box(20, 15, 60, 45)),
    "rectangle of four": (shape("rectangle"), box(20, 15, 60, 45)),
    "rectangle of four crossed": (shape("rectangle", [BOX[0], BOX[2], BOX[1], BOX[3]]), box(20, 15, 60, 45)),
    "oriented rectangle": (shape("oriented_rectangle", DIAMOND), None),
    "circle": (shape("circle", [[40, 30], [40, 50]]), disc(40, 30, 20)),
    "circle beyond the edge": (shape("circle", [[0, 0], [6, 8]]), disc(0, 0, 10)),
    "mask": (shape("mask", [[30, 10], [32, 11]], mask=base64_png(CROP)), PATCH),
    "mask in parts of pixels": (shape("mask", [[30.4, 10.3], [32.4, 11.3]], mask=base64_png(CROP)), PATCH),
    "mask beyond the edge": (shape("mask", [[-1, -1], [1, 0]], mask=base64_png(CROP)), box(0, 0, 1, 0)),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("fields", [{}, ASKED], ids=["own", "with text"])
def test_every_shape_with_an_inside_is_filled_with_and_without_texts(tmp_path, name, fields):
    drawn, wanted = SHAPES[name]
    found = only(write(tmp_path, drawn, **fields))
    if wanted is None:
        rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
        wanted = abs(rows - 30) + abs(columns - 40) <= 20
    difference = (found ^ wanted).sum()
    assert difference <= (0.03 * wanted.sum() if "circle" in name else 0)


@pytest.mark.parametrize(
    ("drawn", "said"),
    [
        (shape("line", BOX[:2]), "shape_type: line has no inside"),
        (shape("linestrip"), "shape_type: linestrip has no inside"),
        (shape("point", BOX[:1]), "shape_type: point has no inside"),
        (shape("points"), "shape_type: points has no inside"),
        (shape("cuboid"), "shape_type: found 'cuboid', expected polygon, rectangle"),
        (shape("polygon", BOX[:2]), "points: lie on one line, so that this polygon has no inside"),
        (shape("polygon", [*BOX[:2], BOX[0]]), "lie on one line"),
        (shape("rectangle", BOX[:2]), "so that this rectangle has no inside"),
        (shape("rectangle", BOX[:3]), "points: found 3, expected 2 or 4 of a shape of type rectangle"),
        (shape("oriented_rectangle", BOX[:2]), "points: found 2, expected 4 of"),
        (shape("circle", BOX), "points: found 4, expected 2"),
        (shape("circle", [BOX[0], BOX[0]]), "points: are one point"),
        (shape("mask", [[30, 10], [32, 11]]), "the field 'mask' is missing"),
        (shape("mask", [[30, 10], [32, 11]], mask="-"), "mask: is no base64"),
        (shape("mask", [[30, 10], [32, 11]], mask="aGVsbG8="), "mask: is no picture"),
        (
            shape("mask", [[30, 10], [39, 19]], mask=base64_png(CROP)),
            r"mask: is 2 x 3 \(h x w\), but its points say 10",
        ),
        (shape("mask", [[0, 0], [99, 99]], mask=base64_png(np.ones((100, 100)))), "in a picture of 60 x 80"),
        (shape(points=corners(80, 0, 90, 50)), r"lies wholly outside the picture of 60 x 80"),
        (shape(points=corners(-9, -9, -2, -2)), "lies wholly outside"),
        (shape("polygon", [[-30, 20], [20, -30], [-30, -30]]), "covers no pixel of the picture"),
        (shape(points=[[n * (-1) ** n, n] for n in range(20_000)]), "points: an outline of 399,980,000 pixels"),
        (shape("circle", [[200, 30], [200, 50]]), "covers no pixel of the picture"),
        (shape(points=[[0.2, 0.3], [0.8, 0.3], [0.8, 0.9]]), "all points lie within 0 and 1"),
        (shape(label=" \u200b"), "label: is blank"),
        (shape(group_id=[1]), "group_id: found"),
    ],
)
@pytest.mark.parametrize("fields", [{}, ASKED], ids=["own", "with text"])
def test_shapes_that_cannot_be_a_mask_are_named(tmp_path, drawn, said, fields):
    with pytest.raises(DataError, match=said) as error:
        asked(write(tmp_path, shape(), drawn, **fields))
    assert "a.json: shape 1" in str(error.value)


def test_parts_of_the_sides_are_no_pixels_even_when_they_are_whole(tmp_path):
    with pytest.raises(DataError, match=r"a\.json: shapes: all points lie within 0 and 1"):
        asked(write(tmp_path, shape(points=corners(0, 0, 1, 1))))


def test_a_shape_inside_another_of_its_group_is_a_hole_and_one_inside_the_hole_is_solid(tmp_path):
    parts = [shape(points=corners(*at), group_id=7) for at in ((30, 20, 50, 40), (10, 5, 70, 55), (38, 28, 42, 32))]
    apart = shape(points=corners(0, 0, 5, 3), group_id=7)
    wanted = box(10, 5, 70, 55) & ~box(30, 20, 50, 40) | box(38, 28, 42, 32) | box(0, 0, 5, 3)
    for fields in ({}, ASKED):
        assert np.array_equal(only(write(tmp_path, *parts, apart, apart, **fields)), wanted)


@pytest.mark.parametrize("inner", [{}, {"group_id": 8}, {"group_id": 7, "label": "knob"}])
def test_without_the_same_group_nothing_is_a_hole(tmp_path, inner):
    write(tmp_path, shape(points=corners(10, 5, 70, 55), group_id=7), shape(points=corners(30, 20, 50, 40)) | inner)
    assert np.array_equal(asked(tmp_path)["lid"], box(10, 5, 70, 55))


def test_labels_that_differ_in_case_are_one_question(tmp_path):
    shapes = [shape(points=corners(n, 0, n + 5, 9), label=label) for n, label in enumerate(("Cup", "cup ", "CUP"))]
    write(tmp_path, *shapes, shape(points=corners(20, 20, 30, 30), label="Ignored cup"))
    record = open_source("labelme:mine", tmp_path).record(0)
    (question,) = record.questions
    assert (question.text, question.category) == ("cup", "Cup")
    assert np.array_equal(only(tmp_path), box(0, 0, 7, 9))
    assert np.array_equal(decode(record.ignore), box(20, 20, 30, 30))


@pytest.mark.parametrize(
    ("fields", "said"), [({"text": []}, "text: is empty"), ({"text": ["x?", "\u3000"]}, "is empty")]
)
def test_texts_that_ask_nothing_are_named(tmp_path, fields, said):
    with pytest.raises(DataError, match=rf"a\.json: text: .*{said}|a\.json: {said}"):
        asked(write(tmp_path, shape(), **ASKED | fields))


# -- the picture ---------------------------------------------------------------------------------------------------


def test_a_scaled_copy_is_refused_with_both_sizes(tmp_path):
    with pytest.raises(DataError, match=r"a\.json: imageHeight x imageWidth is 120 x 160, but .*a\.png is 60 x 80"):
        asked(write(tmp_path, shape(), imageHeight=120, imageWidth=160))
    with pytest.raises(DataError, match=r"is \? x 81"):
        asked(write(tmp_path, shape(), imageHeight=None, imageWidth=81))
    with pytest.raises(DataError, match=r"is \? x a number of 3322 bits"):
        asked(write(tmp_path, shape(), imageHeight=None, imageWidth=10**1000))
    with pytest.raises(DataError, match=r"is 80 x 60, but"):
        asked(write(tmp_path, shape(), imageHeight=80, imageWidth=60))
    assert only(write(tmp_path, shape(), imageHeight=None, imageWidth=None)).sum() == 41 * 31


@pytest.mark.parametrize("orientation", range(1, 9))
def test_points_on_the_stored_pixels_turn_with_their_picture(tmp_path, orientation):
    """imageHeight and imageWidth say which pixels were labelled: those of the file, or those that are seen."""
    left, top, right, bottom = 5, 3, 20, 30
    stored = np.zeros((*SIZE, 3), np.uint8)
    stored[top : bottom + 1, left : right + 1] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    write(tmp_path, shape(points=corners(left, top, right, bottom)))
    Image.fromarray(stored).save(tmp_path / "mine" / "a.png", exif=exif)
    found = only(tmp_path)
    if orientation < 5:  # its size does not change: labelme shows it upright
        assert np.array_equal(found, box(left, top, right, bottom))
        return
    seen = np.rot90(stored[..., 0] > 0, {5: 1, 6: -1, 7: -1, 8: 1}[orientation])
    seen = seen[::-1] if orientation == 5 else seen[::-1] if orientation == 7 else seen
    assert np.array_equal(found, seen)
    write(tmp_path, shape(points=corners(5, 3, 20, 30)), picture=False, imageHeight=80, imageWidth=60)
    assert np.array_equal(only(tmp_path), box(5, 3, 20, 30, (80, 60)))


@pytest.mark.parametrize(
    "named", ["b.png", "b.PNG", "sub\\b.png", "..\\mine\\b.png", "C:\\pictures\\b.png", "/x/b.png"]
)
def test_image_path_decides_which_picture_it_is(tmp_path, named):
    write(tmp_path, shape(), imagePath=named)
    place = "sub" if named.startswith("sub") else "."
    write_picture(tmp_path / "mine" / place / named.replace("\\", "/").rpartition("/")[2], SIZE)
    source = open_source("labelme:mine", tmp_path)
    index = [source.place(i)[0].lower() for i in range(len(source))]
    assert index == [f"mine/{'sub/' if place == 'sub' else ''}b.png"]
    assert source[0].image.name.lower() == "b.png"


def test_of_two_pictures_of_one_name_the_named_one_is_taken(tmp_path):
    write(tmp_path, shape())
    write_picture(tmp_path / "mine" / "a.jpg", SIZE)
    source = open_source("labelme:mine", tmp_path)
    assert [source.place(i)[0] for i in range(len(source))] == ["mine/a.png"]
    write(tmp_path, shape(), imagePath=None)
    with pytest.raises(DataError, match=r"a\.jpg and a\.png lie beside it: name the picture in imagePath"):
        open_source("labelme:mine", tmp_path)[0]
    (tmp_path / "mine" / "a.png").unlink()
    for path in (None, "a.png"):  # the one there is, or what the named one was converted to
        write(tmp_path, shape(), picture=False, imagePath=path)
        assert open_source("labelme:mine", tmp_path).place(0)[0] == "mine/a.jpg"


def test_a_picture_that_is_nowhere_is_no_other_one(tmp_path):
    write(tmp_path, shape(), imagePath="b.png")
    with pytest.raises(DataError, match=r"a\.json: imagePath: there is no 'b\.png'"):
        open_source("labelme:mine", tmp_path)[0]


def test_one_picture_is_labelled_in_one_file(tmp_path):
    write(tmp_path, shape())
    write(tmp_path, shape(), name="b", imagePath="a.png")
    source = open_source("labelme:mine", tmp_path)
    assert source[0]
    with pytest.raises(DataError, match=r"b\.json: imagePath: .*a\.png is the picture of .*a\.json too"):
        source[1]


def test_the_picture_inside_the_file_is_used_when_there_is_no_other(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    inside = base64.b64encode(file.getvalue()).decode()
    write(tmp_path, shape(), picture=False, imagePath="..\\elsewhere\\p.png", imageData=inside)
    source = open_source("labelme:mine", tmp_path)
    assert (source.place(0), len(source)) == (("mine/p.png", "mine"), 1)
    assert all(path.is_file() for path in source.files(0))
    assert np.array_equal(np.asarray(source[0].image), pixels)
    assert only(tmp_path).sum() == 41 * 31
    for broken, said in (("-", "imageData: is no base64"), ("aGVsbG8=", "imageData: is no picture")):
        write(tmp_path, shape(), picture=False, imageData=broken)
        with pytest.raises(DataError, match=rf"a\.json: {said}"):
            open_source("labelme:mine", tmp_path)[0]


def test_an_empty_folder_is_no_source(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match="mine holds no JSON file and no picture"):
        open_source("labelme:mine", tmp_path)


def test_holes_that_leave_nothing_are_named(tmp_path):
    halves = [shape(points=corners(*at), group_id=1) for at in ((10, 10, 20, 50), (21, 10, 30, 50))]
    with pytest.raises(
        DataError, match=r"a\.json: nothing is left of 'lid': shapes of its group_id cover it as holes"
    ):
        asked(write(tmp_path, shape(points=corners(10, 10, 30, 50), group_id=1), *halves))


def test_a_file_that_cannot_be_read_leaves_the_others(tmp_path):
    for name in ("a", "b", "c"):
        write(tmp_path, shape(), name=name)
    path = tmp_path / "mine" / "a.json"
    path.write_text(path.read_text("utf-8").replace("lid", "杯子"), "gbk")
    (tmp_path / "mine" / "b.json").unlink()
    (tmp_path / "mine" / "b.json").symlink_to("b.json")
    source = open_source("labelme:mine", tmp_path)
    for number, said in enumerate((r"a\.json: is no UTF-8 text: save it as UTF-8", r"b\.json: cannot be read")):
        with pytest.raises(DataError, match=said):
            source[number]
    assert math.prod(source[2].size) == 60 * 80
