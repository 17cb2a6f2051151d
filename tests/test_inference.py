"""The facade: plain results at the picture's own size, a picture encoded once, answers that depend on nothing else."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from learned import COLORS, SIZE, learned, mask, sample, save
from PIL import Image
from tiny_tokenizer import tiny_processor

import cores
from cores import masks
from cores.errors import DataError, UserError
from cores.inference.facade import Cores
from cores.inference.segmentation import Segmentation


def picture(number: int = 0) -> Image.Image:
    found = sample(number).image
    assert isinstance(found, Image.Image)
    return found


def iou(found: masks.Mask, truth: masks.Mask) -> float:
    return float((found & truth).sum() / (found | truth).sum())


def same(one: Segmentation, two: Segmentation) -> bool:
    """Equal in words and masks, and in numbers up to the order of additions."""
    pairs = zip(one.targets, two.targets, strict=True)
    levels = [(a, b) for s, t in pairs for a, b in zip(s.levels, t.levels, strict=True)]
    return (
        (one.answer, one.status) == (two.answer, two.status)
        and abs(one.score - two.score) < 1e-4
        and all(np.allclose(a.logits, b.logits, atol=1e-3) for a, b in levels)
        and np.array_equal(one.mask, two.mask)
    )


def test_answers_of_every_status() -> None:
    asker = Cores(*learned())
    one, both, absent = asker.segment(picture(), ["the kettle", "kettle and cup", "knife"])
    assert (one.status, one.answer.count("[LOC]"), one.answer.count("[SEG]")) == ("segmented", 1, 1)
    assert iou(one.mask, mask(0, "kettle")) > 0.9
    assert [t.phrase for t in both.targets] == [None, None]
    for target, name in zip(both.targets, ("kettle", "cup"), strict=True):
        assert iou(target.mask, mask(0, name)) > 0.9
    assert (absent.status, absent.targets, absent.mask.any()) == ("absent", (), False)
    assert absent.mask.shape == SIZE
    (text,) = asker.segment(picture(), ["how many cup are there?"], form="raw")
    assert (text.status, text.answer, text.targets) == ("text", "one cup.", ())
    assert -0.5 < text.score < 0


def test_a_target_is_its_last_level_and_the_mask_is_the_union_of_the_targets() -> None:
    (found,) = Cores(*learned()).segment(picture(), ["kettle and cup"])
    assert len(found.targets) == 2
    for target in found.targets:
        assert [level.name for level in target.levels] == ["location", "target"]
        for level in target.levels:
            assert level.logits.shape == level.mask.shape == SIZE
            assert np.array_equal(level.mask, level.logits > 0)
        assert np.array_equal(target.mask, target.levels[-1].mask)
        assert 0.5 < target.score <= 1
    assert np.array_equal(found.mask, found.targets[0].mask | found.targets[1].mask)
    stored = found.to_dict()
    assert np.array_equal(masks.decode(stored["targets"][1]["levels"][0]["mask"]), found.targets[1].levels[0].mask)
    assert found.overlay(picture()).size == picture().size


def test_a_level_that_the_answer_leaves_out_has_no_mask() -> None:
    model, processor = learned()
    asker = Cores(model, processor)
    encoded = asker.encode(picture())
    told = model.answer(
        encoded.pixel_values,
        encoded.features,
        processor.prefix(),
        [processor.question("kettle", "phrase")],
        [processor.answer_ids("it is [SEG].")],
    )
    found = asker._segmentation("kettle", told[0], encoded.picture)
    assert [level.name for level in found.targets[0].levels] == ["target"]


def test_path_picture_and_array_are_the_same_picture(tmp_path: Path) -> None:
    asker = Cores(*learned())
    picture().save(tmp_path / "x.png")
    found = [asker.segment(x, ["cup"])[0] for x in (tmp_path / "x.png", str(tmp_path / "x.png"), picture())]
    found.append(asker.segment(np.asarray(picture()), ["cup"])[0])
    assert all(same(found[0], other) for other in found[1:])


def test_masks_are_of_the_upright_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: turn it clockwise
    picture().transpose(Image.Transpose.ROTATE_90).save(tmp_path / "x.png", exif=exif)
    asker = Cores(*learned())
    assert same(asker.segment(tmp_path / "x.png", ["cup"])[0], asker.segment(picture(), ["cup"])[0])


def test_a_picture_is_encoded_once_and_an_answer_does_not_depend_on_the_other_questions() -> None:
    model, processor = deepcopy(learned()[0]), learned()[1]
    calls: list[int] = []
    model.segmenter.vision_encoder.register_forward_hook(lambda *_: calls.append(1))
    asker = Cores(model, processor)
    encoded = asker.encode(picture())
    together = asker.ask(encoded, ["kettle", "kettle and cup", "knife"])
    alone = [asker.ask(encoded, [query])[0] for query in ("kettle", "kettle and cup", "knife")]
    assert all(same(one, two) for one, two in zip(together, alone, strict=True))
    assert len(calls) == 1


def test_the_seed_draws_the_exemplars_and_nothing_else_does() -> None:
    processor = tiny_processor(exemplars="random")
    scores = {
        seed: [Cores(learned()[0], processor, seed).segment(picture(), ["kettle"])[0].score for _ in range(2)]
        for seed in range(4)
    }
    assert all(one == two for one, two in scores.values())
    assert len({one for one, _ in scores.values()}) > 1


def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path) -> None:
    asker = Cores(*learned())
    for queries, message in (([""], r"queries\[0\] is ''"), (["a", " "], r"queries\[1\]"), ("kettle", "one string")):
        with pytest.raises(UserError, match=message):
            asker.segment(picture(), queries)
    with pytest.raises(UserError, match=r"found \(3, 8, 8\) of float64"):
        asker.encode(np.zeros((3, 8, 8)))
    with pytest.raises(DataError, match="no such file"):
        asker.encode(tmp_path / "missing.png")
    picture().save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:90])
    with pytest.raises(DataError, match=r"cut\.png"):
        asker.encode(tmp_path / "cut.png")
    assert asker.ask(asker.encode(picture()), []) == []


def test_a_loaded_model_answers_as_the_saved_one(tmp_path: Path) -> None:
    loaded = cores.load(save(tmp_path / "model"), device="cpu")
    queries = list(COLORS)
    for one, two in zip(
        loaded.segment(picture(), queries), Cores(*learned()).segment(picture(), queries), strict=True
    ):
        assert same(one, two)
