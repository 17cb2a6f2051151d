"""Asks a model every question of some samples and counts what it answers, in one or both modes of answering."""

from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from cores import masks
from cores.asking.answerer import Answerer
from cores.asking.answers import Answered
from cores.asking.asker import QUESTIONS_PER_PASS, Asker
from cores.data.sample import Sample
from cores.errors import UserError
from cores.evaluation import sanity as checks
from cores.evaluation.metrics import MaskMetrics
from cores.evaluation.result import Family, Record, Result, Score, size_bin
from cores.evaluation.sample_asker import MODES, Mode, Question, SampleAsker, asked_in, questions_of
from cores.masks import Mask
from cores.modeling.model import CoresModel
from cores.processing.processor import CoresProcessor


def evaluate(
    model: CoresModel,
    processor: CoresProcessor,
    samples: Iterable[Sample],
    answers: Sequence[Mode] = MODES,
    *,
    seed: int = 0,
    progress: bool = True,
    sanity: bool = True,
    records: bool = False,
    max_new_tokens: int | None = None,
    questions_per_pass: int = QUESTIONS_PER_PASS,
) -> Result:
    """Score a model on samples. Results of several ranks, each with its own samples, add up with `+`.

    Every question with targets is scored target by target, in order, against the answer's chains; a missing chain is
    an empty mask. Questions about something absent count among the refusals and are asked in the mode `generated`
    alone, for a given answer cannot refuse; but an image without any target counts in `teacher-forced` as published:
    its question is given the usual answer, IoU 1 for an empty mask and 0 otherwise, the mask in cIoU's union.
    Questions that want only text are not asked. Each turn is asked by itself.

    Args:
        answers: `generated` lets the model write its answer; `teacher-forced` gives it the answer and reads the
            grounding tokens' states (how the paper's figures were made).
        seed: for in-context exemplars drawn at random; an answer depends on it and on the picture, on nothing else.
        sanity: also run the swap test and the chain without its location level (see `Sanity`).
        records: keep one `Record` a question, with its masks, for the report.
        max_new_tokens: most tokens of a generated answer; None: the checkpoint's own.
        questions_per_pass: most questions that are worked on at once: bounds the memory, changes no figure.

    Returns: a `Result`; its figures are fractions of 1. The model comes back in the mode (train or eval) it was in.
    Raises UserError for an unknown mode or none, and for a number that is not whole from 1; DataError that names the
    picture for a question that cannot be asked, and for a picture that cannot be read.
    """
    asker = Asker(model, processor, seed, max_new_tokens, questions_per_pass)
    with evaluating(model):
        return evaluate_asker(asker, samples, answers, progress=progress, sanity=sanity, records=records)


@torch.no_grad()
def evaluate_asker(
    asker: Answerer[Any],
    samples: Iterable[Sample],
    answers: Sequence[Mode] = MODES,
    *,
    progress: bool = True,
    sanity: bool = True,
    records: bool = False,
) -> Result:
    """As `evaluate`, of whoever answers. Without grounding tokens there is nothing to exchange: no sanity figures.

    Raises UserError for teacher-forced answers of one that has no tokens.
    """
    unknown = [mode for mode in answers if mode not in MODES]
    if unknown or not answers:
        raise UserError(f"answers: found {unknown or 'none'}; take one or both of {', '.join(MODES)}")
    if "teacher-forced" in answers and not asker.has_tokens:
        raise UserError("answers: a chain in words has no tokens to be teacher-forced: take generated alone")
    result = Result({mode: Score() for mode in answers})
    total = len(samples) if isinstance(samples, Sized) else None
    with tqdm(total=total, desc="eval", unit="img", disable=not progress) as bar:
        for number, sample in enumerate(samples):
            questions = list(questions_of(sample))
            (before,) = SampleAsker.look(asker, [sample])
            for mode in answers:
                asked = asked_in(mode, questions)
                answered = before.ask(asked, mode)
                score = result.scores[mode]
                for question, answer in zip(asked, answered, strict=True):
                    drawn = before.full_size(answer.low_res_logits[-1])
                    ious = _count(before, question, answer, drawn, mode, score)
                    if records:
                        result.records.append(_record(before, number, question, answer, drawn, ious, mode))
                if sanity and asker.has_tokens:
                    checks.swap(before, asked, answered, score.sanity)
                    checks.without_location(before, asked, answered, score.sanity)
            result.images += 1
            result.questions += len(questions)
            bar.set_postfix_str(f"gIoU {result.scores[answers[0]].masks.compute()['giou']:.3f}", refresh=False)
            bar.update()
    return result


def _count(
    asker: SampleAsker, question: Question, answer: Answered, drawn: list[Mask], mode: Mode, score: Score
) -> tuple[float, ...]:
    """Count one answer, whose chains drew these masks (H, W); the IoU of each target."""
    family = score.kinds.setdefault(question.kind, Family()) if question.kind else Family()
    nothing = np.zeros(asker.sample.size, dtype=bool)
    wanted = question.truth or ((nothing,) if mode == "teacher-forced" else ())
    ious = []
    for i, truth in enumerate(wanted):
        one = MaskMetrics()
        ious.append(one.update(drawn[i] if i < len(drawn) else nothing, truth, asker.ignore))
        score.masks += one
        family.masks += one
        if question.truth:
            score.sizes[size_bin(float(truth.mean()))] += one
    if mode == "generated":
        refused = asker.asker.read(answer).status == "absent"
        for into in (score.answers, family.answers):
            into.update(len(question.truth), len(drawn), refused, any(mask.any() for mask in drawn))
    return tuple(ious)


def _record(
    asker: SampleAsker,
    number: int,
    question: Question,
    answer: Answered,
    drawn: list[Mask],
    ious: tuple[float, ...],
    mode: Mode,
) -> Record:
    reading, sample, names = asker.asker.read(answer), asker.sample, asker.asker.levels
    steps = [*map(asker.full_size, answer.low_res_logits[:-1]), drawn]  # a level: its chains' masks (H, W)
    levels = tuple(
        {names[k]: masks.encode(steps[k][i]) for k, position in enumerate(chain) if position is not None}
        for i, chain in enumerate(answer.chains)
    )
    return Record(
        sample=number,
        question=question.number,
        image=sample.image.name if isinstance(sample.image, Path) else sample.name,
        mode=mode,
        query=question.turn.query,
        sentence=reading.text,
        status=reading.status,
        score=answer.score,
        cut=answer.cut,
        ious=ious,
        truth=tuple(target.mask for target in question.turn.targets),
        levels=levels,
        kind=question.kind,
    )


@contextmanager
def evaluating(model: CoresModel) -> Iterator[None]:
    """No dropout inside; the model's own mode again after it."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
