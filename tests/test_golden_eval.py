"""The published program's validation, number by number: masks, IoUs, gIoU and cIoU, an image without targets included.

Tolerances are the golden folder's own: the published program differs from itself by as much between thread counts.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from shared import shared

from cores import masks
from cores.cli import main
from cores.evaluation.overlap import Overlap
from cores.evaluation.published import PublishedMeter


def test_the_published_sums_are_met_to_the_last_digit() -> None:
    (expected,) = json.loads((shared("golden/eval") / "expected.json").read_text())
    meter = PublishedMeter()
    for image in expected["images"]:
        for question in image["questions"]:
            meter.add([Overlap(question["intersection"], question["union"])])
    found = meter.compute()
    assert found["ciou"] == expected["ciou"]
    # the program adds fp32 numbers in the order in which the file system lists its files: the last bit is that order's
    assert abs(found["giou"] - expected["giou"]) <= 2 * np.spacing(np.float32(expected["giou"]))
    empty = PublishedMeter()
    empty.add([Overlap(0, 0)])
    assert empty.compute() == {"giou": pytest.approx(1 / (1 + 1e-5)), "ciou": 0.0}


@pytest.mark.slow  # photographs of 18 megapixels
def test_a_published_checkpoint_scores_as_its_own_program_scores_it(tmp_path: Path) -> None:
    golden = shared("golden/eval")
    (expected,) = json.loads((golden / "expected.json").read_text())
    model, out = tmp_path / "model", tmp_path / "scores"
    source = ["--src", str(golden / "models" / "cores"), "--clip", str(golden / "clip")]
    assert main(["convert", "--from", "cores", *source, "--dtype", "float32", "--out", str(model), "--quiet"]) == 0
    chosen = ["--on", expected["on"], "--data", str(golden / "data"), "--protocol", "published", "--no-sanity"]
    assert main(["eval", str(model), *chosen, "--out", str(out), "--quiet"]) == 0

    found = json.loads((out / "results.json").read_text())["sources"][expected["on"]]
    assert (found["protocol"]["name"], found["images"], found["published_images"]) == ("published", 9, 200)
    score = found["teacher-forced"]
    assert score["masks"] == expected["masks"]
    assert score["giou"] == pytest.approx(expected["giou"], abs=2e-5)
    assert score["ciou"] == pytest.approx(expected["ciou"], abs=2e-5)
    records = {record["image"]: record for record in map(json.loads, (out / "answers.jsonl").read_text().splitlines())}
    for image in expected["images"]:
        (question,) = image["questions"]
        record = records.pop(Path(image["image"]).name)
        assert record["ious"] == [pytest.approx(question["iou"], abs=1e-4)]
        predicted, found = (masks.decode(rle) for rle in (question["predicted"], record["levels"][0]["target"]))
        assert np.count_nonzero(predicted != found) <= max(20, 5e-5 * found.size)
    assert not records
