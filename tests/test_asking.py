"""The asking room: passes bound the memory and change nothing; what is asked and trained are the same words."""

import gc
import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from learned import learned, sample, save
from PIL import Image
from tiny import tiny_config, tiny_model

from cores.asking.answerer import Query
from cores.asking.answers import Answered
from cores.asking.asker import Asker
from cores.asking.image_encoding import EncodedImage
from cores.asking.prefixes import Prefixes
from cores.checkpoints.load import load
from cores.checkpoints.save import save as save_model
from cores.data.sources import open_source
from cores.errors import CheckpointError, UserError
from cores.modeling.generation_config import FILE, MAX_NEW_TOKENS, read_max_new_tokens
from cores.prompts.forms import form_of

QUERIES: list[Query] = [
    ("kettle", "phrase"),
    ("kettle and cup", "phrase"),
    ("knife", "phrase"),
    ("how many cup are there?", "raw"),
    ("cup", "phrase"),
]


def picture() -> Image.Image:
    found = sample(0).image
    assert isinstance(found, Image.Image)
    return found


@pytest.mark.parametrize("given", [False, True], ids=["generated", "teacher-forced"])
def test_passes_bound_what_is_computed_at_once_and_change_no_answer(given: bool) -> None:
    model, processor = deepcopy(learned()[0]), learned()[1]
    questions: list[tuple[int, int]] = []  # and tokens, of each call
    masks: list[int] = []
    model.mllm.model.language_model.register_forward_hook(
        lambda module, args, kwargs, output: questions.append(kwargs["inputs_embeds"].shape[:2]), with_kwargs=True
    )
    model.segmenter.mask_decoder.register_forward_hook(lambda module, args, output: masks.append(len(args[2])))
    found = {}
    for size in (16, 2, 1):
        asker = Asker(model, processor, questions_per_pass=size)
        encoded = asker.encode_image(picture())
        questions.clear()
        masks.clear()
        if given:
            found[size] = asker.teacher_force(encoded, QUERIES, [None] * len(QUERIES))
        else:
            found[size] = asker.generate(encoded, QUERIES)
        prefix = (1, len(processor.prefix(0, encoded.picture.key)))
        assert (questions[0], questions.count(prefix)) == (prefix, 1), "the prefix is read once"
        assert max(count for count, _ in questions) == min(size, len(QUERIES))
        assert max(masks) == min(size, sum(len(one.chains) for one in found[size]))
    for size in (2, 1):
        for one, other in zip(found[16], found[size], strict=True):
            assert (one.ids, one.chains, one.cut) == (other.ids, other.chains, other.cut)
            assert one.score == pytest.approx(other.score, abs=1e-5)
            torch.testing.assert_close(one.tokens, other.tokens, rtol=1e-4, atol=1e-4)
            for level, same in zip(one.low_res_logits, other.low_res_logits, strict=True):
                torch.testing.assert_close(level, same, rtol=1e-4, atol=1e-3)


def test_a_prefix_is_read_once_a_picture() -> None:
    """By askers that share what was read; a picture's own goes with it, and another prompt is another prefix."""
    model, processor = deepcopy(learned()[0]), deepcopy(learned()[1])
    read: list[int] = []
    model.mllm.model.vision_tower.register_forward_hook(lambda module, args, output: read.append(1))
    prefixes = Prefixes(most=2)

    def ask(encoded: EncodedImage, asks: int = 1) -> list[Answered]:
        asker = Asker(model, processor, max_new_tokens=8, prefixes=prefixes)
        forced = asker.teacher_force(encoded, QUERIES[:asks], [None] * asks)
        return [*forced, *asker.generate(encoded, QUERIES[:asks])]

    encoded = Asker(model, processor).encode_image(picture())
    first = ask(encoded, 2)
    again = ask(encoded, 2)
    assert len(read) == 1
    for one, other in zip(first, again, strict=True):
        assert one.ids == other.ids
        for level, same in zip(one.low_res_logits, other.low_res_logits, strict=True):
            torch.testing.assert_close(level, same, rtol=0, atol=0)
    others = [Asker(model, processor).encode_image(picture()) for _ in range(2)]
    for other in others:
        ask(other)
    assert (len(read), len(prefixes.kept)) == (3, 2)
    ask(encoded)
    assert (len(read), len(prefixes.kept)) == (4, 2), "the one that was asked about longest ago was given up"
    del encoded
    gc.collect()
    assert len(prefixes.kept) == 1
    assert not deepcopy(prefixes).kept
    processor.prompt = replace(processor.prompt, exemplars="fixed")
    ask(others[1])
    assert len(read) == 5


def test_masks_of_one_answer_are_bounded_too() -> None:
    model, processor = learned()
    many = "it is [LOC] [SEG]. " * 5
    found = []
    for size in (16, 2):
        asker = Asker(model, processor, questions_per_pass=size)
        found += asker.teacher_force(asker.encode_image(picture()), QUERIES[:1], [many])
    assert [len(one.chains) for one in found] == [5, 5]
    torch.testing.assert_close(found[0].low_res_logits, found[1].low_res_logits, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["max_new_tokens", "questions_per_pass"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "many", True])
def test_numbers_that_bound_nothing_are_refused(name: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"{name}: found .*expected a whole number from 1"):
        Asker(*learned(), **{name: value})  # type: ignore[arg-type]


def test_a_checkpoint_says_how_long_its_answers_get(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    assert json.loads((folder / FILE).read_text())["max_new_tokens"] == MAX_NEW_TOKENS
    model, processor = load(folder, "cpu")
    (whole,) = Asker(model, processor).generate(Asker(model, processor).encode_image(picture()), QUERIES[:1])
    stored = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps(stored | {"max_new_tokens": 3}))
    model, processor = load(folder, "cpu")
    asker = Asker(model, processor)
    (cut,) = asker.generate(asker.encode_image(picture()), QUERIES[:1])
    assert (whole.cut, cut.cut, cut.ids) == (False, True, whole.ids[:3])
    again = save_model(model, processor, tmp_path / "again")  # and goes on to say it
    assert load(again, "cpu")[0].max_new_tokens == 3
    (again / FILE).unlink()
    assert read_max_new_tokens(again) == MAX_NEW_TOKENS


@pytest.mark.parametrize("text", ["{", "[]", '{"max_new_tokens": 0}', '{"max_new_tokens": "many"}'])
def test_a_generation_config_that_cannot_be_used_is_named(tmp_path: Path, text: str) -> None:
    tiny_model(tiny_config()).save_pretrained(tmp_path)
    (tmp_path / FILE).write_text(text)
    with pytest.raises(CheckpointError, match=FILE):
        read_max_new_tokens(tmp_path)


@pytest.mark.parametrize(
    ("query", "form"),
    [
        ("the red kettle on the left", "phrase"),
        ("A cup", "phrase"),
        ("the thing you would hold to pour", "sentence"),
        ("Where is the cup?", "sentence"),
        ("kettle.", "sentence"),
        ("箱子", "phrase"),
    ],
)
def test_a_name_is_told_from_a_sentence(query: str, form: str) -> None:
    assert form_of(query) == form


TEXTS = ["the part you hold to pour", "the red kettle", "Cup", "Where is it?", "show me the handle"]


@pytest.mark.parametrize("kind", ["manifest", "coco", "labelme"])
def test_what_is_trained_and_what_is_asked_are_the_same_ids(tmp_path: Path, kind: str) -> None:
    """A user's own texts, in each of the formats that does not say whether they are sentences."""
    processor = learned()[1]
    picture().save(tmp_path / "x.png")
    box = [[4, 4], [23, 4], [23, 23], [4, 23]]
    flat = [[number for point in box for number in point]]
    height, width = picture().height, picture().width
    if kind == "manifest":
        lines = [json.dumps({"image": "x.png", "query": text, "targets": [{"mask": flat}]}) for text in TEXTS]
        (tmp_path / "x.jsonl").write_text("\n".join(lines))
        source = open_source(f"manifest:{tmp_path / 'x.jsonl'}", None)
    elif kind == "coco":
        image = {"id": 1, "file_name": "x.png", "height": height, "width": width}
        common = {"image_id": 1, "category_id": 1, "segmentation": flat, "area": 361, "bbox": [4, 4, 19, 19]}
        annotations = [{**common, "id": n, "iscrowd": 0, "caption": text} for n, text in enumerate(TEXTS, 1)]
        whole = {"images": [image], "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
        (tmp_path / "x.json").write_text(json.dumps(whole))
        source = open_source(f"coco:{tmp_path / 'x.json'}", None)
    else:
        shapes = [{"label": text, "points": box, "shape_type": "polygon"} for text in TEXTS]
        whole = {"imagePath": "x.png", "imageHeight": height, "imageWidth": width, "shapes": shapes}
        (tmp_path / "x.json").write_text(json.dumps(whole))
        source = open_source(f"labelme:{tmp_path}", None)
    trained = [turn for talk in source[0].conversations for turn in talk.turns]
    for turn, text in zip(trained, TEXTS, strict=True):
        asked = processor.question(text.lower() if kind == "labelme" else text, form_of(text)).tolist()
        batch = processor.collate([sample_of(turn)], 0, 0, [0], mode="val")
        ids = batch["input_ids"][0].tolist()
        start = len(processor.prefix(0, processor.picture(picture()).key))
        assert ids[start : start + len(asked)] == asked


def sample_of(turn):  # type: ignore[no-untyped-def]
    from dataclasses import replace

    from cores.data.sample import Conversation

    return replace(sample(0), conversations=(Conversation((turn,)),), meta={})


def test_a_large_mask_in_bands_is_the_same_mask() -> None:
    from cores.geometry import restore, restore_bands

    low_res = torch.randn(16, 16)
    whole = restore(low_res[None], 64, (48, 64), (301, 401), "pad")[0]
    for pixels in (1, 1000, 10**9):
        bands = list(restore_bands(low_res, 64, (48, 64), (301, 401), "pad", pixels))
        assert len(bands) == {1: 301, 1000: 151, 10**9: 1}[pixels]
        np.testing.assert_allclose(torch.cat(bands), whole, rtol=1e-5, atol=1e-5)
