"""Masks of another program score as the same masks of ours; what is missing or does not fit is named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from learned import SIZE, mask, sample
from PIL import Image

from cores import masks
from cores.cli import main
from cores.data.sample import Conversation, Sample, Turn
from cores.errors import DataError
from cores.evaluation.predicted import Asked, Key
from cores.evaluation.predictions import Predictions
from cores.evaluation.sample_asker import questions_of


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two pictures in ReasonSeg's format, each asked for one thing."""
    folder = tmp_path / "data" / "reason_seg" / "ReasonSeg" / "val"
    folder.mkdir(parents=True)
    for number, (rows, columns) in enumerate([((4, 23), (4, 23)), ((4, 23), (8, 27))]):
        picture = sample(number).image
        assert isinstance(picture, Image.Image)
        picture.save(folder / f"{number}.jpg", quality=95)
        box = [[columns[0], rows[0]], [columns[1], rows[0]], [columns[1], rows[1]], [columns[0], rows[1]]]
        shapes = [{"label": "target", "points": box}]
        text = {"text": ["the thing"], "is_sentence": False, "shapes": shapes}
        (folder / f"{number}.json").write_text(json.dumps(text))
    return tmp_path / "data"


def score(predictions: Path, data: Path, out: Path) -> int:
    words = ["eval", str(predictions), "--against", "ReasonSeg|val", "--data", str(data), "--out", str(out)]
    return main([*words, "--quiet"])


def figures(out: Path) -> Any:
    return json.loads((out / "results.json").read_text())["sources"]["ReasonSeg|val"]["generated"]


def test_lines_and_pngs_score_alike(data: Path, tmp_path: Path) -> None:
    half = mask(0, "kettle")
    half[:14] = False  # the lower half of 20 rows
    drawn = {"0": half, "1": mask(1, "cup")}
    lines = tmp_path / "peer.jsonl"
    lines.write_text(
        "\n".join(json.dumps({"image": f"{name}.jpg", "masks": [masks.encode(m)]}) for name, m in drawn.items())
    )
    folder = tmp_path / "pngs"
    folder.mkdir()
    for name, found in drawn.items():
        Image.fromarray(found.astype(np.uint8) * 100).save(folder / f"{name}_mask_0.png")  # LISA's own grey
    for place in (lines, folder):
        out = tmp_path / f"out-{place.name}"
        assert score(place, data, out) == 0
        assert figures(out)["giou"] == pytest.approx((0.5 + 1) / 2)
        assert figures(out)["ciou"] == pytest.approx((200 + 400) / (400 + 400))
        assert figures(out)["intervals"]["giou"] == [0.5, 1.0]
        assert figures(out)["kinds"]["short query"]["masks"] == 2
    again = tmp_path / "again"
    assert score(tmp_path / "out-pngs" / "answers.jsonl", data, again) == 0  # what we write is read back
    assert figures(again) == figures(tmp_path / "out-pngs")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"image": "0.jpg", "masks": []}, "1.jpg: there is no prediction"),
        ({"image": "0.jpg", "masks": [{"size": [2, 2], "counts": [4]}]}, "the picture is (40, 60) (h, w)"),
        ({"image": "0.jpg", "masks": [{"size": list(SIZE), "counts": [3]}]}, "do not fill their size"),
        ({"image": "0.jpg", "masks": ["x"]}, "COCO run lengths"),
        ({"image": "0.jpg", "masks": [{"size": None, "counts": [4]}]}, "COCO run lengths"),
        ({"image": "0.jpg", "masks": [{"size": [1e400, 2], "counts": [4]}]}, "COCO run lengths"),
        ({"image": "0.jpg", "masks": [{"size": list(SIZE), "counts": [-4, 2404]}]}, "COCO run lengths"),
        ({"image": "0.jpg", "masks": [{"size": list(SIZE), "counts": [2**40]}]}, "run lengths"),
        ({"image": "0.jpg", "levels": [{}]}, "COCO run lengths"),
        ({"image": "0.jpg", "levels": [[]]}, "COCO run lengths"),
        ({"masks": []}, "line 1: expected image"),
        ([1], "line 1: expected an object"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: Any, message: str
) -> None:
    file = tmp_path / "peer.jsonl"
    file.write_text(json.dumps(line))
    assert score(file, data, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_mask_of_any_depth_is_what_is_not_black(data: Path, tmp_path: Path) -> None:
    drawn = {"0": mask(0, "kettle"), "1": mask(1, "cup")}
    kinds = {
        "16 bits": lambda m: Image.fromarray(m.astype(np.uint16)),
        "dark red": lambda m: Image.fromarray(m[..., None] * np.array([1, 0, 0], np.uint8)),
        "black and white": lambda m: Image.fromarray(m),
    }
    for kind, picture in kinds.items():
        folder = tmp_path / kind
        folder.mkdir()
        for name, found in drawn.items():
            picture(found).save(folder / f"{name}.png")
        assert score(folder, data, tmp_path / f"out {kind}") == 0
        assert figures(tmp_path / f"out {kind}")["giou"] == 1, kind


@pytest.mark.parametrize("names", [("0.png", "0_mask_0.png"), ("0_mask_0.png", "0_mask_2.png")])
def test_pngs_of_one_picture_are_numbered(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, ...]
) -> None:
    folder = tmp_path / "pngs"
    folder.mkdir()
    for name in names:
        Image.fromarray(mask(0, "kettle")).save(folder / name)
    assert score(folder, data, tmp_path / "out") == 2
    assert "0_mask_0.png" in capsys.readouterr().err


def test_one_row_is_not_for_two_pictures(tmp_path: Path) -> None:
    found = Predictions({("0.png", "the cup"): [masks.encode(mask(0, "kettle"))]})
    for folder in ("x", "x", "y"):  # two samples of one picture may ask the same
        asked = Sample(tmp_path / folder / "0.png", SIZE, (Conversation((Turn("the cup"),)),))
        (question,) = questions_of(asked)
        if folder == "y":
            with pytest.raises(DataError, match="tell them apart"):
                found.of(asked, question, True)
        else:
            assert found.of(asked, question, True).masks


def test_how_our_own_answers_ended_is_read_back(tmp_path: Path) -> None:
    row = {"source": "s", "sample": 3, "question": 1, "image": "0.png", "query": "cup", "status": "text", "cut": True}
    file = tmp_path / "answers.jsonl"
    more = {**row, "sample": 4, "status": "segmented", "cut": False, "levels": [{"location": 1, "target": 2}]}
    file.write_text("\n".join(json.dumps(one) for one in ({**row, "levels": []}, more)))
    found = Predictions.read(file)
    first, second = found.asked[Asked("s", 3, 1)][1], found.asked[Asked("s", 4, 1)][1]
    assert (first.status, first.cut, first.right_form, first.masks) == ("text", True, False, [])
    assert (second.status, second.cut, second.right_form, second.masks) == ("segmented", False, True, [2])
    assert isinstance(found.found[Key("0.png", "cup")].masks, str), "by name alone nobody knows which of the two"
