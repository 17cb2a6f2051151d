"""Asks a model every question of some samples and counts what it answers, in one or both modes of answering."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from cores import masks
from cores.asking.answerer import Answerer
from cores.asking.answers import Answered
from cores.asking.asker import QUESTIONS_PER_PASS, Asker
from cores.asking.full_size import FullSize
from cores.asking.prefixes import Prefixes
from cores.data.sample import Sample
from cores.errors import UserError
from cores.evaluation import sanity as checks
from cores.evaluation.counts import Counts, compared, covered
from cores.evaluation.result import Record, Result, Sanity, Score
from cores.evaluation.sample_asker import MODES, Mode, Question, SampleAsker, ask_all, asked_in, questions_of
from cores.modeling.model import CoresModel
from cores.processing.processor import CoresProcessor


@dataclass
class Judged:
    """What was found about one sample: how many questions it has, what each answer counts, the sanity sums by mode.

    `records`: one an answer, as `counts`; none unless they were asked for.
    """

    number: int
    sample: Sample
    questions: int
    counts: list[Counts] = field(default_factory=list)
    sanity: dict[str, Sanity] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)


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
    pictures: int = 1,
    think: int = 0,
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
        pictures: asked together in one batch; figures may differ by the rounding of fp32.
        think: tokens of free reasoning before a generated answer, at most.

    Returns: a `Result`; its figures are fractions of 1. The model comes back in the mode (train or eval) it was in.
    Raises UserError for an unknown mode or none, and for a number that is not whole from 1; DataError that names the
    picture for a question that cannot be asked, and for a picture that cannot be read.
    """
    kept = Prefixes(pictures)  # a picture's prefix is read once for both ways of answering
    asker = Asker(model, processor, seed, max_new_tokens, questions_per_pass, kept, think=think)
    with evaluating(model):
        return evaluate_asker(
            asker, samples, answers, progress=progress, sanity=sanity, records=records, pictures=pictures
        )


@torch.no_grad()
def evaluate_asker(
    asker: Answerer[Any],
    samples: Iterable[Sample],
    answers: Sequence[Mode] = MODES,
    *,
    progress: bool = True,
    sanity: bool = True,
    records: bool = False,
    pictures: int = 1,
    similarity: bool = False,
    numbers: Iterable[int] | None = None,
    keep: Callable[[list[Judged]], None] | None = None,
) -> Result:
    """As `evaluate`, of whoever answers. Without grounding tokens there is nothing to exchange: no sanity figures.

    `similarity`: records have each grounding token's similarity map, too. `numbers`: of the samples, where they do not
    count from 0. `keep` gets what was found about each batch of samples, with its records if they are asked for; they
    are in no result then, so that memory does not grow.
    Raises UserError for teacher-forced answers of one that has no tokens, and otherwise as `evaluate` does.
    """
    check_answers(asker, answers)
    if type(pictures) is not int or pictures < 1:
        raise UserError(f"pictures: found {pictures!r:.40}, expected a whole number from 1")
    result = Result({mode: Score() for mode in answers})
    total = len(samples) if isinstance(samples, Sized) else None
    numbered = zip(range(10**12) if numbers is None else numbers, samples, strict=False)
    with tqdm(total=total, desc="eval", unit="img", disable=not progress) as bar:
        while batch := list(islice(numbered, pictures)):
            judged = judge(asker, batch, answers, sanity and asker.has_tokens, records, similarity)
            for one in judged:
                add(result, one)
                if keep is None:
                    result.records += one.records
            if keep is not None:
                keep(judged)
            bar.set_postfix_str(f"gIoU {result.scores[answers[0]].masks.compute()['giou']:.3f}", refresh=False)
            bar.update(len(batch))
    return result


def check_answers(asker: Answerer[Any], answers: Sequence[str]) -> None:
    """Raises UserError for an unknown mode, none or one twice, and for teacher-forced ones of what has no tokens."""
    unknown = [mode for mode in answers if mode not in MODES]
    if unknown or not answers or len(set(answers)) < len(answers):
        raise UserError(f"answers: found {unknown or list(answers) or 'none'}; take one or both of {', '.join(MODES)}")
    if "teacher-forced" in answers and not asker.has_tokens:
        raise UserError("answers: a chain in words has no tokens to be teacher-forced: take generated alone")


def add(result: Result, judged: Judged) -> None:
    """Count one sample."""
    result.images += 1
    result.questions += judged.questions
    for counts in judged.counts:
        result.scores[counts.mode].add(counts)
    for mode, found in judged.sanity.items():
        result.scores[mode].sanity += found


def judge(
    asker: Answerer[Any],
    batch: Sequence[tuple[int, Sample]],
    answers: Sequence[Mode],
    sanity: bool,
    records: bool,
    similarity: bool = False,
) -> list[Judged]:
    """Ask all questions about some samples (with their numbers) together, and count the answers.

    Raises DataError as `evaluate` does.
    """
    before = SampleAsker.look(asker, [sample for _, sample in batch])
    questions = [list(questions_of(sample)) for _, sample in batch]
    judged = [Judged(n, sample, len(own)) for (n, sample), own in zip(batch, questions, strict=True)]
    for mode in answers:
        asked = [asked_in(mode, own) for own in questions]
        answered = ask_all(before, asked, mode)
        for into, one, own, found in zip(judged, before, asked, answered, strict=True):
            for question, answer in zip(own, found, strict=True):
                counts, levels = _count(one, question, answer, mode)
                into.counts.append(counts)
                if records:
                    record = _record(one, into.number, question, answer, levels, counts)
                    into.records.append(replace(record, similarity=one.similarity(answer)) if similarity else record)
            if sanity:
                sums = into.sanity[mode] = Sanity()
                checks.swap(one, own, found, sums)
                checks.without_location(one, own, found, sums)
    return judged


def _count(
    asker: SampleAsker, question: Question, answer: Answered, mode: Mode
) -> tuple[Counts, list[list[FullSize]]]:
    """What one answer counts, and its masks (H, W): of each level its chains'."""
    levels = [asker.drawn(logits) for logits in answer.low_res_logits]
    drawn, said = [full.mask for full in levels[-1]], [None not in chain for chain in answer.chains]
    nothing = np.zeros(asker.sample.size, dtype=bool)
    wanted = question.truth or ((nothing,) if mode == "teacher-forced" else ())
    overlaps, matched = compared(drawn, wanted, asker.ignore)
    status = asker.asker.read(answer).status
    locations = [full.mask if whole else None for full, whole in zip(levels[0], said, strict=True)]
    counts = Counts(
        mode=mode,
        kind=kind_of(asker.sample, question),
        targets=len(question.truth),
        chains=len(drawn),
        refused=status == "absent",
        masked=any(mask.any() for mask in drawn),
        right_form=not answer.cut and (status == "absent" or (status == "segmented" and all(said))),
        overlaps=overlaps,
        matched=matched,
        shares=tuple(float(truth.mean()) for truth in question.truth),
        covered=covered(locations, question.truth) if len(levels) > 1 else (),
    )
    return counts, levels


def _record(
    asker: SampleAsker,
    number: int,
    question: Question,
    answer: Answered,
    drawn: list[list[FullSize]],
    counts: Counts,
) -> Record:
    reading, sample, names = asker.asker.read(answer), asker.sample, asker.asker.levels
    levels = tuple(
        {names[k]: masks.encode(drawn[k][i].mask) for k, position in enumerate(chain) if position is not None}
        for i, chain in enumerate(answer.chains)
    )
    return Record(
        sample=number,
        question=question.number,
        image=sample.image.name if isinstance(sample.image, Path) else sample.name,
        mode=counts.mode,
        query=question.turn.query,
        sentence=reading.text,
        status=reading.status,
        score=answer.score,
        cut=answer.cut,
        ious=tuple(found.iou for found in counts.overlaps),
        truth=tuple(target.mask for target in question.turn.targets),
        levels=levels,
        kind=counts.kind,
        counts=counts,
        **_sureness(asker.asker, answer, drawn[-1]),
    )


def _sureness(asker: Answerer[Any], answer: Answered, drawn: Sequence[FullSize]) -> dict[str, Any]:
    """How sure an answer is, and the signals that say so; nothing of one who has none."""
    if asker.confidence is None:
        return {}
    pixels = [full.score for full in drawn]
    signals = tuple(zip(answer.predicted_iou, answer.sure, pixels, strict=True))
    return {
        "signals": signals,
        "confidences": tuple(asker.confidence.of_mask(one) for one in signals),
        "absent": answer.absent,
        "refusal": asker.confidence.of_refusal(answer.absent),
    }


def kind_of(sample: Sample, question: Question) -> str | None:
    """The kind that a question counts under: its source's, or ReasonSeg's own two, by whether the text is a phrase."""
    if question.kind is None and str(sample.meta.get("source", "")).startswith("ReasonSeg|"):
        return "short query" if question.turn.form == "phrase" else "long query"
    return question.kind


@contextmanager
def evaluating(model: CoresModel) -> Iterator[None]:
    """No dropout inside; the model's own mode again after it."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
