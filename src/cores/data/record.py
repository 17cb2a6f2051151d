"""All that can be asked about one image, before anything is drawn or decoded; and what is drawn of it.

A source makes records. `Record.sample` is everything in it, nothing random; `Record.draw` is what one training sample
asks. Masks are decoded when asked for: an image of forty classes of which three are drawn costs three.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cores.data.sample import Conversation, Form, Sample, Target, Turn
from cores.masks import RLE

Find = Callable[[], tuple[Target, ...]]


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to ask.

    `text`: what is asked, and `others`: other words for it, drawn with equal chances. `find`: decodes the targets.
    `answer`: see Turn. `category`: the annotation's own name of the class. `is_sentence`: ReasonSeg's own word on the
    text. `kind`: the family that reports count it under. `lost`: why the annotation of something that is there has no
    mask; such a question can be neither trained on nor scored.
    """

    text: str
    find: Find = tuple
    form: Form = "phrase"
    answer: str | None = None
    category: str | None = None
    is_sentence: bool = False
    others: tuple[str, ...] = ()
    kind: str | None = None
    lost: str | None = None

    def conversation(self) -> Conversation:
        """The question and its answer as one turn; its masks are decoded. Raises DataError when one cannot be used."""
        return Conversation((Turn(self.text, self.answer, self.find(), self.form),))


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a source.

    `image`, `size`, `ignore`, `meta` as in Sample. `questions`: each a conversation of its own. `talks`:
    conversations of several turns, without masks (a last question without an answer is no part of a sample).
    `explanations`: what ReasonSeg says about the image beyond masks.
    """

    image: Path | Image.Image
    size: tuple[int, int]
    split: str
    questions: tuple[Question, ...] = ()
    talks: tuple[Conversation, ...] = ()
    ignore: RLE | None = None
    explanations: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)

    def sample(self) -> Sample:
        """Everything: each question once, a question with each explanation, each talk. Nothing random.

        Questions whose mask is lost are left out. Raises DataError when a mask cannot be used.
        """
        kept = self.answerable
        explained = [replace(kept[0], form="explain", answer=text) for text in self.explanations] if kept else []
        return self._sample([*kept, *explained], self.talks)

    @property
    def answerable(self) -> tuple[Question, ...]:
        """The questions whose masks are known, or known to be none."""
        return tuple(question for question in self.questions if question.lost is None)

    def of(self, split: str, meta: dict[str, Any]) -> "Record":
        """The record as one of a split, with this added to its meta."""
        return replace(self, split=split, meta=self.meta | meta)

    def first(self) -> "Record":
        """The record with its first question alone: how the published programs validate on ReasonSeg."""
        return replace(self, questions=self.answerable[:1], explanations=())

    def draw(self, count: int, rng: np.random.Generator, explain: float = 0.1, rename: bool = True) -> Sample:
        """Up to `count` questions, or one talk, without replacement, as the published programs draw them.

        An image with an explanation is asked, with chance `explain`, for that alone; else, with equal chances, for
        masks or for masks and explanation. `explain` -1: never for explanations. `rename`: also use other words.
        Raises DataError when a mask of what is drawn cannot be used.
        """
        questions = self.answerable
        if not questions:
            chosen = rng.permutation(len(self.talks))[:1]
            return self._sample([], tuple(self.talks[i] for i in chosen))
        asked = [questions[i] for i in rng.permutation(len(questions))[:count]]
        if rename:
            names = [(question.text, *question.others) for question in asked]
            asked = [replace(q, text=n[rng.integers(len(n))]) for q, n in zip(asked, names, strict=True)]
        if self.explanations and explain >= 0:
            text = self.explanations[rng.integers(len(self.explanations))]
            if rng.random() < explain:
                asked = [replace(question, form="raw", answer=text, find=tuple) for question in asked]
            elif rng.random() < 0.5:
                asked = [replace(question, form="explain", answer=text) for question in asked]
        return self._sample(asked, ())

    def _sample(self, questions: list[Question], talks: tuple[Conversation, ...]) -> Sample:
        meta = dict(self.meta)
        if any(question.kind for question in questions):
            meta["kinds"] = [question.kind for question in questions]
        said = (Conversation(tuple(turn for turn in talk.turns if turn.answer is not None)) for talk in talks)
        conversations = (*(q.conversation() for q in questions), *(talk for talk in said if talk.turns))
        return Sample(self.image, self.size, conversations, self.ignore, meta)
