"""`cores eval` as a user runs it, on scenes and on ReasonSeg's files."""

import json
from pathlib import Path
from typing import Any

import pytest
from learned import SIZE, mask, sample, save
from PIL import Image
from shared import shared

from cores import masks
from cores.cli import main
from cores.evaluation import evaluator
from cores.evaluation.protocol import has_seen


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The learned pictures in ReasonSeg's format: one asked for its kettle, one for a kettle that is not there."""
    folder = tmp_path / "data" / "reason_seg" / "ReasonSeg" / "val"
    folder.mkdir(parents=True)
    box = [[4, 4], [23, 4], [23, 23], [4, 23]]
    for number, shapes in enumerate([[{"label": "target", "points": box}], []]):
        picture = sample(number).image
        assert isinstance(picture, Image.Image)
        picture.save(folder / f"{number}.jpg", quality=95)
        record = {"text": ["kettle"], "is_sentence": False, "shapes": shapes}
        (folder / f"{number}.json").write_text(json.dumps(record))
    return tmp_path / "data"


def run(*arguments: str | Path) -> int:
    return main(["eval", *map(str, arguments)])


def test_an_evaluation_leaves_figures_answers_and_a_report(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores"
    assert run(model, "--on", "ReasonSeg|val", "--data", data, "--out", out) == 0
    assert {file.name for file in out.iterdir()} == {"results.json", "answers.jsonl", "report.html"}
    found = json.loads((out / "results.json").read_text())["sources"]["ReasonSeg|val"]
    assert (found["images"], found["questions"]) == (2, 2)
    assert found["generated"]["giou"] > 0.85
    # the image without a target is given the usual answer, draws something, and counts as published: IoU 0
    assert (found["generated"]["masks"], found["teacher-forced"]["masks"]) == (1, 2)
    assert found["teacher-forced"]["giou"] == pytest.approx(found["generated"]["giou"] / 2, abs=0.03)
    assert found["generated"]["answers"]["refusal"] == 1.0
    assert found["teacher-forced"]["answers"]["refusal"] is None  # nothing was asked that could be refused
    lines = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    assert [(line["mode"], line["status"], line["image"]) for line in lines] == [
        ("generated", "segmented", "0.jpg"),
        ("teacher-forced", "segmented", "0.jpg"),
        ("generated", "absent", "1.jpg"),
        ("teacher-forced", "segmented", "1.jpg"),
    ]
    assert lines[-1]["ious"] == [0.0]
    assert (masks.decode(lines[0]["truth"][0]) == mask(0, "kettle")).all()
    assert masks.decode(lines[0]["levels"][0]["location"]).shape == SIZE
    assert "data:image/jpeg;base64," in (out / "report.html").read_text()
    text = capsys.readouterr().out
    assert "ReasonSeg|val, generated" in text
    assert str(out / "report.html") in text


def test_scenes_need_no_files_and_one_mode_and_a_limit_are_kept_to(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores"
    chosen = ("--answers", "teacher-forced", "--limit", "2", "--quiet")
    assert run(model, "--on", "scenes|test", "scenes|novel", "--out", out, *chosen) == 0
    sources = json.loads((out / "results.json").read_text())["sources"]
    assert list(sources) == ["scenes|test", "scenes|novel"]
    for found in sources.values():
        assert found["images"] == 2
        assert "generated" not in found
        assert found["teacher-forced"]["masks"] > 0
        assert found["teacher-forced"]["kinds"]
    assert capsys.readouterr().err == ""


def test_the_same_run_gives_the_same_figures_and_needs_leave_to_replace_them(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (model, "--on", "ReasonSeg|val", "--data", data, "--out", tmp_path / "scores", "--quiet")
    assert run(*arguments) == 0
    before = (tmp_path / "scores" / "results.json").read_text()
    capsys.readouterr()
    assert run(*arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run(*arguments, "--overwrite") == 0
    assert (tmp_path / "scores" / "results.json").read_text() == before


def test_all_texts_of_a_picture_are_asked_where_that_is_wanted(model: Path, data: Path, tmp_path: Path) -> None:
    file = data / "reason_seg" / "ReasonSeg" / "val" / "0.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "text": ["kettle", "cup"]}))
    chosen = ("--on", "ReasonSeg|val", "--data", data, "--answers", "teacher-forced", "--no-sanity", "--quiet")
    for texts, questions in (("first", 2), ("all", 3)):
        out = tmp_path / texts
        assert run(model, *chosen, "--texts", texts, "--out", out) == 0
        found = json.loads((out / "results.json").read_text())
        assert found["sources"]["ReasonSeg|val"]["questions"] == questions
        assert found["sources"]["ReasonSeg|val"]["protocol"]["texts"] == found["about"]["texts"] == texts


def test_weights_that_saw_a_split_are_known() -> None:
    assert has_seen("xinlai/LISA-13B-llama2-v1-explanatory", "ReasonSeg|val")
    assert has_seen("models/LISA-7B-v1", "ReasonSeg|train_val")
    assert has_seen("LISA-7B-v1", "ReasonSeg|test") is None
    assert has_seen("LISA-7B-v1.5", "ReasonSeg|val") is None
    assert has_seen("mine", "ReasonSeg|val", ("ReasonSeg|train", "refcoco|unc|train")) is False
    assert has_seen("mine", "ReasonSeg|train", ("ReasonSeg|train_val",))
    for one, other in (
        ("ReasonSeg|explanatory", "ReasonSeg|train"),
        ("ReasonSeg|testshort", "ReasonSeg|test"),
        ("refcoco|train", "refcoco|unc|train"),
        ("refcocog|umd|test", "refcocog|test"),
        ("refcoco|testA", "refcoco|unc|test"),
    ):
        assert has_seen("mine", one, (other,))
        assert has_seen("mine", other, (one,))
    assert has_seen("mine", "manifest:val.jsonl", ("manifest:val.jsonl",))
    assert has_seen("mine", "manifest:val.jsonl", ("ade20k",)) is False
    assert has_seen("mine", "refcoco|testA", ("refcoco|unc|testB", "refcoco+|testA", "ReasonSeg|testlong")) is False
    assert has_seen("mine", "ReasonSeg|val", ("refcoco|train",), start="xinlai/LISA-7B-v1")
    assert (
        has_seen("mine", "ReasonSeg|test", ("refcoco|train",), start="runs/other") is None
    )  # who knows what that saw


def test_a_second_evaluation_into_the_same_folder_is_refused_while_the_first_runs(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (model, "--on", "ReasonSeg|val", "--data", data, "--out", tmp_path / "scores", "--quiet")
    first, seconds = evaluator.evaluate_asker, []

    def evaluate(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(evaluator, "evaluate_asker", first)
        seconds.append(run(*arguments))  # started while the first is at work
        return first(*args, **kwargs)

    monkeypatch.setattr(evaluator, "evaluate_asker", evaluate)
    assert run(*arguments) == 0
    assert seconds == [2]
    assert "exists already" in capsys.readouterr().err
    assert {file.name for file in (tmp_path / "scores").iterdir()} == {"results.json", "answers.jsonl", "report.html"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--on", "NoSuchData|val"], "NoSuchData"),
        (["--on", "ReasonSeg|val"], "--data"),
        (["--on", "ReasonSeg|val", "--data", "nowhere"], "nowhere"),
        (["--on", "scenes|never"], "scenes|never"),
        (["--on", "scenes|test", "--limit", "0"], "--limit 0"),
        (["--limit", "1"], "--on SOURCE"),
        (["--on", "scenes|test", "--protocol", "published", "--answers", "both"], "teacher-forced"),
        (["--on", "scenes|test", "--device", "abacus"], "abacus"),
        (["--on", "scenes|test", "--out", "."], "exists already"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    out = [] if "--out" in arguments else ["--out", "scores"]
    assert run(model, *arguments, *out) == 2
    stdout, stderr = capsys.readouterr()
    assert (stdout, stderr.count("\n")) == ("", 1)
    assert message in stderr
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_does_not_fit_its_masks_is_named(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = data / "reason_seg" / "ReasonSeg" / "val" / "0.jpg"
    picture.write_bytes(picture.read_bytes()[:500])
    assert run(model, "--on", "ReasonSeg|val", "--data", data, "--out", tmp_path / "scores", "--quiet") == 2
    assert str(picture) in capsys.readouterr().err
    assert not (tmp_path / "scores").exists()


@pytest.mark.slow  # photographs of 18 megapixels
def test_real_reasonseg_files_run_to_the_end(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores"
    chosen = ("--data", shared("samples/formats/reasonseg"), "--out", out, "--limit", "1", "--no-sanity", "--quiet")
    assert run(model, "--on", "ReasonSeg|train", "--max-new-tokens", "12", *chosen) == 0
    found = json.loads((out / "results.json").read_text())["sources"]["ReasonSeg|train"]
    assert found["teacher-forced"]["masks"] == found["questions"] == found["images"] == 1
