"""The facade: plain results at the picture's own size, a picture encoded once, answers that depend on nothing else."""

import io
import json
import pickle
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from learned import COLORS, SIZE, learned, mask, sample, save
from PIL import Image
from tiny_tokenizer import tiny_processor

import cores
from cores import masks, viz
from cores.asking.asker import Asker
from cores.checkpoints.runs.learned import add_lora
from cores.errors import DataError, UserError
from cores.inference.facade import Cores
from cores.inference.following import result_of
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
    one, both, absent = asker.segment(picture(), ["kettle", "kettle and cup", "knife"])
    assert (one.status, one.answer.count("[LOC]"), one.answer.count("[SEG]")) == ("segmented", 1, 1)
    assert iou(one.mask, mask(0, "kettle")) > 0.9
    assert [(t.phrase, t.named) for t in both.targets] == [("kettle and cup", False)] * 2  # what was asked
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
    assert np.array_equal(masks.decode(stored["mask"]), found.mask)


def test_a_level_that_the_answer_leaves_out_has_no_mask() -> None:
    cores = Cores(*learned())
    asker, encoded = Asker(*learned()), cores.encode(picture())
    (told,) = asker.teacher_force(encoded, [("kettle", "phrase")], ["it is [SEG]."])
    found = result_of(asker, encoded, "kettle", told)
    assert [level.name for level in found.targets[0].levels] == ["target"]


def test_a_picture_may_come_in_many_ways_and_is_the_same(tmp_path: Path) -> None:
    asker, file = Cores(*learned()), tmp_path / "x.png"
    picture().save(file)
    with file.open("rb") as opened:
        ways = [
            file,
            str(file),
            picture(),
            np.asarray(picture()),
            file.read_bytes(),
            opened,
            io.BytesIO(file.read_bytes()),
        ]
        found = [asker.segment(way, ["cup"])[0] for way in ways]
    assert all(found[0] == other for other in found[1:])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("https://example.org/cup.jpg", "https://example.org/cup.jpg is an address"),
        (Path("https://example.org/cup.jpg"), "is an address"),
        ("s3://bucket/cup.jpg", "is an address"),
        ("data:image/png;base64,iVBOR", "is an address"),
        (b"no picture", "a picture of 10 bytes: is no picture"),
        (io.BytesIO(b""), "an open file: is no picture"),
        (io.StringIO("text"), "open it with 'rb'"),
        (None, "found a NoneType"),
        (7, "found a int"),
        (["a.png"], "found a list"),
        (np.zeros((3, 8, 8)), r"found \(3, 8, 8\) of float64"),
        ("missing.png", "no such file"),
    ],
)
def test_what_is_no_picture_is_named(image: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Cores(*learned()).encode(image)


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


def test_a_batch_is_its_pictures_one_by_one() -> None:
    asker = Cores(*learned())
    pictures, queries = [picture(1), picture(0), picture(1)], [["cup", "knife"], [], ["kettle"]]
    found = asker.segment_batch(pictures, queries)
    assert [len(one) for one in found] == [2, 0, 1]
    for image, own, results in zip(pictures, queries, found, strict=True):
        alone = asker.segment(image, own)
        assert all(same(one, two) for one, two in zip(results, alone, strict=True))
    assert asker.segment_batch([], []) == []
    with pytest.raises(UserError, match="found 1 lists for 2 pictures, expected one a picture"):
        asker.segment_batch(pictures[:2], [["cup"]])
    with pytest.raises(UserError, match="one string"):
        asker.segment_batch(pictures[:1], ["cup"])


def test_plain_decoding_says_the_same() -> None:
    drafted, plain = (Cores(*learned(), drafts=drafts) for drafts in ("call", "off"))
    for one, two in zip(*(asker.segment(picture(), list(COLORS)) for asker in (drafted, plain)), strict=True):
        assert same(one, two)


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
    for queries, message in (
        ([""], r"queries\[0\] is ''"),
        (["a", " "], r"queries\[1\]"),
        ("kettle", "one string"),
        ((q for q in "ab"), "found a generator"),
        (["\ud800"], "no text in UTF-8"),
    ):
        with pytest.raises(UserError, match=message):
            asker.segment(picture(), queries)
    for arguments, message in (
        ({"form": "shout"}, "form: found 'shout', expected one of phrase, sentence, explain, raw"),
        ({"max_new_tokens": 0}, "max_new_tokens: found 0"),
    ):
        with pytest.raises(UserError, match=message):
            asker.segment(picture(), ["cup"], **arguments)
    with pytest.raises(UserError, match="device 'foo': cannot be used here"):
        cores.load(device="foo")
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


def test_results_compare_by_value_and_can_be_pickled_as_the_model_can() -> None:
    asker = Cores(*learned())
    one, other = (asker.segment(picture(), ["kettle and cup"])[0] for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != asker.segment(picture(), ["kettle"])[0]
    level = one.targets[0].levels[0]
    assert level != replace(level, low_res=level.low_res + 1)
    assert pickle.loads(pickle.dumps(one)) == one
    again = pickle.loads(pickle.dumps(asker))
    assert again.segment(picture(), ["kettle and cup"])[0] == one


def test_a_model_with_lora_layers_says_why_it_cannot_be_pickled() -> None:
    model, processor = deepcopy(learned()[0]), learned()[1]
    add_lora(model, r=2, alpha=4, dropout=0.0, targets=["q_proj"])
    with pytest.raises(UserError, match="LoRA layers cannot be pickled: merge them first"):
        pickle.dumps(Cores(model, processor))


def test_a_result_says_itself_in_short_and_its_text_has_no_tokens() -> None:
    asker = Cores(*learned())
    found, absent = asker.segment(picture(), ["kettle", "knife"])
    assert found.text == "it usually appears on. it is."
    assert found.answer == "it usually appears on [LOC]. it is [SEG]."
    assert absent.text == absent.answer
    assert repr(found).startswith("Segmentation('kettle': segmented, 1 target, 1")
    assert repr(found).endswith("% of 40 x 60)")
    assert repr(absent).startswith("Segmentation('knife': absent, there is no such thing")
    assert max(len(repr(one)) for one in (found, absent, found.targets[0], found.targets[0].levels[0], asker)) < 200


def test_an_answer_that_was_cut_says_so() -> None:
    whole, cut = (Cores(*learned()).segment(picture(), ["kettle"], max_new_tokens=n)[0] for n in (None, 5))
    assert (whole.cut, cut.cut) == (False, True)
    assert (whole.to_dict()["cut"], cut.to_dict()["cut"]) == (False, True)
    assert "cut" in repr(cut)


def test_boxes_and_outlines_are_those_of_the_mask() -> None:
    asker = Cores(*learned())
    (found,) = asker.segment(picture(), ["kettle and cup"])
    for target, box, polygons in zip(found.targets, found.boxes, found.polygons, strict=True):
        rows, columns = np.nonzero(target.mask)
        assert box == target.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        points = np.concatenate(polygons)
        assert points.shape[1] == 2
        assert (points.min(0).tolist(), points.max(0).tolist()) == ([box[0], box[1]], [box[2] - 1, box[3] - 1])
    empty = masks.encode(np.zeros(SIZE, dtype=bool))
    nothing = replace(found.targets[0], levels=(replace(found.targets[0].levels[0], rle=empty),))
    assert (nothing.box, nothing.polygons) == (None, [])


def test_an_answer_finds_its_picture_again_where_segment_was_told_it(tmp_path: Path) -> None:
    asker, held, file = Cores(*learned()), picture(1), tmp_path / "0.png"
    picture().save(file)
    ((first,), (second,)) = asker.segment_batch([file, held], [["kettle"], ["cup"]])
    for found, wanted in ((first, picture()), (second, held)):
        assert np.array_equal(np.asarray(found.picture), np.asarray(wanted))
    assert np.array_equal(first.overlay(), first.overlay(file))
    assert "data:image/jpeg" in first._repr_html_()
    (unknown,) = asker.ask(asker.encode(file), ["kettle"])
    assert unknown.picture is None
    assert np.array_equal(np.asarray(unknown.about(file).picture), np.asarray(picture()))


def test_save_writes_what_predict_writes_and_no_score_that_is_no_number(tmp_path: Path) -> None:
    (found,) = Cores(*learned()).segment(picture(), ["kettle"])
    paths = replace(found, score=float("nan")).save(tmp_path / "out", "x", picture())
    assert sorted(path.name for path in paths) == ["x.1.location.png", "x.1.target.png", "x.json", "x.overlay.png"]
    assert sorted(paths) == sorted((tmp_path / "out").iterdir())
    stored = json.loads((tmp_path / "out" / "x.json").read_text(), parse_constant=pytest.fail)
    assert stored["score"] is None
    assert (np.asarray(Image.open(tmp_path / "out" / "x.1.target.png")) > 0).tolist() == found.mask.tolist()
    assert len(found.save(tmp_path / "without", "x")) == 3


def test_an_overlay_shows_picture_query_and_answer(tmp_path: Path) -> None:
    (found,) = Cores(*learned()).segment(picture(), ["kettle"])
    picture().save(tmp_path / "x.png")
    drawn = found.overlay(tmp_path / "x.png")
    assert np.array_equal(drawn, found.overlay(picture()))
    assert drawn.width == picture().width
    plain = viz.overlay(picture(), [found.mask], viz.colors(1))
    assert np.array_equal(np.asarray(drawn)[: picture().height], plain)
    others = [replace(found, query="cup"), replace(found, answer="it is not."), replace(found, cut=True)]
    assert all(not np.array_equal(drawn, other.overlay(picture())) for other in others)
    large = picture().resize((picture().width * 2, picture().height * 2))
    with pytest.raises(DataError, match="the picture is 80 x 120"):
        found.overlay(large)
    small = found.overlay(picture(), longest=30)
    assert small.width == 30


def test_a_named_target_has_the_colour_of_its_name_in_every_overlay() -> None:
    (found,) = Cores(*learned()).segment(picture(), ["kettle and cup"])
    kettle, cup = (
        replace(t, phrase=name, named=True) for t, name in zip(found.targets, ("kettle", "cup"), strict=True)
    )
    colors = {}
    for targets in ((kettle, cup), (cup, kettle), (cup,)):
        drawn = np.asarray(replace(found, targets=targets).overlay(picture()))
        for name, mask_of in (("kettle", kettle.mask), ("cup", cup.mask)):
            edge = mask_of & viz._grown(~mask_of, 1)
            if any(target.phrase == name for target in targets):
                colors.setdefault(name, set()).add(tuple(drawn[: SIZE[0]][edge][0]))
    assert all(len(seen) == 1 for seen in colors.values())
    assert colors["kettle"] != colors["cup"]
