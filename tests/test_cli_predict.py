"""`cores predict` as a user runs it: files that agree with each other, mistakes in one line with nothing written."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from learned import SIZE, mask, sample, save
from PIL import Image
from safetensors.torch import load_file, save_file

from cores import masks
from cores.cli import VERBS, main
from cores.cli.asking import SHIPPED
from cores.cli.inputs import find_pictures, names_of
from cores.data.sources import open_source
from cores.inference.facade import Cores, load
from cores.inference.voting import agreement, vote
from cores.recipe import load_recipe


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own working folder with two pictures."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for number in (0, 1):
        found = sample(number).image
        assert isinstance(found, Image.Image)
        found.save(folder / f"{number}.png")
    return folder


def lines(file: Path, *records: dict[str, Any]) -> None:
    file.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_prediction_is_an_overlay_the_masks_of_every_level_and_a_json(
    model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", "0.png", "kettle and cup", "--model", str(model), "--out", "answer"]) == 0
    levels = [f"0.{number}.{level}.png" for number in (1, 2) for level in ("location", "target")]
    assert names(here / "answer") == {"0.overlay.png", "0.json", *levels}
    record = json.loads((here / "answer" / "0.json").read_text())
    assert (record["status"], record["size"], record["query"]) == ("segmented", list(SIZE), "kettle and cup")
    assert "[SEG]" in record["answer"]
    for number, target in enumerate(record["targets"], 1):
        assert np.array_equal(masks.decode(target["mask"]), masks.decode(target["levels"][-1]["mask"]))
        for level in target["levels"]:
            png = np.asarray(Image.open(here / "answer" / f"0.{number}.{level['name']}.png"))
            assert np.array_equal(png > 0, masks.decode(level["mask"]))
    found = masks.decode(record["mask"])
    assert (found & mask(0, "kettle")).sum() > 0.9 * mask(0, "kettle").sum()
    with Image.open(here / "answer" / "0.overlay.png") as overlay, Image.open("0.png") as picture:
        assert overlay.width == picture.width
        assert overlay.height > picture.height, "query and answer stand below"
        upper = overlay.crop((0, 0, *picture.size))
        changed = (np.asarray(upper) != np.asarray(picture.convert("RGB"))).any(axis=2)
    assert changed[found].mean() > 0.95
    out, err = capsys.readouterr()
    assert out.startswith("0.png: segmented: ")
    assert "answer/0.overlay.png" in out
    assert "cores-tiny" not in err  # another model than the shipped one


def test_drawn_answers_are_written_as_their_vote(model: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["predict", "0.png", "--query", "kettle", "--query", "knife", "--model", str(model), "--seed", "1"]
    assert main([*command, "--samples", "3", "--temperature", "1.5", "--out", "voted"]) == 0
    found = load(model).segment("0.png", ["kettle", "knife"], samples=3, temperature=1.5, seed=1)
    said = capsys.readouterr().out
    for number, own in enumerate(found, 1):
        record = json.loads((here / "voted" / f"0.q{number}.json").read_text())
        assert np.array_equal(masks.decode(record["mask"]), vote(own))
        assert record["agreement"] == agreement(own, vote(own))
        assert f" [{record['agreement']:.0%} agree]  -> " in said
    assert main([*command, "--temperature", "1.5", "--out", "none"]) == 2
    assert "temperature: is for drawn answers: say how many, such as samples=8" in capsys.readouterr().err
    assert not (here / "none").exists()


def test_several_pictures_of_one_name_and_an_answer_without_a_mask(model: Path, here: Path) -> None:
    (here / "b").mkdir()
    (here / "1.png").rename(here / "b" / "0.png")
    assert main(["predict", "0.png", "b/0.png", "knife", "--model", str(model), "--quiet"]) == 0
    first, second = (json.loads((here / "prediction" / f"{name}.json").read_text()) for name in ("0", "0-2"))
    assert (first["status"], first["targets"]) == ("absent", [])
    assert (second["status"], len(second["targets"])) == ("segmented", 1)
    assert "0-2.1.target.png" in names(here / "prediction")
    assert "0.1.target.png" not in names(here / "prediction")


def test_overwriting_leaves_no_mask_of_the_answer_before(model: Path, here: Path) -> None:
    out = ["--out", "answer", "--model", str(model)]
    assert main(["predict", "0.png", "--query", "kettle and cup", "--query", "kettle", *out]) == 0
    (here / "answer" / "0.txt").write_text("mine")
    assert main(["predict", "0.png", "kettle and cup", *out]) == 2
    assert "0.q1.2.target.png" in names(here / "answer")
    assert main(["predict", "0.png", "kettle and cup", *out, "--overwrite"]) == 0
    assert "0.2.target.png" in names(here / "answer")
    assert main(["predict", "0.png", "knife", *out, "--overwrite"]) == 0
    assert names(here / "answer") == {"0.overlay.png", "0.json", "0.txt"}


def test_formats_are_written_as_asked_for_and_others_of_before_go(
    model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["predict", "0.png", "1.png", "--model", str(model), "--quiet", "--out", "answer"]
    everything = ["--query", "kettle", "--query", "cup", "--format", "coco,labelme", "--format", "overlay"]
    assert main([*chosen, *everything]) == 0
    overlays = {f"{picture}.q{query}.overlay.png" for picture in (0, 1) for query in (1, 2)}
    labels = {f"labelme/{picture}.{suffix}" for picture in (0, 1) for suffix in ("json", "png")}
    assert names(here / "answer") == {*overlays, *labels, "coco/instances.json"}
    assert "-> answer/0.q1.overlay.png" in capsys.readouterr().out
    labelled = open_source("labelme:answer/labelme", here)
    for number, things in enumerate((("kettle", "cup"), ("cup",))):
        turns = [conversation.turns[0] for conversation in labelled[number].conversations]
        found = {turn.query: masks.decode(turn.targets[0].mask) for turn in turns}
        for thing in things:
            assert (found[thing] & mask(number, thing)).sum() > 0.9 * mask(number, thing).sum()
    assert main([*chosen, "kettle", "--format", "mask", "--overwrite"]) == 0
    kept = {name for name in names(here / "answer") if "/" not in name}
    assert kept >= {"0.1.location.png", "0.1.target.png"}
    assert not any("overlay" in name or ".q" in name for name in kept)
    assert labels < names(here / "answer"), "they may have been corrected"


def test_a_coco_file_has_the_pictures_that_were_answered(
    model: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, asked = Cores.ask_batch, []

    def ask_batch(self: Cores, *args: Any, **kwargs: Any) -> Any:
        asked.append(args)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return done(self, *args, **kwargs)

    monkeypatch.setattr(Cores, "ask_batch", ask_batch)
    chosen = ["predict", "0.png", "1.png", "kettle", "--model", str(model), "--quiet", "--format", "coco"]
    assert main([*chosen, "--out", "answer"]) == 130
    assert names(here / "answer") == {"coco/instances.json"}
    stored = json.loads((here / "answer" / "coco" / "instances.json").read_text())
    assert [image["file_name"] for image in stored["images"]] == ["0.png"]
    assert [one["phrase"] for one in stored["annotations"]] == ["kettle"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["0.png", "missing.png", "cup"], "missing.png"),
        (["broken.png", "cup"], "broken.png"),
        (["cut.png", "cup"], "cut.png"),
        (["there", "cup"], "there is no picture in this folder"),
        (["no*.png", "cup"], "no picture has such a name"),
        (["https://example.org/cup.jpg", "cup"], "https://example.org/cup.jpg is an address"),
        (["0.png", "--queries", "none.txt"], "there is no such file"),
        (["0.png", "--queries", "there"], "is a folder"),
        (["0.png", "--queries", "empty.txt"], "holds no query"),
        (["0.png", "--queries", "latin.txt"], "is no UTF-8 text"),
        (["0.png", "--queries", "own.jsonl"], "own.jsonl: names the pictures itself: leave out 0.png"),
        (["--queries", "both.jsonl"], "both.jsonl: line 2: expected one of the fields 'query' and 'queries'"),
        (["--queries", "blank.jsonl"], "blank.jsonl: line 1: queries: one of its texts is empty"),
        (["--queries", "gone.jsonl"], "gone.png"),
        (["0.png", "--query", " "], "QUERY is empty"),
        (["broken.png", "cut.png", "cup", "--skip-bad"], "cut.png"),
        (["0.png", "  "], "QUERY is empty"),
        (["0.png", "caf\udce9"], "is no text in UTF-8"),
        (["0.png", "--query", "cup", "--query", "<image>"], "<image>"),
        (["--queries", "marks.jsonl", "--skip-bad"], "<image>"),
        (["caf\udce9.png", "0.png", "cup"], "is no text in UTF-8"),
        (["0.png", "cup", "--out", "dead"], "is a link to what is not there"),
        (["0.png", "cup", "--out", "dead/sub"], "is a link to what is not there"),
        (["0.png", "flag", "--format", "labelme"], "'flag' cannot be a label"),
        (["0.png", "1.png"], "the last argument is the query"),
        (["0.png", "cup", "--max-new-tokens", "0"], "at least one token"),
        (["0.png", "cup", "--out", "0.png"], "is a file"),
        (["0.png", "cup", "--model", "no/such/folder"], "no/such/folder"),
        (["0.png", "cup", "--model", "there"], "there"),
        (["0.png", "cup", "--device", "abacus"], "abacus"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    here: Path, model: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (here / "broken.png").write_text("no picture")
    (here / "cut.png").write_bytes((here / "0.png").read_bytes()[:90])
    (here / "there").mkdir()
    (here / "empty.txt").write_text("\n \n")
    (here / "latin.txt").write_bytes(b"caf\xe9")
    own, both = {"image": "0.png", "query": "cup"}, {"image": "0.png", "query": "cup", "queries": []}
    lines(here / "own.jsonl", own)
    lines(here / "both.jsonl", own, both)
    lines(here / "blank.jsonl", {"image": "0.png", "queries": ["cup", " "]})
    lines(here / "gone.jsonl", own, {"image": "gone.png", "query": "cup"})
    lines(here / "marks.jsonl", own, {"image": "1.png", "query": "<image>"})
    (here / "dead").symlink_to(here / "unmounted" / "disk")
    (here / "caf\udce9.png").write_bytes((here / "0.png").read_bytes())
    before = names(here)
    chosen = [] if "--model" in arguments else ["--model", str(model)]
    assert main(["predict", *arguments, *chosen]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err
    assert names(here) == before


def test_weights_that_do_not_fit_are_named_and_not_used(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["projection.9.weight"] = weights.pop("projection.0.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    capsys.readouterr()
    assert main(["predict", "0.png", "cup", "--model", str(folder)]) == 2
    out, err = capsys.readouterr()
    assert "projection.0.weight" in err
    assert "projection.9.weight" in err
    assert not (here / "prediction").exists()


def test_the_commands_that_the_shipped_models_line_names_exist() -> None:
    convert, train = (part.split("`")[0].split() for part in SHIPPED.split("`cores ")[1:])
    assert {convert[0], train[0]} <= set(VERBS)
    assert convert[:3] == ["convert", "--from", "cores"]
    assert load_recipe(train[1]).data.sources
    assert "\n" not in SHIPPED


def test_the_shipped_models_line_comes_after_the_results(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "0.png", "kettle"]) == 0
    out, err = capfd.readouterr()
    assert out.startswith("0.png: ")
    assert err.rstrip().endswith(SHIPPED)
    assert main(["predict", "0.png", "kettle", "--quiet"]) == 0
    assert capfd.readouterr().err == ""


def test_several_queries_by_flag_and_by_file(model: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "queries.txt").write_text("\ufeffkettle and cup\n\n  knife \n", encoding="utf-8")
    chosen = ["--query", "cup", "--queries", "queries.txt", "--model", str(model), "--quiet"]
    assert main(["predict", "0.png", *chosen, "1.png"]) == 0
    for stem in ("0", "1"):
        found = [json.loads((here / "prediction" / f"{stem}.q{n}.json").read_text()) for n in (1, 2, 3)]
        assert [record["query"] for record in found] == ["cup", "kettle and cup", "knife"]
        assert {record["image"] for record in found} == {f"{stem}.png"}
    assert {"0.q2.1.target.png", "0.q2.2.target.png", "0.q3.overlay.png"} <= names(here / "prediction")
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 6
    assert out[2].startswith("0.png: 'knife': absent: ")


def test_pictures_with_queries_of_their_own(model: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "list").mkdir()
    one, other = {"image": "../1.png"}, {"image": "..\\0.png", "query": "kettle", "targets": []}  # as in a manifest
    lines(here / "list" / "q.jsonl", one | {"queries": ["cup", "knife"]}, other, one | {"query": "cup"})
    chosen = ["--model", str(model), "--quiet", "--out", "answer"]
    assert main(["predict", "--queries", "list/q.jsonl", "--query", "knife and cup", *chosen]) == 0
    asked = {path.stem: json.loads(path.read_text())["query"] for path in (here / "answer").glob("*.json")}
    own = {"1.q1": "knife and cup", "1.q2": "cup", "1.q3": "knife", "0.q1": "knife and cup", "0.q2": "kettle"}
    assert asked == own
    assert main(["predict", "--queries", "list/q.jsonl", *chosen, "--overwrite"]) == 0
    assert {path.stem for path in (here / "answer").glob("*.json")} == {"0", "1.q1", "1.q2"}
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()][:3] == ["list/../1.png"] * 3


def test_frames_of_a_video_come_in_their_order(here: Path) -> None:
    frames = ["f2.png", "f10.png", "f010.png", "f1.png", "f.png"]
    (here / "video").mkdir()
    for frame in frames:
        (here / "video" / frame).write_bytes((here / "0.png").read_bytes())
    wanted = ["f.png", "f1.png", "f2.png", "f010.png", "f10.png"]
    for named in ("video", "video/*", "vid*/**"):
        assert [path.name for path in find_pictures([named])] == wanted


def test_folders_and_patterns_stand_for_their_pictures(model: Path, here: Path) -> None:
    (here / "a" / "b").mkdir(parents=True)
    (here / "1.png").rename(here / "a" / "b" / "1.PNG")
    (here / "0.png").rename(here / "a" / "0.png")
    (here / "a" / "notes.txt").write_text("no picture")
    (here / "a" / "[x].png").write_bytes((here / "a" / "0.png").read_bytes())
    for named, stems in ((["a"], {"0", "[x]"}), (["a/**/*"], {"0", "1", "[x]"}), (["a/[x].png"], {"[x]"})):
        assert (
            main(["predict", *named, "cup", "--model", str(model), "--quiet", "--out", "answer", "--overwrite"]) == 0
        )
        assert {name.removesuffix(".json") for name in names(here / "answer") if name.endswith(".json")} == stems
        for file in (here / "answer").iterdir():
            file.unlink()


def test_names_of_results_are_never_one(here: Path) -> None:
    images = [Path(name) for name in ("a.png", "b/a.png", "a-2.png", "A.jpg", "c/a.png")]
    assert names_of(images) == ["a", "a-2", "a-2-2", "A-3", "a-4"]
    # the results of a's second query are called a.q2
    assert names_of([Path(name) for name in ("a.png", "a.q2.png", "b.q1.png", "b.png")]) == [
        "a",
        "a.q2-2",
        "b.q1",
        "b-2",
    ]


def test_without_out_the_folder_is_numbered(model: Path, here: Path) -> None:
    for _ in range(2):
        assert main(["predict", "0.png", "knife", "--model", str(model), "--quiet"]) == 0
    assert names(here / "prediction") == names(here / "prediction-2") == {"0.overlay.png", "0.json"}


def test_bad_pictures_are_skipped_when_that_is_asked_for(
    model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "broken.png").write_text("no picture")
    (here / "ev\x1bil.png").write_text("no picture")
    (here / "folder.png").mkdir()
    bad = ["broken.png", "ev\x1bil.png", "missing.png"]
    assert main(["predict", *bad, "0.png", "cup", "--model", str(model), "--quiet", "--skip-bad"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("0.png: segmented")
    assert err.count("skipped: ") == 3
    assert "ev\\x1bil.png" in err
    assert "\x1b" not in err
    assert {name.split(".")[0] for name in names(here / "prediction")} == {"0"}


def test_a_picture_that_goes_bad_leaves_the_results_before_it(
    model: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["0.png", "1.png", "cup", "--model", str(model), "--quiet"]
    done = Cores.ask_batch

    def ask_batch(self: Cores, *args: Any, **kwargs: Any) -> Any:
        (here / "1.png").write_text("gone bad")  # while the first is asked about
        return done(self, *args, **kwargs)

    monkeypatch.setattr(Cores, "ask_batch", ask_batch)
    assert main(["predict", *chosen, "--out", "stops"]) == 2
    assert "1.png" in capsys.readouterr().err
    assert {name.split(".")[0] for name in names(here / "stops")} == {"0"}


def test_an_answer_that_was_cut_is_said_to_be(model: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--model", str(model), "--quiet"]
    assert main(["predict", "0.png", "kettle", *chosen, "--max-new-tokens", "4", "--out", "cut"]) == 0
    assert "[cut after 4 tokens: --max-new-tokens allows more]" in capsys.readouterr().out
    assert json.loads((here / "cut" / "0.json").read_text())["cut"] is True


def test_a_long_question_is_no_file(model: Path, here: Path) -> None:
    query = f"I would like to make breakfast{', which takes me a while' * 12}. Where is the kettle?"
    assert main(["predict", "0.png", query, "--model", str(model), "--quiet"]) == 0
    assert json.loads((here / "prediction" / "0.json").read_text())["query"] == query


def test_streams_that_are_closed_are_no_errors(model: Path, here: Path) -> None:
    command = f"{sys.executable} -m cores predict 0.png cup --model {model} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], cwd=here).returncode == 0
    assert (here / "prediction" / "0.json").exists()


def test_one_argument_alone_is_no_prediction(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["predict", "0.png"])
    assert "QUERY" in capsys.readouterr().err


MEASURED = """
import sys
from cores.cli import main
from cores.process_memory import peak_memory
code = main(sys.argv[1:])
sys.stderr.write(f"{code} {peak_memory()}")
"""


@pytest.mark.slow
def test_a_picture_of_108_megapixels_takes_less_than_one_and_a_half_gigabytes(model: Path, here: Path) -> None:
    large = Image.open("0.png").resize((12_000, 9_000), Image.Resampling.NEAREST)
    large.save("large.jpg")
    chosen = ["predict", "large.jpg", "kettle and cup", "--model", str(model), "--quiet", "--out", "answer"]
    done = subprocess.run([sys.executable, "-c", MEASURED, *chosen], capture_output=True, text=True, check=True)
    code, peak = map(int, done.stderr.split()[-2:])
    assert (code, peak < 1.5e9) == (0, True), f"{peak / 1e9:.2f} GB"
    assert "large.2.target.png" in names(here / "answer")
    with Image.open("answer/large.overlay.png") as overlay:
        assert overlay.width == 4096
