"""Whoever answers questions about a picture with masks: what inference and evaluation need of it, and no more.

Legend: chains = targets of one answer, (h, w) = low-res masks, (H, W) = the picture's own size in pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Hashable, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from PIL import Image
from torch import Tensor

from cores.asking.answers import Answered
from cores.asking.confidence import Confidence
from cores.asking.full_size import FullSize
from cores.data.sample import Form, Turn
from cores.errors import UserError
from cores.geometry import Fit, Size
from cores.modeling.sampling import Sampling
from cores.processing.reading import Reading

Query = tuple[str, Form]  # a query, and how it is put into words
Follow = Callable[[int, int, Sequence[int]], bool]  # numbers of image and query, ids said so far: shall it go on?


class Looked(Protocol):
    """A picture that was looked at. `size` (H, W); `resized` (h, w) inside the segmenter's square."""

    @property
    def size(self) -> Size: ...

    @property
    def resized(self) -> Size: ...


I = TypeVar("I", bound=Looked)  # noqa: E741


class Answerer(ABC, Generic[I]):
    """Answers questions about pictures with masks.

    `levels`: names, coarse to fine; `canvas`: side of the segmenter's square, in pixels; `fit`: how a picture is put
    into it; `has_tokens`: does it answer in grounding tokens, which can be forced and exchanged? `confidence`: of its
    answers, None where they have no signals for one but the masks' own.
    """

    has_tokens = False
    confidence: Confidence | None = None
    levels: Sequence[str]
    canvas: int
    fit: Fit

    @abstractmethod
    def encode_image(self, image: Path | str | Image.Image) -> I:
        """Look at an image once. Raises DataError when it cannot be read."""

    def encode_images(self, images: Sequence[Path | str | Image.Image]) -> list[I]:
        """Look at several images once, in their order. Raises DataError when one cannot be read."""
        return [self.encode_image(image) for image in images]

    @abstractmethod
    def check(self, query: str, form: Form) -> None:
        """Raises UserError for a query that cannot be asked."""

    @abstractmethod
    def generate(self, image: I, queries: Sequence[Query]) -> Sequence[Answered]:
        """Its own answers to the queries, in their order."""

    def generate_batch(
        self, images: Sequence[I], queries: Sequence[Sequence[Query]], follow: Follow | None = None
    ) -> list[list[Answered]]:
        """`generate` for several images, each with its own queries (none is allowed), in their order.

        `follow`: is told how far an answer is, before its first token and after each pass of the language model, and
        ends it there by saying False: it is cut. Who answers in one piece tells nothing.
        """
        return [list(self.generate(*one)) for one in zip(images, queries, strict=True)]

    def draw_batch(
        self,
        images: Sequence[I],
        queries: Sequence[Sequence[Query]],
        keys: Sequence[Sequence[Hashable]],
        samples: int,
        sampling: Sampling,
        follow: Follow | None = None,
    ) -> list[list[list[Answered]]]:
        """So many answers to each query, drawn by chance. Raises UserError of one whose answers are not drawn."""
        raise UserError("samples: answers in words are not drawn: leave it out, or set `votes` (docs/words.md)")

    def stream(self, image: I, query: Query, follow: Follow | None = None) -> Generator[Sequence[int], None, Answered]:
        """`generate` of one query, step by step: gives the ids said so far after each pass, and returns the answer.

        `follow` as in `generate_batch`. Closing it ends the work. Who answers in one piece gives nothing before it.
        """
        yield from ()
        return self.generate(image, [query])[0]

    def teacher_force(
        self, image: I, queries: Sequence[Query], answers: Sequence[Turn | str | None]
    ) -> list[Answered]:
        """The same with given answers. Raises UserError of one that has no tokens to be given."""
        raise UserError("an answer in words cannot be given beforehand: it has no grounding tokens; ask for generated")

    def teacher_force_batch(
        self,
        images: Sequence[I],
        queries: Sequence[Sequence[Query]],
        answers: Sequence[Sequence[Turn | str | None]],
    ) -> list[list[Answered]]:
        """`teacher_force` for several images, each with its own queries and answers, in their order."""
        return [list(self.teacher_force(*one)) for one in zip(images, queries, answers, strict=True)]

    def as_question(self, phrase: str) -> str:
        """A phrase as a question that an explanation can be asked of; itself, for who puts every query into words."""
        return phrase

    @abstractmethod
    def read(self, answer: Answered) -> Reading:
        """What an answer says."""

    def text_of(self, ids: Sequence[int]) -> str:
        """The text of an answer's ids, as far as they are said. Of those alone who tell how far they are."""
        raise NotImplementedError

    def thought_of(self, answer: Answered) -> str:
        """The free reasoning before an answer, without its marks; empty where there is none."""
        return ""

    def full_size(self, image: I, low_res: Tensor, threshold: float = 0.5) -> list[FullSize]:
        """The masks at the picture's own size of low-res logits (masks, h, w). `threshold`: see `FullSize`."""
        return [FullSize.of(one, self.canvas, image.resized, image.size, self.fit, threshold) for one in low_res]
