"""`cores predict` as a user runs it: files that agree with each other, mistakes in one line with nothing written."""

import json
from pathlib import Path

import numpy as np
import pytest
from learned import SIZE, mask, sample, save
from PIL import Image
from safetensors.torch import load_file, save_file

from cores import masks
from cores.cli import VERBS, main
from cores.cli.predict import SHIPPED
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
        assert overlay.size == picture.size
        changed = (np.asarray(overlay) != np.asarray(picture.convert("RGB"))).any(axis=2)
    assert changed[found].mean() > 0.95
    out, err = capsys.readouterr()
    assert out.startswith("0.png: segmented: ")
    assert "answer/0.overlay.png" in out
    assert "cores-tiny" not in err  # another model than the shipped one


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
    assert main(["predict", "0.png", "kettle and cup", "--model", str(model)]) == 0
    assert main(["predict", "0.png", "knife", "--model", str(model)]) == 2
    assert "0.2.target.png" in names(here / "prediction")
    assert main(["predict", "0.png", "knife", "--model", str(model), "--overwrite"]) == 0
    assert names(here / "prediction") == {"0.overlay.png", "0.json"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["0.png", "missing.png", "cup"], "missing.png"),
        (["broken.png", "cup"], "broken.png"),
        (["cut.png", "cup"], "cut.png"),
        ([".", "cup"], "folder"),
        (["0.png", "  "], "QUERY is empty"),
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
    verb, recipe = SHIPPED.split("`cores ")[1].split()[:2]
    assert verb in VERBS
    assert load_recipe(recipe).data.sources
    assert "\n" not in SHIPPED


def test_one_argument_alone_is_no_prediction(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["predict", "0.png"])
    assert "QUERY" in capsys.readouterr().err
