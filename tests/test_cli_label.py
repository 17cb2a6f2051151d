"""`cores label`: answers become labelme files that say the same masks, can be corrected, and are trained on."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from learned import sample, save
from PIL import Image

from cores import masks
from cores.cli import main
from cores.data.formats.labelme_files import Labelled, labelme_file
from cores.data.sources import open_source
from cores.errors import UserError
from cores.inference.facade import load
from cores.masks import Mask

SIZE = (60, 80)  # (h, w)
EDGE = np.ones((3, 3), np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in (0, 1):
        found = sample(number).image
        assert isinstance(found, Image.Image)
        found.save(folder / f"{number}.png")
    return folder


def again(folder: Path) -> list[dict[str, Mask]]:
    """What a folder asks for, and its masks, by picture."""
    source = open_source(f"labelme:{folder.name}", folder.parent)
    return [
        {
            turn.query: masks.decode(turn.targets[0].mask)
            for conversation in source[number].conversations
            for turn in conversation.turns
        }
        for number in range(len(source))
    ]


def written(folder: Path, found: dict[str, Mask], tolerance: float) -> dict[str, Mask]:
    folder.mkdir()
    Image.new("RGB", SIZE[::-1]).save(folder / "a.png")
    text = labelme_file([Labelled(*pair) for pair in found.items()], "a.png", SIZE, tolerance)
    (folder / "a.json").write_text(json.dumps(text))
    return again(folder)[0]


def drawn(seed: int) -> Mask:
    """Blobs with holes, islands in them, single pixels, lines and diagonals."""
    random = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(random.random(SIZE), (0, 0), random.uniform(0.4, 4))
    found: Mask = noise > np.quantile(noise, random.uniform(0.2, 0.95))
    return found


@pytest.mark.parametrize("seed", range(12))
def test_a_mask_comes_back_exactly_and_with_a_tolerance_within_its_border(seed: int, tmp_path: Path) -> None:
    found = {"cup": drawn(seed), "lid": drawn(seed + 100)}
    exact = written(tmp_path / "exact", found, 0)
    assert all(np.array_equal(exact[name], wanted) for name, wanted in found.items())
    for name, back in written(tmp_path / "near", found, 1).items():
        pixels = found[name].astype(np.uint8)
        border = cv2.dilate(pixels, EDGE) != cv2.erode(pixels, EDGE)
        assert not ((back != found[name]) & ~border).any()


def test_a_tolerance_leaves_few_points_to_move() -> None:
    disc = np.hypot(*np.ogrid[-30:30, -40:40]) < 25
    counts = [len(labelme_file([Labelled("disc", disc)], "a.png", SIZE, t)["shapes"][0]["points"]) for t in (0, 1)]
    assert counts[1] < counts[0] / 2


def test_labels_are_the_masks_that_segment_finds(model: Path, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("kettle and cup\nknife\nhow many cup are there?\n")
    out = tmp_path / "labels"
    arguments = ["label", str(pictures), "--queries", str(tmp_path / "q.txt"), "--form", "phrase", "--out", str(out)]
    assert main([*arguments, "--model", str(model), "--tolerance", "0", "--quiet"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["0.json", "0.png", "1.json", "1.png"]
    assert (out / "0.png").read_bytes() == (pictures / "0.png").read_bytes()
    cores = load(model)
    for number, read in enumerate(again(out)):
        answers = cores.segment(pictures / f"{number}.png", ["kettle and cup", "knife"], "phrase")
        assert read.keys() >= {found.query for found in answers if found.mask.any()}
        for found in answers:
            assert np.array_equal(read.get(found.query, np.zeros_like(found.mask)), found.mask)
    shapes = json.loads((out / "0.json").read_text())["shapes"]
    assert {shape["label"] for shape in shapes} >= {"kettle and cup"}
    assert len({shape["group_id"] for shape in shapes if shape["label"] == "kettle and cup"}) == 2, "a group a target"


def test_what_was_refused_is_a_flag_that_teaches_refusing_once_it_is_ticked(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    out, queries = tmp_path / "labels", ["kettle", "knife", "cup"]
    asked = [word for query in queries for word in ("--query", query)]
    assert main(["label", str(pictures / "0.png"), *asked, "--out", str(out), "--model", str(model), "--quiet"]) == 0
    answers = load(model).segment(pictures / "0.png", queries)
    absent = [found.query for found in answers if found.status == "absent"]
    assert absent, "or this test says nothing"
    label = json.loads((out / "0.json").read_text())
    assert label["flags"] == {f"absent: {query}": False for query in absent}
    before = open_source("labelme:labels", tmp_path)[0].conversations
    label["flags"] = dict.fromkeys(label["flags"], True)
    (out / "0.json").write_text(json.dumps(label))
    ticked = open_source("labelme:labels", tmp_path)[0].conversations
    assert [one.turns[0].targets for one in ticked[len(before) :]] == [()] * len(absent)


def test_a_turned_photograph_is_labelled_as_labelme_shows_it(model: Path, pictures: Path, tmp_path: Path) -> None:
    upright = Image.open(pictures / "0.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    folder = tmp_path / "turned"
    folder.mkdir()
    upright.transpose(Image.Transpose.ROTATE_90).save(folder / "a.jpg", exif=exif, quality=100, subsampling=0)
    out = tmp_path / "labels"
    assert main(["label", str(folder), "kettle", "--model", str(model), "--out", str(out), "--tolerance", "0"]) == 0
    (found,) = load(model).segment(folder / "a.jpg", ["kettle"])
    assert found.mask.any()
    assert np.array_equal(again(out)[0]["kettle"], found.mask)


def test_a_recipe_trains_on_the_folder_as_it_is(pictures: Path, tmp_path: Path) -> None:
    shutil.copyfile(pictures / "0.png", pictures / "only.png")
    out = tmp_path / "labels"
    queries = ["--query", "kettle", "--query", "cup", "--query", "the big red square"]
    assert main(["label", str(pictures), *queries, "--out", str(out), "--quiet"]) == 0
    sources = "data.sources={own: [labelme:labels], old: [scenes|train]}"
    settings = ["trainer.max_steps=2", "trainer.per_device_train_batch_size=1", "evaluation.sources=[]"]
    arguments = ["train", "tiny-own", "--data", str(tmp_path), "--out", str(tmp_path / "run"), sources, *settings]
    assert main([*arguments, "--device", "cpu", "--quiet"]) == 0
    assert (tmp_path / "run" / "checkpoint-2").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--query", "Flag"], "cannot be a label"),
        (["--query", "what you would ignore"], "cannot be a label"),
        (["--query", "Cup", "--query", "cup "], "are one label"),
        (["cup", "--tolerance", "-1"], "expected a number of pixels"),
        (["cup", "--tolerance", "nan"], "expected a number of pixels"),
    ],
)
def test_what_cannot_be_labelled_is_said_before_anything_is_written(
    arguments: list[str], message: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["label", str(pictures / "0.png"), *arguments, "--out", str(tmp_path / "labels")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "labels").exists()


def test_labels_that_were_corrected_are_not_replaced_unless_asked(model: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels"
    arguments = ["label", str(pictures), "cup", "--model", str(model), "--out", str(out), "--quiet"]
    assert main(arguments) == 0
    (out / "0.json").write_text("corrected")
    assert main(arguments) == 2
    assert (out / "0.json").read_text() == "corrected"
    assert main(["label", str(out), "cup", "--model", str(model), "--out", str(out), "--overwrite", "--quiet"]) == 0
    assert json.loads((out / "0.json").read_text())["imagePath"] == "0.png"


def test_the_library_refuses_such_labels_too() -> None:
    with pytest.raises(UserError, match="cannot be a label"):
        labelme_file([Labelled("FLAG", np.ones(SIZE, bool))], "a.png", SIZE)
