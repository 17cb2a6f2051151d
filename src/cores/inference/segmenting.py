"""Questions about a picture to whoever answers with masks, and the answers as plain values."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic

from transformers import PreTrainedTokenizerBase

from cores.asking.answerer import Answerer, I, Query
from cores.asking.answers import Answered, passes
from cores.data.sample import Form
from cores.errors import UserError
from cores.inference.picturelike import Picturelike, as_picture
from cores.inference.segmentation import Level, Segmentation, TargetMask
from cores.masks import encode
from cores.prompts.forms import form_of

PICTURES_AT_ONCE = 16  # of a batch, whose features stand in memory together: 0.02 GB each for SAM 2 in 32 bits


class Segmenting(ABC, Generic[I]):
    """`segment`, `segment_batch`, `encode` and `ask`, whoever answers."""

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

    def segment_batch(
        self,
        images: Sequence[Picturelike],
        queries: Sequence[Sequence[str]],
        form: Form | None = None,
        max_new_tokens: int | None = None,
    ) -> list[list[Segmentation]]:
        """`segment` for several pictures, each with its own queries (none is allowed): answers in the same lists.

        Pictures and questions are worked on together, which is faster than one after the other and says the same;
        masks differ by rounding. Raises as `segment` does, and UserError when there are not as many lists of queries
        as pictures; for queries and numbers before a picture is read.
        """
        if len(images) != len(queries):
            raise UserError(f"queries: found {len(queries)} lists for {len(images)} pictures, expected one a picture")
        for own in queries:
            _check(own)
        asker, found = self._asker(max_new_tokens), []
        for some in passes(len(images), PICTURES_AT_ONCE):
            encoded = asker.encode_images([as_picture(image) for image in images[some]])
            answered = asker.generate_batch(encoded, [worded(own, form) for own in queries[some]])
            for image, own, answers in zip(encoded, queries[some], answered, strict=True):
                found.append([result_of(asker, image, *pair) for pair in zip(own, answers, strict=True)])
        return found

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
        asker, asked = self._asker(max_new_tokens), worded(queries, form)
        answered = asker.generate(encoded, asked)
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


def worded(queries: Sequence[str], form: Form | None) -> list[Query]:
    """Each query with the form that it is put into. Raises UserError for what is no list of queries."""
    _check(queries)
    return [(query, form_of(query) if form is None else form) for query in queries]


def _check(queries: Sequence[str]) -> None:
    if isinstance(queries, str):
        raise UserError(f"queries: found one string, expected a list of them: [{queries!r}]")
    for number, query in enumerate(queries):
        if not isinstance(query, str) or not query.strip():
            raise UserError(f"queries[{number}] is {query!r:.80}: ask for something in words")
