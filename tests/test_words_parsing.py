"""Boxes out of answers as models write them, and what their numbers mean in each family."""

import pytest

from cores.errors import CheckpointError
from cores.words.boxes import alike, clip, to_canvas, widen
from cores.words.grounding import GROUNDING, grounding_of
from cores.words.hearing import understand
from cores.words.parsing import parse_boxes
from cores.words.speaker import Look, Spoken

FENCED = """Here is the bounding box of the spout:
```json
[
\t{"bbox_2d": [135, 114, 1016, 672], "label": "the spout of the kettle"}
]
```
Let me know if you need anything else. There is no second spout."""
TWO_FENCES = """```json
[{"bbox_2d": [1, 2, 30, 40], "label": "cup"}]
```
and, on the right,
```json
[{"bbox_2d": [50, 2, 80, 40], "label": "cup"}]
```"""
SEVERAL = '[{"bbox_2d": [10, 20, 30, 40], "label": "left mug"}, {"bbox_2d": [50, 20, 70, 40], "label": "right mug"}]'
ABSENT, UNCLEAR = "absent", "unclear"

ANSWERS = {
    FENCED: [(135, 114, 1016, 672, "the spout of the kettle")],
    TWO_FENCES: [(1, 2, 30, 40, "cup"), (50, 2, 80, 40, "cup")],
    SEVERAL: [(10, 20, 30, 40, "left mug"), (50, 20, 70, 40, "right mug")],
    '{"bbox_2d": [12, 34, 56, 78]}': [(12, 34, 56, 78, None)],
    '{"label": "tail", "bbox_2d": [12, 34, 56, 78]}': [(12, 34, 56, 78, "tail")],
    '[{"bbox_2d": [[12, 34, 56, 78]], "label": "nested"}]': [(12, 34, 56, 78, "nested")],
    '[{"bbox_2d": [[12, 34], [56, 78]], "label": "corner by corner"}]': [(12, 34, 56, 78, "corner by corner")],
    "[{'bbox_2d': [12, 34, 56, 78], 'label': 'single quotes'}]": [(12, 34, 56, 78, "single quotes")],
    '[{"bbox_2d": [12, 34, 56, 78], "label": "the \\"good\\" cup"}]': [(12, 34, 56, 78, 'the "good" cup')],
    '[{"bbox_2d": [12, 34, 56, 78,], "label": "comma",},]': [(12, 34, 56, 78, "comma")],
    '```json\n[{"bbox_2d": [12, 34, 56, 78], "label": "no end': [(12, 34, 56, 78, None)],
    '```json\n[{"bbox_2d": [1, 2, 3, 4], "label": "whole"}, {"bbox_2d": [5, 6, 7': [(1, 2, 3, 4, "whole")],
    '[{"bbox_2d": [12, 34, 5': UNCLEAR,
    "[56, 78, 12, 34]": [(12, 34, 56, 78, None)],
    "[56, 34, 12, 78]": [(12, 34, 56, 78, None)],
    "[0.12, 0.3, .56, 0.78]": [(0.12, 0.3, 0.56, 0.78, None)],
    "[12.5, 34., 56.25, 78.0]": [(12.5, 34, 56.25, 78, None)],
    "[-4, 34, 56, 78]": [(-4, 34, 56, 78, None)],
    "The handle is at [12, 34, 56, 78], left of the lid.": [(12, 34, 56, 78, None)],
    "The handle is at (12, 34, 56, 78).": [(12, 34, 56, 78, None)],
    "the mug: [1, 2, 3, 4]. the red plate: it is [ 5, 6, 7, 8 ].": [
        (1, 2, 3, 4, "the mug"),
        (5, 6, 7, 8, "the red plate"),
    ],
    "It usually appears on [01, 02, 03, 04] [05, 06, 07, 08].": [(1, 2, 3, 4, None), (5, 6, 7, 8, None)],
    "<ref>the two dogs</ref><box>[[1, 2, 3, 4], [5, 6, 7, 8]]</box>": [
        (1, 2, 3, 4, "the two dogs"),
        (5, 6, 7, 8, "the two dogs"),
    ],
    "<|object_ref_start|>a cat<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>": [(1, 2, 3, 4, "a cat")],
    "<think>Is it [9, 9, 20, 20]? There is no lid.</think>\n<|begin_of_box|>[[1,2,3,4]]<|end_of_box|>": [
        (1, 2, 3, 4, None)
    ],
    "<think>First I look at [9, 9, 20, 20] and then": UNCLEAR,
    "[5, 5, 5, 9]": UNCLEAR,
    "[[5, 5, 9, 5], [1, 2, 3, 4]]": [(1, 2, 3, 4, None)],
    "[]": ABSENT,
    "```json\n[]\n```": ABSENT,
    "[[]]": ABSENT,
    '{"objects": []}': ABSENT,
    "None.": ABSENT,
    "not found": ABSENT,
    "There is no such thing in this image.": ABSENT,
    "There are no kettles in this picture.": ABSENT,
    "There isn't a kettle here. The nearest thing is a pot at [1, 2, 3, 4].": ABSENT,
    "The kettle is not visible in the image.": ABSENT,
    "I'm sorry, but I cannot find a red kettle.": ABSENT,
    "I couldn't locate it, sorry": ABSENT,
    "The image does not contain a kettle.": ABSENT,
    "No kettle is visible.": ABSENT,
    "Nothing in this image fits that description.": ABSENT,
    "": UNCLEAR,
    "It is red.": UNCLEAR,
    "The kettle is on the left, next to the cup.": UNCLEAR,
    "There are four cups: 1, 2, 3, 4": UNCLEAR,
}


@pytest.mark.parametrize("text", ANSWERS, ids=lambda text: repr(text[:40]))
def test_an_answer_is_read(text: str) -> None:
    expected, found = ANSWERS[text], parse_boxes(text)
    if isinstance(expected, str):
        assert (found.status, found.boxes) == (expected, ())
    else:
        assert found.status == "boxes"
        assert [(*box.numbers, box.label) for box in found.boxes] == expected


SIZE, RESIZED = (100, 200), (56, 112)  # (h, w) of a picture, and as a model sees it


@pytest.mark.parametrize(
    ("family", "said"),
    {
        "qwen2_5_vl": "[28, 14, 56, 28]",  # pixels of what the model saw: 112 x 56
        "qwen3_vl": "[250, 250, 500, 500]",
        "internvl": "[[250, 250, 500, 500]]",
        "glm4v": "[250, 250, 500, 500]",
        "llava": "[0.25, 0.38, 0.50, 0.50]",  # of a 200 x 200 square, the picture 50 pixels below its top
        "cores": "[25, 37, 50, 50]",
    }.items(),
)
def test_a_box_means_the_same_in_every_family(family: str, said: str) -> None:
    box, row = (50.0, 25.0, 100.0, 50.0), GROUNDING[family]
    assert row.say(box, SIZE, RESIZED) == said
    (found,) = understand(row, Look(SIZE, RESIZED, "", None), Spoken(said, 0.0, 1, False)).boxes
    assert found.box == pytest.approx(box, abs=1.1)  # what rounding leaves


def test_shares_are_understood_where_thousands_were_taught() -> None:
    heard = understand(
        GROUNDING["qwen3_vl"], Look(SIZE, RESIZED, "", None), Spoken("[0.25, .25, 0.5, 0.5]", 0, 1, False)
    )
    assert heard.boxes[0].box == (50, 25, 100, 50)


def test_a_box_is_cut_at_the_picture_and_refused_beyond_it() -> None:
    look, row = Look(SIZE, SIZE, "", None), GROUNDING["qwen2_5_vl"]
    heard = understand(row, look, Spoken("[[-20, 90, 30, 400], [250, 10, 300, 20]]", 0, 1, False))
    assert [one.box for one in heard.boxes] == [(0, 90, 30, 100)]
    assert understand(row, look, Spoken("[250, 10, 300, 20]", 0, 1, False)).status == "unclear"
    assert clip((0, 100, 50, 130), SIZE) is None


@pytest.mark.parametrize("family", ["paligemma", "gemma3", "smolvlm", "molmo2", "never_heard_of"])
def test_families_that_say_no_boxes_are_refused_by_name(family: str) -> None:
    with pytest.raises(CheckpointError, match=rf"a {family} cannot be asked for boxes.*qwen3_vl"):
        grounding_of(family)


def test_a_second_look_has_a_margin_and_stays_in_the_picture() -> None:
    assert widen((40.0, 40.0, 80.0, 60.0), (100, 200)) == (34, 36, 86, 64)  # 15 % of 40; 28 pixels are the least
    assert widen((190.0, 0.0, 200.0, 3.0), (100, 200)) == (172, 0, 200, 28)
    assert widen((1.0, 1.0, 9.0, 9.0), (10, 10)) == (0, 0, 10, 10)


def test_a_box_lies_in_the_square_as_its_picture_does() -> None:
    assert to_canvas((50, 25, 100, 50), (100, 200), (512, 1024)) == (256, 128, 512, 256)  # padded
    assert to_canvas((50, 25, 100, 50), (100, 200), (1024, 1024)) == (256, 256, 512, 512)  # squashed


def test_answers_agree_as_much_as_their_boxes() -> None:
    one, far = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 60.0, 60.0)
    assert alike([one], [one]) == 1
    assert alike([one], [far]) == 0
    assert alike([one, far], [one]) == pytest.approx(2 / 3)  # a box too many costs
    assert alike([one], [(0.0, 0.0, 10.0, 5.0)]) == 0.5
