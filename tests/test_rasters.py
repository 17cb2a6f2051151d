"""Large pictures read quickly: within one grey level; drafts of the same size; faults in the same words."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shared import shared
from tiny_run import Squares, tiny_recipe

from cores.data.mixture import Mixture
from cores.data.sample import Conversation, Raster, Sample, Target, Turn
from cores.errors import DataError, RecipeError
from cores.masks import decode, encode
from cores.processing.pixels import CLIP_MEAN, CLIP_STD, for_language, open_picture
from cores.processing.rasters import QuickReader, turned_upright
from cores.processing.scaling import size_of
from cores.processing.segmenter_pixels import for_segmenter
from cores.processing.stored import ProcessorSizes
from cores.segmenter_families import SEGMENTERS
from cores.training.run import train


def sizes(fit="pad", segmenter="sam", **more):
    told = {"mllm_image_size": 32, "image_tokens": 4, "image_token_id": 1, "segmenter_image_size": 64} | more
    return ProcessorSizes(clip_fit=fit, segmenter=segmenter, **told)


def seen(picture, fit="pad", segmenter="sam"):
    """Grey values (3, 64, 64) for the segmenter and (3, 32, 32) for the language model."""
    family = SEGMENTERS[segmenter]
    large, small = for_segmenter(picture, 64, segmenter)[0], for_language(picture, 32, fit)
    scales = ((large, family.mean, family.std, 1), (small, CLIP_MEAN, CLIP_STD, 255))
    return [(x * torch.tensor(s)[:, None, None] + torch.tensor(m)[:, None, None]) * by for x, m, s, by in scales]


def pictures():
    """The hardest for rounding (noise, black and white, a pattern that aliases), as wide, high, just large enough."""
    rng = np.random.default_rng(0)
    for height, width in ((200, 313), (311, 190), (64, 64), (65, 71), (640, 1024)):
        yield rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        yield rng.integers(0, 2, (height, width, 3), dtype=np.uint8) * 255
        pattern = (np.add.outer(np.arange(height), np.arange(width)) // 3 % 2 * 255).astype(np.uint8)
        yield pattern[..., None].repeat(3, 2)


@pytest.mark.parametrize("segmenter", ["sam", "sam2", "sam3_tracker"])
@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_close_pixels_are_within_one_grey_level(fit, segmenter):
    for values in pictures():
        raster = Raster(values, values.shape[:2])
        for close, exact in zip(
            seen(raster, fit, segmenter), seen(Image.fromarray(values), fit, segmenter), strict=True
        ):
            assert (close - exact).abs().max() < 1.01


def test_jpegs_are_decoded_to_pillows_pixels(tmp_path):
    base = Image.fromarray(next(pictures()))
    ways = [{}, {"subsampling": 0}, {"progressive": True, "quality": 40}, {"keep_rgb": True}]
    for number, way in enumerate(ways):
        for mode in ("RGB", "L", "CMYK") if "keep_rgb" not in way else ("RGB",):
            file = tmp_path / f"{number}{mode}.jpg"
            base.convert(mode).save(file, **way)
            found = QuickReader(sizes())(file)
            assert isinstance(found, Raster)
            assert np.array_equal(found.values, np.asarray(open_picture(file)))
            assert found.size == (200, 313)
    for file in sorted(shared("samples/photos").glob("*.jpg")):
        found = QuickReader(sizes())(file)
        assert np.array_equal(found.values, np.asarray(open_picture(file)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("draft", [False, True])
def test_exif_turns_rasters_as_it_turns_pictures(orientation, draft, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = Image.fromarray(next(pictures())).resize((8, 6)).resize((640, 480), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    expected = open_picture(tmp_path / "turned.jpg")
    found = QuickReader(sizes(), draft)(tmp_path / "turned.jpg")
    assert size_of(found) == size_of(expected)
    if draft:
        rows, columns = (length // 4 for length in size_of(expected))  # 640 / 64 is 10 times too many
        assert found.values.shape[:2] == (rows, columns)
        for drafted, exact in zip(seen(found), seen(expected), strict=True):
            assert (drafted - exact).abs().max() < 6  # what a smooth picture differs by, and no turned one does
    else:
        assert np.array_equal(found.values, np.asarray(expected))


def test_a_draft_keeps_more_than_what_is_seen(tmp_path):
    reader = QuickReader(sizes(), draft=True)
    rows_of = {(640, 320): 80, (96, 96): 96, (200, 192): 96, (202, 192): 96, (201, 192): 192}
    for (width, height), rows in rows_of.items():
        Image.new("RGB", (width, height)).save(tmp_path / "x.jpg")
        found = reader(tmp_path / "x.jpg")
        assert isinstance(found, Raster)
        assert (len(found.values), found.size) == (rows, (height, width))
    Image.new("RGB", (640, 320)).save(tmp_path / "x.jpg")
    own = sizes(pixel_rule="qwen2_vl", mllm_image_size=0, image_tokens=0)
    assert QuickReader(own, draft=True)(tmp_path / "x.jpg").values.shape == (320, 640, 3)  # sees all of it


def test_small_pictures_and_other_files_are_read_as_ever(tmp_path):
    small = Image.fromarray(next(pictures())).resize((63, 40))
    small.save(tmp_path / "small.jpg")
    found = QuickReader(sizes(), draft=True)(tmp_path / "small.jpg")
    assert isinstance(found, Image.Image)
    assert found.tobytes() == open_picture(tmp_path / "small.jpg").tobytes()
    large = Image.fromarray(next(pictures()))
    large.save(tmp_path / "large.png")
    for source in (tmp_path / "large.png", large):
        assert np.array_equal(QuickReader(sizes(), draft=True)(source).values, np.asarray(large))


def test_faults_are_told_in_the_same_words(tmp_path, monkeypatch):
    whole = io.BytesIO()
    Image.fromarray(next(pictures())).save(whole, "JPEG")
    content = whole.getvalue()
    files = {"cut.jpg": content[: len(content) // 2], "text.jpg": b"no picture", "empty.jpg": b""}
    for name, held in files.items():
        (tmp_path / name).write_bytes(held)

    def said(read, path: Path) -> str:
        with pytest.raises(DataError) as error:
            read(path)
        return str(error.value)

    for name in (*files, "gone.jpg", "."):
        assert said(QuickReader(sizes()), tmp_path / name) == said(open_picture, tmp_path / name)
    (tmp_path / "bomb.jpg").write_bytes(content)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "too large to be a picture" in said(QuickReader(sizes()), tmp_path / "bomb.jpg")


def test_turning_is_pillows():
    values = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    lies = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # EXIF's number: the Pillow transposition that undoes it
    for orientation, way in lies.items():
        expected = np.asarray(Image.fromarray(values).transpose(way))
        assert np.array_equal(turned_upright(values, orientation), expected)
    assert turned_upright(values, 9) is values


class Photographs(Squares):
    """The squares, as JPEGs eight times as large; `at`: the folder that they are in."""

    at: Path

    def __getitem__(self, i: int) -> Sample:
        sample, file = super().__getitem__(i), self.at / f"{i}.jpg"
        large = sample.image.resize((sample.size[1] * 8, sample.size[0] * 8), Image.Resampling.BICUBIC)
        large.save(file)
        eight = np.ones((8, 8), dtype=bool)
        masks = {turn.query: turn.targets for one in sample.conversations for turn in one.turns}
        turns = [
            Turn(query, targets=tuple(Target(encode(np.kron(decode(target.mask), eight))) for target in targets))
            for query, targets in masks.items()
        ]
        size = (sample.size[0] * 8, sample.size[1] * 8)
        return Sample(file, size, tuple(Conversation((turn,)) for turn in turns))


def test_training_reads_pictures_as_the_recipe_says(tmp_path, monkeypatch):
    """The way is seen in the losses: nearly the same, for nearly the same pixels."""
    monkeypatch.setattr(Photographs, "at", tmp_path, raising=False)
    losses = []
    for pixels in ("exact", "close", "draft"):
        recipe = tiny_recipe(tmp_path, data__pixels=pixels, losses__resolution="low", trainer__max_steps=1)
        train(recipe, tmp_path / pixels, Photographs, device="cpu", quiet=True)
        lines = [json.loads(line) for line in (tmp_path / pixels / "log.jsonl").read_text().splitlines()]
        losses.append(next(line["loss"] for line in lines if "loss" in line))
    exact, close, draft = losses
    assert exact != close != draft
    assert close == pytest.approx(exact, rel=1e-2)
    assert draft == pytest.approx(exact, rel=1e-1)


def test_a_picture_of_another_size_than_its_masks_is_an_error(tmp_path):
    Image.new("RGB", (640, 480)).save(tmp_path / "x.jpg")

    class Wrong(Squares):
        def __getitem__(self, i: int) -> Sample:
            return Sample(tmp_path / "x.jpg", (240, 320), super().__getitem__(i).conversations[:1])

    mixture = Mixture({"one": [Wrong()]}, open_picture=QuickReader(sizes(), draft=True))
    with pytest.raises(DataError, match=r"x\.jpg: is 480 x 640, its header said \(240, 320\)"):
        mixture[0, 0]


def test_features_are_kept_of_exact_pictures_alone(tmp_path):
    with pytest.raises(RecipeError, match=r"data\.features: are of exact pictures; data\.pixels is draft"):
        tiny_recipe(tmp_path, data__features="kept", data__pixels="draft")
