"""Answers in other programs' forms say the same masks there: read back by those programs, and by our own readers."""

import copy
import csv
import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from cores import masks
from cores.data.sources import open_source
from cores.errors import DataError, UserError
from cores.inference.exports import to_coco, to_labelme, to_pandas, to_rows, to_supervision
from cores.inference.segmentation import Level, Segmentation, TargetMask
from cores.masks import Mask
from cores.outlines import filled

SIZE = (60, 80)  # (h, w)
EMPTY = np.zeros(SIZE, bool)


def drawn(seed: int) -> Mask:
    """Blobs with holes and islands in them."""
    noise = cv2.GaussianBlur(np.random.default_rng(seed).random(SIZE), (0, 0), 2.5)
    found: Mask = noise > np.quantile(noise, 0.6)
    return found


def answer(query: str, *found: Mask, phrases: tuple[str, ...] = ()) -> Segmentation:
    """An answer as the facade gives it, of these masks."""
    targets = []
    for number, mask in enumerate(found):
        level = Level("target", masks.encode(mask), 0.5 + number / 8, np.zeros((4, 4), np.float32), 80, SIZE, "pad")
        phrase = phrases[number] if phrases else query
        targets.append(TargetMask(phrase, (level,), named=bool(phrases)))
    said = "It is [SEG]." if found else "There is none."
    status = "segmented" if found else "absent"
    text = "It is." if found else said
    return Segmentation(
        query=query, answer=said, text=text, status=status, size=SIZE, targets=tuple(targets), score=-0.1, tokens=5
    )


@pytest.fixture
def answers() -> list[Segmentation]:
    """Two targets, one empty; one with a name; none."""
    return [answer("cups", drawn(1), EMPTY), answer("the lid", drawn(2), phrases=("lid",)), answer("a $zebra <b>")]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "mine" / "a.png"
    path.parent.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)).save(path)
    return path


def read_again(spec: str, root: Path) -> dict[str, Mask]:
    """What one of our sources asks about its first picture, with the mask of each query."""
    turns = [turn for conversation in open_source(spec, root)[0].conversations for turn in conversation.turns]
    return {turn.query: masks.decode(turn.targets[0].mask) for turn in turns}


def test_a_stack_and_pictures_of_masks(answers: list[Segmentation]) -> None:
    stack = answers[0].to_numpy()
    assert (stack.shape, stack.dtype) == ((2, *SIZE), np.bool_)
    assert np.array_equal(stack[0], drawn(1))
    assert answers[2].to_numpy().shape == (0, *SIZE)
    assert all(np.array_equal(np.asarray(one), mask) for one, mask in zip(answers[0].to_pil(), stack, strict=True))


def test_pieces_are_the_mask_with_its_holes(answers: list[Segmentation]) -> None:
    pieces = answers[0].targets[0].pieces
    assert any(piece.holes for piece in pieces)
    canvas = EMPTY.copy()
    for outline, holes in pieces:
        canvas = (canvas | filled([outline], SIZE)) & ~filled(holes, SIZE)
    assert np.array_equal(canvas, drawn(1))


def test_a_coco_file_is_read_by_pycocotools_and_by_our_reader(answers: list[Segmentation], picture: Path) -> None:
    from pycocotools.coco import COCO

    file = picture.parent / "instances.json"
    file.write_text(json.dumps(to_coco({"a.png": answers, "b.png": answers[2:]})))
    coco = COCO(file)
    assert [(image["file_name"], image["height"]) for image in coco.loadImgs([1, 2])] == [("a.png", 60), ("b.png", 60)]
    found = coco.loadAnns(coco.getAnnIds([1]))
    names = [coco.cats[one["category_id"]]["name"] for one in found]
    assert names == ["cups", "the lid"], "an empty mask makes none"
    for one, mask in zip(found, (drawn(1), drawn(2)), strict=True):
        assert np.array_equal(coco.annToMask(one), mask)
        assert one["area"] == mask.sum()
    assert coco.getAnnIds([2]) == []
    Image.new("RGB", SIZE[::-1]).save(picture.parent / "b.png")
    again = read_again("coco:mine/instances.json", picture.parents[1])
    assert {name: mask.tolist() for name, mask in again.items()} == {
        "cups": drawn(1).tolist(),
        "the lid": drawn(2).tolist(),
    }
    with pytest.raises(DataError, match=r"c\.png: there are no answer"):
        to_coco({"c.png": []})
    with pytest.raises(DataError, match=r"c\.png: there are answers about pictures of different sizes"):
        to_coco({"c.png": [answers[0], replace(answers[1], size=(1, 2))]})


def test_a_labelme_file_is_read_as_the_same_masks(answers: list[Segmentation], picture: Path) -> None:
    picture.with_suffix(".json").write_text(json.dumps(to_labelme(answers, "a.png", tolerance=0)))
    again = read_again("labelme:mine", picture.parents[1])
    assert list(again) == ["cups", "the lid"]
    assert np.array_equal(again["cups"], drawn(1))
    assert np.array_equal(again["the lid"], drawn(2))
    assert to_labelme(answers, "a.png")["flags"] == {"absent: a $zebra <b>": False}, "to be ticked by who sees it"
    assert answers[1].to_labelme("a.png") == to_labelme(answers[1:2], "a.png")
    with pytest.raises(UserError, match="cannot be a label"):
        answer("flag", drawn(1)).to_labelme("a.png")


def test_supervision_has_the_masks_compact_and_dense(answers: list[Segmentation]) -> None:
    sv = pytest.importorskip("supervision")
    compact, dense = (to_supervision(answers, compact=kind) for kind in (True, False))
    assert isinstance(compact.mask, sv.CompactMask)
    stack = np.concatenate([found.to_numpy() for found in answers])
    assert np.array_equal(compact.mask.to_dense(), stack)
    assert np.array_equal(dense.mask, stack)
    assert np.array_equal(compact.xyxy, dense.xyxy)
    filled_in = stack.any(axis=(1, 2))
    assert np.array_equal(compact.xyxy[filled_in], sv.mask_to_xyxy(stack[filled_in]))
    assert compact.data["class_name"].tolist() == ["cups", "cups", "lid"]
    assert compact.class_id.tolist() == [0, 0, 1]
    assert compact.confidence.tolist() == [0.5, 0.625, 0.5]
    assert len(answers[2].to_supervision()) == 0
    assert len(sv.Detections.merge([found.to_supervision() for found in answers])) == 3


def test_a_table_has_a_row_a_target_and_one_for_an_answer_without(answers: list[Segmentation]) -> None:
    pytest.importorskip("pandas")
    frame = to_pandas({"a.png": answers})
    assert frame["image"].tolist() == ["a.png"] * 4
    assert frame["query"].tolist() == ["cups", "cups", "the lid", "a $zebra <b>"]
    assert frame["target"].fillna(0).tolist() == [1, 2, 1, 0]
    assert frame["area"].sum() == drawn(1).sum() + drawn(2).sum()
    assert frame["left"].isna().tolist() == [False, True, False, True]
    for row, mask in zip(frame.iloc[:3].itertuples(), (drawn(1), EMPTY, drawn(2)), strict=True):
        again = masks.decode({"size": [row.height, row.width], "counts": row.counts})
        assert np.array_equal(again, mask)
    assert len(to_pandas([])) == 0
    assert to_rows(answers) == [row for found in answers for row in to_rows([found])]
    assert len(answers[0].to_pandas()) == 2


@pytest.mark.parametrize("module", ["pandas", "supervision"])
def test_what_is_not_installed_says_what_to_install(
    module: str, answers: list[Segmentation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"{module} is not installed: pip install 'cores\[tables\]'"):
        getattr(answers[0], f"to_{module}")()


def test_an_answer_knows_its_picture_while_it_is_there_and_does_not_keep_it(
    answers: list[Segmentation], picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = answers[0]
    opened = Image.open(picture).convert("RGB")
    array = np.asarray(opened)
    assert found.picture is None
    monkeypatch.chdir(picture.parent)
    known: list[Any] = [found.about(one) for one in ("a.png", picture, opened, array)]
    monkeypatch.chdir("/")
    for one in known:
        assert np.array_equal(np.asarray(one.picture), array)
        assert (one == found, hash(one), repr(one)) == (True, hash(found), repr(found))
        assert pickle.dumps(one) == pickle.dumps(found)
        for again in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one)):
            assert again == one
            assert again.picture is None
    assert found.about(picture.read_bytes()).picture is None
    del opened, array
    assert [one.picture is None for one in known] == [False, False, True, True]
    Image.new("RGB", (5, 5)).save(picture)
    assert known[0].picture is None, "another size: another picture"
    picture.unlink()
    assert known[0].picture is None


def test_a_notebook_shows_a_small_figure_whole_in_itself(answers: list[Segmentation], tmp_path: Path) -> None:
    large = Image.new("RGB", (1600, 1200), (9, 120, 9))
    for found in answers:
        page = found._repr_html_()
        assert page.count("src=") == page.count('src="data:image/jpeg;base64,') == 1
        assert "<b>a $zebra &lt;b&gt;</b>" in page or "zebra" not in page
    big = replace(answers[2], size=(1200, 1600)).about(large)
    assert len(big._repr_html_()) < 20_000


def test_plot_draws_on_axes_or_in_pillows_window(
    answers: list[Segmentation], picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr(pyplot, "subplots", lambda: (None, pyplot.Figure().add_subplot()))
    axes = answers[2].plot(picture)
    assert axes.get_title().startswith("a $zebra <b>\n")
    assert np.array_equal(axes.images[0].get_array(), np.asarray(Image.open(picture)))
    assert answers[0].plot(picture, axes) is axes
    axes.figure.savefig(picture.parent / "plot.png")
    shown: list[Any] = []
    monkeypatch.setattr(Image.Image, "show", lambda image, title: shown.append((image.width, title)))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert answers[0].plot(picture) is None
    assert shown == [(80, "cups")]


def test_save_writes_what_the_suffix_says(answers: list[Segmentation], picture: Path, tmp_path: Path) -> None:
    found, out = answers[0], tmp_path / "new" / "folder"
    assert found.save(out / "a.JSON", about={"image": "a.png"}) == [out / "a.JSON"]
    assert json.loads((out / "a.JSON").read_text()) == {"image": "a.png", **json.loads(json.dumps(found.to_dict()))}
    found.save(out / "a.npz")
    with np.load(out / "a.npz", allow_pickle=False) as stored:
        assert np.array_equal(stored["masks"], found.to_numpy())
        assert stored["phrases"].tolist() == ["cups", "cups"]
    found.save(out / "b.NPZ")
    found.save(out / "a.csv")
    with (out / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["counts"] for row in rows] == [target.rle["counts"] for target in found.targets]
    found.about(picture).save(out / "a.png")
    assert np.array_equal(np.asarray(Image.open(out / "a.png")), np.asarray(found.overlay(picture)))
    found.save(out / "plain.jpg")
    assert sorted(path.name for path in out.iterdir()) == ["a.JSON", "a.csv", "a.npz", "a.png", "b.NPZ", "plain.jpg"]
    (out / "folder.png").mkdir()
    assert [path.name for path in found.save(out / "folder.png", kinds=("mask",))] == [
        "answer.1.target.png",
        "answer.2.target.png",
    ]
