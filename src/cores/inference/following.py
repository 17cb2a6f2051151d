"""Answers on their way: queries as they are put, words as they are said, and at last plain values."""

from collections.abc import Callable, Sequence
from typing import Any

from cores.asking.answerer import Answerer, Follow, I, Query
from cores.asking.answers import Answered
from cores.asking.confidence import Confidence
from cores.data.sample import Form
from cores.errors import UserError
from cores.inference.drawing import Draws, likeliest_first
from cores.inference.options import Options
from cores.inference.segmentation import Level, Segmentation, TargetMask
from cores.inference.streaming import Pieces
from cores.masks import encode
from cores.outlines import fill_holes
from cores.prompts.forms import form_of, refuse_half_characters

Hear = Callable[[int, int, str], bool]  # numbers of picture and query, words said since: shall it go on?


class Following:
    """What is asked and told while answers are said. `first`: number of the first picture of this part of a batch."""

    def __init__(
        self,
        asker: Answerer[Any],
        options: Options,
        limit: Callable[[], bool] | None,
        hear: Hear | None = None,
    ) -> None:
        self.asker, self.options, self.limit, self.hear, self.first = asker, options, limit, hear, 0
        self.pieces: dict[tuple[int, int], Pieces] = {}

    @property
    def follow(self) -> Follow | None:
        """None where nobody wants to know."""
        return None if self.limit is None and self.hear is None else self._follow

    def _follow(self, image: int, query: int, ids: Sequence[int]) -> bool:
        if self.limit is not None and not self.limit():
            return False
        if self.hear is None:
            return True
        place = (self.first + image, query)
        return self.hear(*place, self.pieces.setdefault(place, Pieces()).more(self.asker.text_of(ids)))

    def worded(self, queries: Sequence[str]) -> list[Query]:
        """The queries as they are put. Raises UserError for what is no list of queries."""
        asked = worded(queries, self.options.form)
        if not self.options.explain:
            return asked
        return [(self.asker.as_question(query) if form == "phrase" else query, "explain") for query, form in asked]

    def asked(self, encoded: Sequence[Any], queries: Sequence[Sequence[str]]) -> list[list[Segmentation]]:
        """The answers to all queries about these pictures, told while they are said."""
        asker, found = self.asker, []
        answered = asker.generate_batch(encoded, [self.worded(own) for own in queries], self.follow)
        for number, (image, own, answers) in enumerate(zip(encoded, queries, answered, strict=True), self.first):
            pairs = zip(own, answers, strict=True)
            found.append([result_of(asker, image, *pair, self.options) for pair in pairs])
            self._over(number, found[-1])
        return found

    def drawn(self, encoded: Any, queries: Sequence[str], draws: Draws) -> list[list[Segmentation]]:
        """Several answers to each query about a picture, the likeliest first. The chance is the question's own."""
        asked = self.worded(queries)
        keys = [(draws.seed, *query) for query in asked]
        how = (draws.samples, draws.sampling, self.follow)
        (groups,) = self.asker.draw_batch([encoded], [asked], [keys], *how)
        return [
            likeliest_first(result_of(self.asker, encoded, query, answer, self.options) for answer in group)
            for query, group in zip(queries, groups, strict=True)
        ]

    def _over(self, image: int, found: Sequence[Segmentation]) -> None:
        """Tell the last words of the answers about a picture."""
        if self.hear is not None:
            for query, answer in enumerate(found):
                place = (image, query)
                if piece := self.pieces.setdefault(place, Pieces()).rest(answer.answer):
                    self.hear(*place, piece)


def result_of(
    asker: Answerer[I],
    encoded: I,
    query: str,
    answer: Answered,
    options: Options | None = None,
) -> Segmentation:
    """One answer as plain values; large masks are made one at a time and kept as run lengths."""
    reading, options, confidence = asker.read(answer), options or Options(), asker.confidence or Confidence()
    frame = (asker.canvas, encoded.resized, asker.fit)
    targets = []
    named = zip(reading.phrases, reading.spans, answer.chains, strict=True)
    for i, (phrase, span, chain) in enumerate(named):
        levels = []
        for name, logits, position in zip(asker.levels, answer.low_res_logits, chain, strict=True):
            if position is not None:
                (full,) = asker.full_size(encoded, logits[i : i + 1], options.threshold)
                mask = fill_holes(full.mask) if options.fill_holes else full.mask
                low_res = logits[i].float().cpu().numpy()
                levels.append(Level(name, encode(mask), full.score, low_res, *frame))
        sure = confidence.of_mask((answer.predicted_iou[i], answer.sure[i], levels[-1].score))
        targets.append(TargetMask(phrase or query, tuple(levels), phrase is not None, span, sure))
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
        refusal=confidence.of_refusal(answer.absent),
        thought=asker.thought_of(answer),
    )


def worded(queries: Sequence[str], form: Form | None) -> list[Query]:
    """Each query with the form that it is put into. Raises UserError for what is no list of queries."""
    check_queries(queries)
    return [(query, form_of(query) if form is None else form) for query in queries]


def check_queries(queries: Sequence[str]) -> None:
    """Raises UserError for what is no list of queries, or holds an empty one."""
    if isinstance(queries, str):
        raise UserError(f"queries: found one string, expected a list of them: [{queries!r}]")
    if not hasattr(queries, "__len__"):  # to look at one that can be read only once would use it up
        raise UserError(f"queries: found a {type(queries).__name__}, expected a list: list(...) makes one")
    for number, query in enumerate(queries):
        if not isinstance(query, str) or not query.strip():
            raise UserError(f"queries[{number}] is {query!r:.80}: ask for something in words")
        refuse_half_characters(query)
