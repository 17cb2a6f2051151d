"""Comparing evaluations: differences and flips against what is known of them."""

import json
from pathlib import Path

import numpy as np
import pytest

from cores.cli import main
from cores.evaluation.figures import figures
from cores.evaluation.journal import Journal, begin, found_in, held, read_back
from cores.evaluation.predictions import Predictions, judge_predictions
from cores.evaluation.report import Chapter
from cores.evaluation.result_files import KeptAnswers, write
from cores.masks import Mask, encode
from cores.scenes.source import open_scenes


def evaluated(folder: Path, spoiled: set[int]) -> Path:
    """The truth as the answers about four scenes, but for some scenes nothing but one corner."""
    source = open_scenes("test", 4)
    folder.mkdir()
    found = {}
    for number in range(4):
        for conversation in source[number].conversations:
            (turn,) = conversation.turns
            corner: Mask = np.zeros(source[number].size, dtype=bool)
            corner[0, 0] = True
            drawn = [encode(corner) if number in spoiled else target.mask for target in turn.targets]
            found[source[number].name, turn.query] = drawn
    with held(folder) as home:
        begin(home, {}, replace=True, go_on=False)
        with Journal(home) as journal:
            journal.source = "scenes|test"
            for number in range(4):
                journal.write([judge_predictions(Predictions(found), number, source[number])])
        places = found_in(home)
        total = figures(read_back(places, "scenes|test"), ("generated",))
        kept = KeptAnswers(places, "scenes|test")
        chapter = Chapter("scenes|test", total.result, lambda i: source[i].image, "", total, kept)  # type: ignore
        write(folder, {"model": "x"}, [chapter])
    return folder


def test_differences_and_flips_are_those_of_what_was_spoiled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = evaluated(tmp_path / "one", set()), evaluated(tmp_path / "two", {1})
    out = tmp_path / "out"
    assert main(["eval", "compare", str(one), str(two), "--out", str(out)]) == 0
    (found,) = json.loads((out / "compare.json").read_text())["differences"]
    by_path = {tuple(figure["figure"]): figure for figure in found["figures"]}
    lines = [json.loads(line) for line in (two / "answers.jsonl").read_text().splitlines()]
    ious = [iou for line in lines for iou in line["ious"]]
    assert by_path["giou",]["first"] == 1.0
    assert by_path["giou",]["second"] == pytest.approx(sum(ious) / len(ious))
    low, high = by_path["giou",]["interval"]
    assert low < by_path["giou",]["difference"] < high <= 0  # some draws of four pictures leave the spoiled one out
    assert (found["better"], found["worse"]) == (
        0,
        sum(bool(line["ious"]) and max(line["ious"]) < 0.5 for line in lines),
    )
    html = (out / "compare.html").read_text()
    assert html.count('<article class="card">') == found["worse"]
    assert "data:image/jpeg;base64," in html
    assert "scenes|test, generated: 4 pictures" in capsys.readouterr().out


def test_other_questions_and_folders_that_are_none_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = evaluated(tmp_path / "one", set()), evaluated(tmp_path / "two", {1})
    lines = (two / "answers.jsonl").read_text().splitlines(keepends=True)
    (two / "answers.jsonl").write_text("".join(lines[1:]))
    assert main(["eval", "compare", str(one), str(two)]) == 2
    assert "were not asked the same questions" in capsys.readouterr().err
    assert main(["eval", "compare", str(one), str(tmp_path)]) == 2
    assert "holds no results.json" in capsys.readouterr().err
