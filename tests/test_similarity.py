"""Similarity maps: of the states of a plain forward pass, and lying where the language model saw the picture."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from cores import load, viz
from cores.asking.similarity import SimilarityMap, similarity_map
from cores.cli import main
from cores.errors import DataError, UserError
from cores.inference.options import Options
from cores.processing.stored import ProcessorSizes
from cores.scenes.source import open_scenes

SQUARE = ProcessorSizes(
    mllm_image_size=4, image_tokens=4, segmenter_image_size=8, max_text_tokens=9, image_token_id=1, clip_fit="pad"
)


def test_it_is_of_the_states_of_a_plain_forward_pass() -> None:
    model = load(device="cpu")
    sample = next(s for s in open_scenes("test", n=9) if s.conversations[0].turns[0].targets)
    asker, turn = model._asker(Options()), sample.conversations[0].turns[0]
    encoded = asker.encode_image(sample.image)
    (answer,) = asker.teacher_force(encoded, [(turn.query, turn.form)], [turn])
    found = asker.similarity(encoded, answer)

    one = type(sample)(sample.image, sample.size, sample.conversations[:1], meta=sample.meta)
    batch = model.processor.collate([one], 0, 0, [0], mode="val")
    with torch.no_grad():
        states = model.model(**batch).hidden_states[0]
    patches = states[batch["input_ids"][0] == model.processor.sizes.image_token_id]
    for level, name in enumerate(asker.levels):
        for target, maps in enumerate(found):
            state = states[batch["token_positions"][level, target]]
            expected = F.cosine_similarity(state[None], patches, dim=1)
            torch.testing.assert_close(torch.from_numpy(maps[name].values).flatten(), expected, rtol=1e-4, atol=1e-4)
            assert maps[name].at_size().shape == sample.size


def test_the_facade_gives_a_map_for_each_target_and_level() -> None:
    model, sample = load(device="cpu"), open_scenes("test", n=1)[0]
    encoded = model.encode(sample.image)
    queries = [one.turns[0].query for one in sample.conversations]
    answers, maps = model.ask(encoded, queries), model.similarity(encoded, queries)
    assert [len(one.targets) for one in answers] == [len(one) for one in maps]
    assert any(maps)
    for answer, found in zip(answers, maps, strict=True):
        for target, levels in zip(answer.targets, found, strict=True):
            assert [level.name for level in target.levels] == list(levels)
    with pytest.raises(UserError, match="found one string"):
        model.similarity(encoded, "the cup")


def test_an_evaluation_keeps_and_shows_them_where_asked(tmp_path: Path) -> None:
    command = ["eval", "--on", "scenes|test", "--limit", "1", "--answers", "teacher-forced", "--no-sanity", "--quiet"]
    for name, more in (("with", ["--similarity"]), ("without", [])):
        assert main([*command, "--out", str(tmp_path / name), "--device", "cpu", *more]) == 0
    lines = [
        [json.loads(line) for line in (tmp_path / name / "answers.jsonl").read_text().splitlines()]
        for name in ("with", "without")
    ]
    assert [line.pop("similarity") is not None for line in lines[0]] == [True] * len(lines[0])
    assert lines[0] == lines[1]
    shown = [
        (tmp_path / name / "report.html").read_text().count("location: similarity") for name in ("with", "without")
    ]
    assert (shown[0] > 0, shown[1]) == (True, 0)


@pytest.mark.parametrize(
    ("fit", "box", "seen"),
    [("pad", (-1, 0, 3, 4), (slice(0, 4), slice(0, 2))), ("crop", (0, 1, 2, 3), (slice(1, 3), slice(0, 2)))],
)
def test_it_lies_where_the_language_model_saw_the_picture(fit: str, box: tuple[int, ...], seen: tuple) -> None:
    sizes = replace(SQUARE, clip_fit=fit)
    patches = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 1.0]])
    found = similarity_map(torch.tensor([2.0, 0.0]), patches, sizes, (4, 2))
    np.testing.assert_allclose(found.values, [[1, 0], [-1, 0.5**0.5]], atol=1e-6)
    assert found.box == box
    whole = found.at_size()
    known = np.zeros((4, 2), dtype=bool)
    known[seen] = True
    np.testing.assert_array_equal(np.isfinite(whole), known)
    if fit == "crop":
        np.testing.assert_allclose(whole[1:3], found.values, atol=1e-6)


def test_pieces_of_a_picture_are_no_square() -> None:
    with pytest.raises(UserError, match="not in one square of patches"):
        similarity_map(torch.ones(2), torch.ones(5, 2), SQUARE, (4, 4))


def test_heat_is_most_where_the_value_is_highest() -> None:
    values = np.array([[0.0, 1.0], [np.nan, 0.5]], dtype=np.float32)
    drawn = np.array(viz.heat(Image.new("RGB", (2, 2), "white"), values, (255, 0, 0), 1.0))
    assert drawn[0, 1].tolist() == [255, 0, 0]
    assert drawn[0, 0].tolist() == drawn[1, 0].tolist() == [255, 255, 255]
    with pytest.raises(DataError, match="do not fit"):
        viz.heat(Image.new("RGB", (3, 2)), values)
    assert SimilarityMap(values, (0, 0, 2, 2), (2, 2)).at_size().shape == (2, 2)
