"""One sample's image before the model, and the questions about it that are scored.

Legend: masks = a flat axis; h, w = a low-res mask; H, W = the picture.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from cores import masks
from cores.asking.answerer import Answerer
from cores.asking.answers import Answered
from cores.asking.asker import Asker
from cores.asking.full_size import FullSize
from cores.data.sample import Sample, Turn
from cores.errors import DataError, UserError
from cores.masks import Mask

Mode = Literal["generated", "teacher-forced"]
MODES: tuple[Mode, ...] = ("generated", "teacher-forced")


@dataclass(frozen=True, slots=True)
class Question:
    """A question that is scored. `number` within its sample; `truth`: the targets' masks (H, W), none when absent."""

    number: int
    turn: Turn
    kind: str | None
    truth: tuple[Mask, ...]


def questions_of(sample: Sample) -> Iterator[Question]:
    """The questions of a sample that have a mask or a refusal as their answer; those that want text have neither.

    Their masks are decoded. Raises DataError when one does not fill its size.
    """
    kinds = sample.meta.get("kinds") or [None] * len(sample.conversations)
    number = 0
    for conversation, kind in zip(sample.conversations, kinds, strict=True):
        for turn in conversation.turns:
            if turn.targets or (turn.form != "raw" and turn.answer is None):
                yield Question(number, turn, kind, tuple(masks.decode(target.mask) for target in turn.targets))
            number += 1


def asked_in(mode: Mode, questions: Sequence[Question]) -> list[Question]:
    """Which of an image's questions are asked in a mode.

    A given answer cannot refuse, so that what is absent is asked in `generated` alone; but of an image without any
    target all questions are asked, for the published validation counts such an image (`train_ds.py`: its mask is
    held against an empty one).
    """
    if mode == "generated" or not any(question.truth for question in questions):
        return list(questions)
    return [question for question in questions if question.truth]


class SampleAsker:
    """Whoever answers, before one sample's image, which it has looked at; everything after that is questions.

    Raises DataError when the picture is of another size than the sample says.
    """

    def __init__(self, asker: Answerer[Any], sample: Sample, image: Any) -> None:
        self.asker, self.sample, self.image = asker, sample, image
        self.ignore = None if sample.ignore is None else masks.decode(sample.ignore)
        if self.image.size != sample.size:
            raise DataError(f"{sample.name}: the picture is {self.image.size} (h, w), its masks are {sample.size}")

    @classmethod
    def look(cls, asker: Answerer[Any], samples: Sequence[Sample]) -> list["SampleAsker"]:
        """One before each sample. Raises DataError when a picture cannot be read or is of another size."""
        images = asker.encode_images([sample.image for sample in samples])
        return [cls(asker, *pair) for pair in zip(samples, images, strict=True)]

    def check(self, questions: Sequence[Question]) -> None:
        """Raises DataError that names a question which cannot be asked."""
        for question in questions:
            try:
                self.asker.check(question.turn.query, question.turn.form)
            except UserError as error:
                raise DataError(f"{self.sample.name}: question {question.number}: {error}") from None

    def ask(self, questions: Sequence[Question], mode: Mode) -> Sequence[Answered]:
        """The answers to the questions, in their order. Raises DataError that names one that cannot be asked."""
        return ask_all([self], [questions], mode)[0]

    def segment(self, tokens: Tensor, use_location: bool = True) -> list[Mask]:
        """The last level's masks (H, W) of prompt tokens (levels, masks, dim), where answers have such."""
        assert isinstance(self.asker, Asker)
        return self.full_size(self.asker.decode(self.image, tokens, use_location)[-1])

    def similarity(self, answer: Answered) -> tuple[dict[str, dict[str, Any]], ...]:
        """What the answer's grounding tokens are like, where answers have such: of each chain by level."""
        assert isinstance(self.asker, Asker)
        maps = self.asker.similarity(self.image, answer)
        return tuple({name: one.to_dict() for name, one in chain.items()} for chain in maps)

    def drawn(self, low_res: Tensor) -> list[FullSize]:
        """Masks at the picture's size, with their scores, of low-res logits (masks, h, w)."""
        return self.asker.full_size(self.image, low_res)

    def full_size(self, low_res: Tensor) -> list[Mask]:
        """The same masks (H, W) alone."""
        return [full.mask for full in self.drawn(low_res)]


def ask_all(
    before: Sequence[SampleAsker], questions: Sequence[Sequence[Question]], mode: Mode
) -> Sequence[Sequence[Answered]]:
    """The answers to the questions about several images, each its own, in one batch. All are before one who answers.

    Raises DataError that names a question which cannot be asked.
    """
    if not before:
        return []
    for one, asked in zip(before, questions, strict=True):
        one.check(asked)
    asker, images = before[0].asker, [one.image for one in before]
    turns = [[question.turn for question in asked] for asked in questions]
    queries = [[(turn.query, turn.form) for turn in own] for own in turns]
    if mode == "generated":
        return asker.generate_batch(images, queries)
    # the chains alone: an explanation comes after them and changes nothing; for what is absent the usual answer
    given = [[replace(turn, answer=None) if turn.targets else None for turn in own] for own in turns]
    return asker.teacher_force_batch(images, queries, given)
