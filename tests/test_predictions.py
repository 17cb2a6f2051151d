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
