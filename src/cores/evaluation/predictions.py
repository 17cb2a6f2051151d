"""Masks that any other program predicted, scored as ours are.

Where images of one name lie in several folders, a row's name has as many of those as tell them apart. Rows of our own
evaluations know which question they answer, whatever its image is called.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from cores import masks
from cores.data.sample import Sample
from cores.errors import DataError
from cores.evaluation.counts import Counts, compared
from cores.evaluation.evaluator import Judged, kind_of
from cores.evaluation.predicted import Asked, Key, Predicted, mask_of, read_predicted
from cores.evaluation.result import Record
from cores.evaluation.sample_asker import Question, questions_of
from cores.masks import Mask


class Predictions:
    """Answers by image and query, and by what our own evaluations asked. Those never asked for are in `unused`.

    Args: `found`: by (image, query) an answer, or its masks alone; `asked`: those of our own evaluations.
    """

    def __init__(self, found: Mapping[Any, Any], asked: Mapping[Asked, tuple[Key, Predicted]] | None = None) -> None:
        self.found = {Key(*key): one if isinstance(one, Predicted) else Predicted(one) for key, one in found.items()}
        self.asked = asked or {}
        self.unused = set(self.found)
        self._taken: dict[Key, Path | str] = {}  # of which picture each was, so far

    @classmethod
    def read(cls, place: Path) -> "Predictions":
        """Of a file or folder. Raises DataError that names the line or file which cannot be used."""
        found: dict[Key, Predicted] = {}
        asked: dict[Asked, tuple[Key, Predicted]] = {}
        for where, key, own, predicted in read_predicted(place):
            if own is None and key in found:
                raise DataError(f"{where}: {key.image} has a prediction for {key.query!r} already")
            if own is not None:
                if own in asked:
                    raise DataError(f"{where}: question {own.question} of sample {own.sample} is answered already")
                asked[own] = key, predicted
            twice = Predicted("several rows have this image and query")  # for who does not ask by number
            found[key] = twice if key in found else predicted
        if not found:
            raise DataError(f"{place}: holds no predictions, expected JSON lines, Parquet or a folder of PNGs")
        return cls(found, asked)

    def of(self, sample: Sample, question: Question, alone: bool, at: Asked | None = None) -> Predicted:
        """The answer to a question; `alone`: the only one about its image; `at`: where an evaluation asks it.

        Raises DataError when there is none, or it is another image's.
        """
        query, names = question.turn.query, [name := sample.name]
        if isinstance(sample.image, Path):
            name, parts = sample.image.name, sample.image.absolute().parts
            names = [PurePath(*parts[first:]).as_posix() for first in range(len(parts))] + [sample.image.stem]
        if at is not None and at in self.asked:
            key, predicted = self.asked[at]
            if key.query == query and key.image in names:
                self.unused.discard(key)
                return predicted
        queries = [query, None] if alone else [query]
        found = next((key for said in queries for one in names if (key := Key(one, said)) in self.found), None)
        if found is None:
            raise DataError(f"{name}: there is no prediction for {query!r}: say masks: [] for none")
        picture = sample.image if isinstance(sample.image, Path) else sample.name
        if (before := self._taken.setdefault(found, picture)) != picture:
            raise DataError(
                f"{picture}: its prediction for {query!r} is that of {before}, too: name both with the folders that "
                f"tell them apart"
            )
        self.unused.discard(found)
        return self.found[found]


def judge_predictions(predictions: Predictions, number: int, sample: Sample, source: str = "") -> Judged:
    """Count the predictions for every question of a sample, as generated answers.

    Args: `number`, `source`: which sample of which source it is. Raises DataError as `of` does, and for what is no
    mask of the picture's size.
    """
    questions = list(questions_of(sample))
    judged = Judged(number, sample, len(questions))
    ignore = None if sample.ignore is None else masks.decode(sample.ignore)
    name = sample.image.name if isinstance(sample.image, Path) else sample.name
    for question in questions:
        answer = predictions.of(sample, question, len(questions) == 1, Asked(source, number, question.number))
        if isinstance(answer.masks, str):
            raise DataError(f"{name}: {question.turn.query!r} could not be answered: {answer.masks}")
        drawn = [mask_of(one, sample.size, name) for one in answer.masks]
        overlaps, matched = compared(drawn, question.truth, ignore)
        status = answer.status or ("segmented" if drawn else "absent")
        counts = Counts(
            mode="generated",
            kind=kind_of(sample, question),
            targets=len(question.truth),
            chains=len(drawn),
            refused=status == "absent",
            masked=any(mask.any() for mask in drawn),
            right_form=answer.right_form,
            overlaps=overlaps,
            matched=matched,
            shares=tuple(float(truth.mean()) for truth in question.truth),
        )
        judged.counts.append(counts)
        judged.records.append(_record(number, name, question, answer, status, drawn, counts))
    return judged


def _record(
    number: int, name: str, question: Question, answer: Predicted, status: str, drawn: Sequence[Mask], counts: Counts
) -> Record:
    return Record(
        sample=number,
        question=question.number,
        image=name,
        mode=counts.mode,
        query=question.turn.query,
        sentence=answer.sentence,
        status=status,
        score=float("nan"),
        cut=answer.cut,
        ious=tuple(found.iou for found in counts.overlaps),
        truth=tuple(target.mask for target in question.turn.targets),
        levels=tuple({"target": masks.encode(mask)} for mask in drawn),
        kind=counts.kind,
        counts=counts,
    )
