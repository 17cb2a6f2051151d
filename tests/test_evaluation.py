"""The evaluator on a model that has learned two pictures by heart: every figure against what is known."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learned import SIZE, learned, mask, sample
from PIL import Image

from cores import masks
from cores.data.sample import Conversation, Sample, Target, Turn
from cores.errors import DataError, UserError
from cores.evaluation import result_files
from cores.evaluation.evaluator import evaluate
from cores.evaluation.report import Chapter
from cores.evaluation.result import Result, size_bin
from cores.evaluation.sanity import pairs
from cores.inference.facade import Cores
from cores.masks import Mask, encode


def asked(picture: int, *turns: Turn, ignore: Mask | None = None) -> Sample:
    """A learned picture with other questions, or other truths, than it was learned with."""
    conversations = tuple(Conversation((turn,)) for turn in turns)
    ignored = None if ignore is None else encode(ignore)
    return replace(sample(picture), conversations=conversations, ignore=ignored, meta={})


def target(found: Mask) -> Target:
    return Target(encode(found))


def run(*samples: Sample, **kwargs: Any) -> Result:
    return evaluate(*learned(), samples, progress=False, **kwargs)


def flat(figures: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Every figure by its path."""
    found: dict[str, float] = {}
    for name, value in figures.items():
        found |= flat(value, f"{prefix}{name}/") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def test_what_was_learned_scores_in_both_modes_and_text_is_not_asked() -> None:
    result = run(sample(0), sample(1))
    assert (result.images, result.questions) == (2, 8)
    for mode in ("generated", "teacher-forced"):
        score = result.scores[mode].compute()
        assert score["masks"] == 8  # of each picture two alone, and two in one answer
        assert score["giou"] > 0.9
        assert score["p@0.9"] > 0.8
        assert {name: kind["masks"] for name, kind in score["kinds"].items()}["both"] == 4
        assert sum(found["masks"] for found in score["sizes"].values()) == 8
    answers = result.scores["generated"].compute()["answers"]
    assert (answers["absent"], answers["refusal"], answers["n_acc"]) == (2, 1.0, 1.0)
    assert (answers["present"], answers["false_refusal"], answers["t_acc"]) == (6, 0.0, 1.0)
    assert result.scores["teacher-forced"].answers.absent == 0  # a given answer cannot refuse


def test_figures_are_those_of_the_masks_that_a_user_gets() -> None:
    truth = np.roll(mask(0, "kettle"), 5, axis=1)
    ignore = np.zeros(SIZE, dtype=bool)
    ignore[:10] = True
    result = run(asked(0, Turn("kettle", targets=(target(truth),)), ignore=ignore), answers=("generated",))
    (found,) = Cores(*learned()).segment(sample(0).image, ["kettle"], form="phrase")
    drawn, wanted = found.mask & ~ignore, truth & ~ignore
    iou = (drawn & wanted).sum() / (drawn | wanted).sum()
    assert 0.3 < iou < 0.9
    assert result.scores["generated"].masks.compute()["giou"] == pytest.approx(iou)
    assert result.scores["generated"].sizes[size_bin(truth.mean())].count == 1


def test_a_missing_chain_counts_nothing_and_one_too_many_is_reported() -> None:
    kettle, cup = target(mask(0, "kettle")), target(mask(0, "cup"))
    result = run(
        asked(0, Turn("kettle", targets=(kettle, cup)), Turn("kettle and cup", targets=(kettle,))),
        answers=("generated",),
        records=True,
    )
    first, second = (record.ious for record in result.records)
    assert first[0] > 0.9
    assert first[1] == 0
    assert len(second) == 1
    answers = result.scores["generated"].compute()["answers"]
    assert (answers["missing_chains"], answers["extra_chains"]) == (1, 1)
    assert result.scores["generated"].masks.count == 3


def test_a_wrong_refusal_and_a_wrong_mask_are_counted_as_such() -> None:
    there = Turn("knife", targets=(target(mask(1, "knife")),))  # the model knows that picture 0 has no knife
    result = run(asked(0, there, Turn("kettle"), Turn("knife")), answers=("generated",), records=True)
    answers = result.scores["generated"].compute()["answers"]
    assert (answers["present"], answers["false_refusal"], answers["t_acc"]) == (1, 1.0, 0.0)
    assert (answers["absent"], answers["refusal"], answers["n_acc"]) == (2, 0.5, 0.5)
    assert result.scores["generated"].masks.compute()["giou"] == 0
    assert [record.iou for record in result.records] == [0, 0, 1]
    assert [record.status for record in result.records] == ["absent", "segmented", "absent"]


def test_swapped_tokens_ruin_a_model_that_uses_them_and_leave_one_that_does_not_as_it_is() -> None:
    model, processor = learned()
    uses = run(sample(0), sample(1)).scores["generated"].sanity.compute()
    assert uses["questions"] == 4  # of each picture the two things alone; both together overlap with each
    assert uses["own_giou"] > 0.9
    assert uses["swapped_giou"] < 0.1 < uses["foreground_giou"] < 0.3
    ignores = deepcopy(model)
    with torch.no_grad():
        ignores.projection[-1].weight.zero_()  # every prompt token is the bias
    score = evaluate(ignores, processor, [sample(0), sample(1)], progress=False).scores["generated"].sanity.compute()
    assert score["own_giou"] == score["swapped_giou"]


def test_without_location_scores_the_same_targets_and_needs_a_second_level() -> None:
    score = run(sample(0), answers=("teacher-forced",)).scores["teacher-forced"]
    assert score.sanity.without_location.count == score.masks.count == 4
    assert score.sanity.without_location.iou < score.masks.iou  # it was learned with the location
    assert run(sample(0), sanity=False).scores["generated"].sanity.without_location.count == 0


def test_pairs_are_disjoint_and_do_not_overlap() -> None:
    left, right, both = np.eye(2, dtype=bool)[:1], np.eye(2, dtype=bool)[1:], np.ones((1, 2), dtype=bool)
    empty = np.zeros((1, 2), dtype=bool)
    assert pairs([left, both, empty, right, right]) == [(0, 3)]
    assert pairs([both, left]) == []


def test_two_ranks_add_up_to_one_run() -> None:
    whole, parts = run(sample(0), sample(1)), run(sample(0)) + run(sample(1))
    assert flat(whole.compute()) == pytest.approx(flat(parts.compute()), nan_ok=True)


def test_an_image_is_encoded_once_and_the_model_comes_back_as_it_was() -> None:
    model, processor = deepcopy(learned()[0]), learned()[1]
    calls: list[int] = []
    model.segmenter.vision_encoder.register_forward_hook(lambda *_: calls.append(1))
    model.train()
    evaluate(model, processor, [sample(0), sample(1)], progress=False)
    assert len(calls) == 2
    assert model.training
    model(**processor.collate([sample(0)], 0, 0, [0])).loss.backward()  # nothing is left in a state without gradients
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("answers", [(), ("guessed",)])
def test_an_unknown_mode_is_refused(answers: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="generated, teacher-forced"):
        run(sample(0), answers=answers)


def test_an_image_without_a_target_counts_as_published_when_answers_are_given() -> None:
    kettle, there = Turn("kettle"), Turn("kettle", targets=(target(mask(0, "kettle")),))
    everything = np.ones(SIZE, dtype=bool)
    drawn = run(asked(0, kettle), answers=("teacher-forced",), records=True)
    score = drawn.scores["teacher-forced"]
    area = masks.decode(drawn.records[0].levels[0]["target"]).sum()
    assert (score.masks.count, score.masks.iou, score.masks.union) == (1, 0.0, area)
    assert (drawn.records[0].ious, drawn.records[0].right_about_presence) == ((0.0,), False)
    assert area > 0
    empty = run(asked(0, kettle, ignore=everything), answers=("teacher-forced",), records=True)
    nothing = empty.scores["teacher-forced"].masks
    assert (nothing.count, nothing.iou, nothing.union) == (1, 1.0, 0)
    assert empty.records[0].right_about_presence
    beside = run(asked(0, there, Turn("knife"))).scores  # something else is there: only refusals count
    assert beside["teacher-forced"].masks.count == beside["generated"].masks.count == 1
    assert run(asked(0, kettle), answers=("generated",)).scores["generated"].masks.count == 0
    assert sum(found.count for found in score.sizes.values()) == 0


def test_a_question_that_cannot_be_asked_is_named_with_its_picture() -> None:
    with pytest.raises(DataError, match=r"^picture-0: question 1: the query is empty \('  '\)"):
        run(replace(asked(0, Turn("kettle"), Turn("  ")), meta={"name": "picture-0"}))


def test_a_score_that_is_no_number_never_reaches_json(tmp_path: Path) -> None:
    result = run(sample(0), answers=("generated",), records=True)
    result.records[:] = [
        replace(record, score=float(score)) for record, score in zip(result.records, ("nan", "-inf"), strict=False)
    ]
    picture = sample(0).image
    assert isinstance(picture, Image.Image)
    result_files.write(tmp_path, {"model": "x"}, [Chapter("one", result, lambda number: picture)])
    json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    lines = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert [json.loads(line, parse_constant=pytest.fail)["score"] for line in lines] == [None, None]
