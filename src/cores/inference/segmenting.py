"""Questions about a picture to whoever answers with masks, and the answers as plain values."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic

from transformers import PreTrainedTokenizerBase

from cores.asking.answerer import Answerer, I
from cores.asking.answers import Answered
from cores.data.sample import Form
from cores.errors import UserError
from cores.inference.picturelike import Picturelike, as_picture
from cores.inference.segmentation import Level, Segmentation, TargetMask
from cores.masks import encode
from cores.prompts.forms import form_of


class Segmenting(ABC, Generic[I]):
    """`segment`, `encode` and `ask`, whoever answers."""

    @property
    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """What reads the queries."""

    @abstractmethod
    def _asker(self, max_new_tokens: int | None = None) -> Answerer[I]:
        """Who answers. Raises UserError when `max_new_tokens` is no whole number from 1."""

    def segment(
        self,
        image: Picturelike,
        queries: Sequence[str],
        form: Form | None = None,
        max_new_tokens: int | None = None,
    ) -> list[Segmentation]:
        """`encode` and `ask` in one: the answers to all queries about a picture, in their order.

        Args as `ask`. Raises UserError and DataError as both do; for queries and numbers before the picture is read.
        """
        _check(queries)
        self._asker(max_new_tokens)  # what is wrong with a number is said before the picture is looked at
        return self.ask(self.encode(image), queries, form, max_new_tokens)

    def encode(self, image: Picturelike) -> I:
        """Look at a picture once.

        Takes a path, a Pillow image, an array (H, W, 3) or (H, W) of uint8, and a picture file as bytes or as an open
        binary file. Raises DataError when it is missing or no picture; UserError for anything else, such as a URL.
        """
        return self._asker().encode_image(as_picture(image))

    def ask(
        self,
        encoded: I,
        queries: Sequence[str],
        form: Form | None = None,
        max_new_tokens: int | None = None,
    ) -> list[Segmentation]:
        """The answers to all queries about an encoded picture, in their order.

        Args:
            form: how the queries are put into words (see `Turn.form`): `phrase` for a name ("red kettle"), `sentence`
                for a whole question or request, `explain` for one that also wants the reason, `raw` for text as it
                is. None tells phrases from sentences by themselves (`form_of`).
            max_new_tokens: most tokens of an answer; None: the checkpoint's own.

        Raises UserError for an empty query, an unknown form, and less than one token; DataError for a query that holds
        the picture's own marks.
        """
        _check(queries)
        asker = self._asker(max_new_tokens)
        worded = [(query, form_of(query) if form is None else form) for query in queries]
        answered = asker.generate(encoded, worded)
        return [result_of(asker, encoded, *pair) for pair in zip(queries, answered, strict=True)]


def result_of(asker: Answerer[I], encoded: I, query: str, answer: Answered) -> Segmentation:
    """One answer as plain values; large masks are made one at a time and kept as run lengths."""
    reading = asker.read(answer)
    frame = (asker.canvas, encoded.resized, asker.fit)
    targets = []
    for i, (phrase, chain) in enumerate(zip(reading.phrases, answer.chains, strict=True)):
        levels = []
        for name, logits, position in zip(asker.levels, answer.low_res_logits, chain, strict=True):
            if position is not None:
                (full,) = asker.full_size(encoded, logits[i : i + 1])
                low_res = logits[i].float().cpu().numpy()
                levels.append(Level(name, encode(full.mask), full.score, low_res, *frame))
        targets.append(TargetMask(phrase or query, tuple(levels), named=phrase is not None))
    return Segmentation(
        query=query,
        answer=reading.text,
        text=reading.plain,
        status=reading.status,
        size=encoded.size,
        targets=tuple(targets),
        score=answer.score,
        tokens=answer.length,
        cut=answer.cut,
    )


def _check(queries: Sequence[str]) -> None:
    if isinstance(queries, str):
        raise UserError(f"queries: found one string, expected a list of them: [{queries!r}]")
    for number, query in enumerate(queries):
        if not isinstance(query, str) or not query.strip():
            raise UserError(f"queries[{number}] is {query!r:.80}: ask for something in words")
