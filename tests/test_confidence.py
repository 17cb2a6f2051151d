"""How sure an answer is: signals that are there, a fit that means what it says, a file that travels with the model."""

import json
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import cores
from cores.asking.asker import Asker
from cores.asking.confidence import FILE, NEAR, Confidence, Fit, calibration_error
from cores.checkpoints.find import shipped
from cores.checkpoints.load import load
from cores.errors import CheckFailed, CheckpointError
from cores.evaluation.evaluator import evaluate_asker
from cores.evaluation.fitting import fit_confidence
from cores.evaluation.result import Record
from cores.inference.facade import Cores
from cores.scenes.source import open_scenes


@cache
def model() -> Cores:
    found = cores.load()
    assert isinstance(found, Cores)
    return found


def test_a_fit_finds_the_numbers_that_made_the_truth_and_is_calibrated() -> None:
    draw = np.random.default_rng(0)
    signals = draw.uniform(0.02, 0.98, (4000, 3))
    logits = np.log(signals / (1 - signals))
    truth = 1 / (1 + np.exp(-(logits @ [0.5, 1.0, -0.3] + 0.7)))
    hits = (draw.uniform(size=len(truth)) < truth).astype(float)  # a fit of shares is one of yes and no
    fit = Fit.of(signals, hits)
    assert np.allclose([*fit.weights, fit.bias], [0.5, 1.0, -0.3, 0.7], atol=0.12)
    assert calibration_error([(fit(one), hit) for one, hit in zip(signals, hits, strict=True)]) < 0.03
    assert np.allclose(Fit.of(signals, truth).weights, [0.5, 1.0, -0.3], atol=1e-2)


def test_signals_of_0_and_1_and_all_alike_give_numbers() -> None:
    for truth in (np.ones(60), np.zeros(60), np.tile([0.0, 1.0], 30)):
        fit = Fit.of(np.tile([[0.0, 1.0, 0.5]], (60, 1)), truth)
        assert abs(fit((0.0, 1.0, 0.5)) - truth.mean()) < 0.05
    assert 0 < Fit((5.0,), 0.0)((0.0,)) < NEAR


def test_the_calibration_error_is_the_distance_of_what_is_said_and_what_is() -> None:
    assert calibration_error([(0.9, 0.9)] * 10 + [(0.1, 0.1)] * 10) == pytest.approx(0)
    assert calibration_error([(0.9, 1.0), (0.9, 0.0)] * 10) == pytest.approx(0.4)
    assert np.isnan(calibration_error([]))


def test_without_a_fit_it_is_the_product_and_an_empty_mask_is_0() -> None:
    plain, fitted = Confidence(), Confidence(Fit((0.1, 0.1, 0.1), 3.0), Fit((1.0,), 0.0))
    assert plain.of_mask((0.9, 0.5, 0.8)) == pytest.approx(0.36)
    assert plain.of_mask((1.7, 0.5, 0.8)) == pytest.approx(0.4)  # the decoder's guess may leave its range
    assert (plain.of_mask((0.9, 0.5, 0.0)), fitted.of_mask((0.9, 0.5, 0.0))) == (0.0, 0.0)
    assert fitted.of_mask((0.9, 0.5, 0.8)) > 0.9
    assert fitted.of_refusal(0.3) == pytest.approx(0.3)


def test_it_lies_beside_the_model_and_nonsense_is_named(tmp_path: Path) -> None:
    found = Confidence(Fit((0.1, 0.2, 0.3), -1.0), None, "scenes")
    found.save(tmp_path)
    assert Confidence.load(tmp_path) == found
    assert Confidence.load(tmp_path / "nothing") == Confidence()
    stored = json.loads((tmp_path / FILE).read_text())
    for wrong in ("{", "[]", "{}", {**stored, "mask": {"weights": [1], "bias": 0}}, {**stored, "mask": 3},
                  {**stored, "mask": {"weights": [1, 2, float("nan")], "bias": 0}}):  # fmt: skip
        (tmp_path / FILE).write_text(wrong if isinstance(wrong, str) else json.dumps(wrong))
        with pytest.raises(CheckpointError, match="confidence.json: cannot be read"):
            Confidence.load(tmp_path)


def test_what_is_there_is_likelier_than_what_is_not() -> None:
    scene = open_scenes("test", n=4)[3]
    turns = [turn for conversation in scene.conversations for turn in conversation.turns]
    found = model().segment(scene.image, [turn.query for turn in turns] + ["an elephant"])
    absent = [one.refusal for one in found if one.status == "absent"]
    there = [one.refusal for one in found if one.status == "segmented"]
    assert min(absent) > max(there)
    confidences = [target.confidence for one in found for target in one.targets]
    assert all(0 < one <= 1 for one in confidences)
    assert found[0].to_dict()["targets"][0]["confidence"] == confidences[0]


def test_the_shipped_model_has_its_own_fit() -> None:
    assert model().confidence == Confidence.load(shipped("cores-tiny"))
    assert "scenes|val" in model().confidence.about


def test_an_evaluation_keeps_signals_that_a_fit_reads() -> None:
    tiny, processor = load(None)
    asker = Asker(tiny, processor, confidence=Confidence())
    source = open_scenes("test", n=12)
    records = evaluate_asker(
        asker, [source[n] for n in range(12)], ("generated",), progress=False, sanity=False, records=True
    ).records
    read = [Record.read(json.loads(json.dumps({**asdict(one), "counts": None}))) for one in records]
    assert [one.signals for one in read] == [one.signals for one in records]
    fitted = fit_confidence(records, "scenes|test")
    known = [pair for one in records if one.truth for pair in zip(one.signals, one.ious, strict=False)]
    errors = [calibration_error([(by.of_mask(one), iou) for one, iou in known]) for by in (fitted, Confidence())]
    assert errors[0] < errors[1]
    with pytest.raises(CheckFailed, match="fitted to 0 masks: 50 are the fewest"):
        fit_confidence([replace(one, signals=()) for one in records], "nothing")
