"""The chain in words end to end: the tiny model, taught one scene's boxes by heart, asked, drawn, scored."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_segmenters import CONFIGS, tiny_segmenter
from transformers import Sam2Model, SamModel

import cores
from cores.checkpoints.runs.bases import load_parts
from cores.checkpoints.runs.origin import Base
from cores.cli import main
from cores.data.sources import open_source
from cores.masks import Mask, decode
from cores.processing.segmenter_pixels import for_segmenter
from cores.scenes.pretrain import words
from cores.scenes.source import FIRST_SEED, Scenes
from cores.scenes.write import write_scenes
from cores.words.hearing import Pointed
from cores.words.places import Place

STEPS = 80


class OneScene(Scenes):
    """A single scene of `scenes|val`: a part, two things at once, and something that is not there."""

    def scene_seed(self, i: int) -> int:
        return FIRST_SEED[self.split] + 69


SCENE = OneScene("val", 1, questions=3)
PART, SEVERAL, ABSENT = (conversation.turns[0] for conversation in SCENE[0].conversations)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's folder."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"PICTURES": 1, "CROPS": 3, "FIRST": 6, "JITTER": 0.02}.items():
            patch.setattr(words, name, value)
        return words.teach(tmp_path_factory.mktemp("taught"), SCENE, STEPS, peak=1e-3, every=STEPS)


def recipe(folder: Path, taught: Path, **settings: Any) -> Path:
    file = folder / "words.yaml"
    lines = {"kind": "words", "mllm": str(taught), "segmenter": "shipped", **settings}
    file.write_text("".join(f"{name}: {json.dumps(value)}\n" for name, value in lines.items()))
    return file


def iou(found: Mask, truth: Any) -> float:
    """Of a mask and of several together, as run lengths."""
    wanted = np.logical_or.reduce([decode(mask) for mask in truth])
    return float((found & wanted).sum() / (found | wanted).sum())


@pytest.mark.parametrize("settings", [{}, {"crop": False}, {"levels": 1}, {"votes": 3}], ids=str)
def test_what_it_was_taught_is_found_and_what_is_not_there_is_refused(
    settings: dict[str, Any], taught: Path, tmp_path: Path
) -> None:
    model = cores.load(recipe(tmp_path, taught, **settings), device="cpu")
    found = model.segment(SCENE[0].image, [PART.query, SEVERAL.query])
    assert [one.status for one in found] == ["segmented"] * 2
    if settings.get("crop", True):  # with the location in words, only one thing at a time is taught
        assert iou(found[1].mask, [target.mask for target in SEVERAL.targets]) > 0.6
    if settings.get("levels") != 1:
        assert iou(found[0].targets[0].levels[0].mask, [PART.targets[0].location]) > 0.6
    names = ["location", "target"][-settings.get("levels", 2) :]
    assert all([level.name for level in target.levels] == names for one in found for target in one.targets)
    assert [target.phrase for target in found[1].targets] == [target.phrase for target in SEVERAL.targets]
    (nothing,) = model.segment(SCENE[0].image, [ABSENT.query])
    assert (nothing.status, nothing.targets) == ("absent", ())
    (alone,) = model.segment(SCENE[0].image, [PART.query])
    assert (alone.answer, alone.rle) == (found[0].answer, found[0].rle), "an answer depends on no other question"


def test_masks_are_what_the_segmenter_makes_of_the_boxes_that_were_said(taught: Path) -> None:
    """From the answer's digits through crop, picture and square to SAM's own forward, all by hand."""
    picture = SCENE[0].image.resize((192, 128))
    (found,) = cores.load(f"words:{taught}+shipped", device="cpu").segment(picture, [PART.query])
    (first,), (second,) = (re.findall(r"\[([\d, ]+)\]", said) for said in found.answer.split(" -> "))
    x1, y1, x2, y2 = (int(number) / 99 * 192 for number in first.split(","))
    place = (x1, y1 - 32, x2, y2 - 32)  # the square has 32 rows more above
    place = (max(place[0], 0), max(place[1], 0), min(place[2], 192), min(place[3], 128))
    across, down = (max(0.15 * side, (28 - side) / 2) for side in (place[2] - place[0], place[3] - place[1]))
    left, top = int(max(0, place[0] - across)), int(max(0, place[1] - down))
    right, bottom = int(min(192, np.ceil(place[2] + across))), int(min(128, np.ceil(place[3] + down)))
    wide, high = right - left, bottom - top
    side = max(wide, high)
    x1, y1, x2, y2 = (int(number) / 99 * side for number in second.split(","))
    more = ((side - wide) // 2, (side - high) // 2)
    inside = [x1 - more[0], y1 - more[1], x2 - more[0], y2 - more[1]]
    limits = (wide, high, wide, high)
    inside = [min(max(edge, 0), limit) for edge, limit in zip(inside, limits, strict=True)]
    target = (left + inside[0], top + inside[1], left + inside[2], top + inside[3])

    sam = load_parts(Base({"bases": "shipped"}), dtype=torch.float32).segmenter.eval()
    pixels, _ = for_segmenter(picture, 128)
    guide = None
    for level, box in zip(found.targets[0].levels, (place, target), strict=True):
        scale = (128 / 192, 85 / 128) * 2  # 128 x 85 pixels of the square
        corners = torch.tensor([[[edge * share for edge, share in zip(box, scale, strict=True)]]])
        with torch.no_grad():
            own = SamModel.forward(
                sam, pixels[None], input_boxes=corners, input_masks=guide, multimask_output=False
            ).pred_masks[:, 0]
        assert np.abs(level.low_res - own[0, 0].numpy()).max() < 1e-3
        guide = own


def test_a_segmenter_that_squashes_pictures_gets_the_box_where_it_lies(taught: Path, tmp_path: Path) -> None:
    """From the answer's digits to SAM 2's own forward and post-processing, by hand."""
    sam = tiny_segmenter("sam2")
    sam.save_pretrained(tmp_path / "sam2")
    picture = SCENE[0].image.resize((192, 128))
    file = recipe(tmp_path, taught, segmenter=str(tmp_path / "sam2"), levels=1)
    (found,) = cores.load(file, device="cpu").segment(picture, [PART.query])
    (said,) = re.findall(r"\[([\d, ]+)\]", found.answer)
    x1, y1, x2, y2 = (int(number) / 99 * 192 for number in said.split(","))
    place = (max(x1, 0), max(y1 - 32, 0), min(x2, 192), min(y2 - 32, 128))  # the square has 32 rows more above
    corners = torch.tensor([[[edge * share for edge, share in zip(place, (128 / 192, 1) * 2, strict=True)]]])
    pixels, _ = for_segmenter(picture, 128, "sam2")
    with torch.no_grad():
        own = Sam2Model.forward(sam, pixels[None], input_boxes=corners, multimask_output=False).pred_masks[:, 0]
    (level,) = found.targets[0].levels
    assert np.abs(level.low_res - own[0, 0].numpy()).max() < 1e-3 * float(own.abs().max())
    whole = torch.nn.functional.interpolate(own, (128, 192), mode="bilinear", align_corners=False)[0, 0]
    assert np.abs(level.logits - whole.numpy()).max() < 1e-3 * float(own.abs().max())


def test_predict_writes_every_level(taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    SCENE[0].image.save(tmp_path / "scene.png")
    query, out = PART.query, tmp_path / "out"
    model = recipe(tmp_path, taught)
    assert main(["predict", str(tmp_path / "scene.png"), query, "--model", str(model), "--out", str(out)]) == 0
    assert "segmented" in capsys.readouterr().out
    names = {"scene.overlay.png", "scene.json", "scene.1.location.png", "scene.1.target.png"}
    assert {file.name for file in out.iterdir()} == names
    record = json.loads((out / "scene.json").read_text())
    assert " -> " in record["answer"]
    for level in record["targets"][0]["levels"]:
        drawn = np.asarray(Image.open(out / f"scene.1.{level['name']}.png"))
        assert np.array_equal(drawn > 0, decode(level["mask"]))


def test_label_writes_what_was_found(taught: Path, tmp_path: Path) -> None:
    SCENE[0].image.save(tmp_path / "scene.png")
    model, out = f"words:{taught}+shipped", tmp_path / "labels"
    arguments = ["label", str(tmp_path / "scene.png"), PART.query, "--model", model, "--out", str(out)]
    assert main([*arguments, "--tolerance", "0"]) == 0
    (turn,) = (c.turns[0] for c in open_source("labelme:labels", tmp_path)[0].conversations)
    (found,) = cores.load(model).segment(tmp_path / "scene.png", [PART.query])
    assert found.mask.any()
    assert np.array_equal(decode(turn.targets[0].mask), found.mask)


def test_eval_scores_generated_answers(taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scenes(SCENE, tmp_path / "data", progress=False)
    source, out = f"manifest:{tmp_path / 'data' / 'val.jsonl'}", tmp_path / "scored"
    assert main(["eval", f"words:{taught}+shipped", "--on", source, "--out", str(out), "--quiet"]) == 0
    (found,) = json.loads((out / "results.json").read_text())["sources"].values()
    assert found["generated"]["giou"] > 0.4
    assert found["generated"]["answers"]["refusal"] == 1
    assert found["generated"]["sanity"]["questions"] == 0
    assert "teacher-forced" not in found
    lines = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    assert {tuple(level) for line in lines for level in line["levels"]} == {("location", "target")}


def test_a_lesson_that_is_done_is_not_given_again(taught: Path) -> None:
    before = (taught / "model.safetensors").read_bytes()
    assert words.teach(taught.parent, SCENE, STEPS) == taught
    assert (taught / "model.safetensors").read_bytes() == before


def test_a_segmenter_may_be_the_one_of_a_trained_model(taught: Path) -> None:
    model = cores.load(f"words:{taught}+{taught}", device="cpu")
    assert repr(model).startswith("CoresInWords(cores + sam")
    own, base = model.chain.segmenter.state_dict(), load_parts(Base({"bases": "shipped"})).segmenter.state_dict()
    assert any(not torch.equal(own[name], base[name]) for name in own)


@pytest.mark.parametrize("family", sorted(CONFIGS.keys() - {"edgetam"}))
def test_any_segmenter_draws_the_boxes(family: str, taught: Path, tmp_path: Path) -> None:
    """Padded or squashed: what the family's own forward makes of the box, at a picture that is no square."""
    segmenter = tiny_segmenter(family)
    segmenter.save_pretrained(tmp_path)
    picture = SCENE[0].image.resize((192, 128))
    chain = cores.load(f"words:{taught}+{tmp_path}", device="cpu").chain
    seen = chain.encode_image(picture)
    place = Place("it", (20.0, 30.0, 120.0, 110.0), (Pointed((40.0, 50.0, 70.0, 90.0), "it"),))
    with torch.no_grad():
        coarse, fine = chain.masks_of(seen, [place])
    side, fit = segmenter.image_size, segmenter.fit
    across, down = (side / 192, side / 128) if fit == "squash" else (side / 192, round(side * 128 / 192) / 128)
    pixels, resized = for_segmenter(picture, side, family)
    assert seen.resized == resized
    assert chain.full_size(seen, fine[None])[0].mask.shape == (128, 192)
    guide = None
    for drawn, box in ((coarse, place.location), (fine, place.targets[0].box)):
        corners = torch.tensor([[edge * share for edge, share in zip(box, (across, down) * 2, strict=True)]])
        with torch.no_grad():
            tokens, index = segmenter.embed_boxes(corners), torch.zeros(1, dtype=torch.long)
            own = segmenter.decode(segmenter.encode(pixels[None]), tokens, index, guide)
        assert float((drawn - own[0]).abs().max()) < 1e-4
        guide = own
