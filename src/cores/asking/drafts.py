"""Guesses of how an answer goes on: from the checkpoint's own templates, and from what it has said since.

Answers follow templates, so that a few words say which comes next. A table of word sequences gives the shares of what
followed; the likeliest continuations are proposed, as long as they are likely enough to be worth their reading.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from cores.modeling.drafting import DRAFT_TOKENS
from cores.modeling.generation import Said
from cores.processing.processor import CoresProcessor

LOOKS_BACK = 4  # tokens that say what comes next
LEAST = 0.1  # likely enough: of 0.05 to 0.12, what made answers of the benchmark's model the cheapest
OWN = 8  # how often an answer of the model's own counts, against one of a template
MOST = 50_000  # word sequences that are known at once; a model says the same in most answers, but not in all
BEGIN = -1  # stands before an answer's first token

Shares = dict[tuple[int, ...], Counter[int]]


class Drafts:
    """A `Drafter` for answers of one checkpoint. It changes no answer; what it has learned changes how fast they come.

    `known`: ids of answers, closed, that it begins with, and begins anew with when it has heard too much.
    """

    def __init__(self, known: Sequence[Sequence[int]]) -> None:
        self.known = known
        self.table: Shares = self._first()

    def _first(self) -> Shares:
        table: Shares = defaultdict(Counter)
        for answer in self.known:
            _count(table, (BEGIN, *answer), 1)
        return table

    @classmethod
    def of(cls, processor: CoresProcessor) -> "Drafts":
        """With the answers that a checkpoint's prompt teaches: templates of one target and several, and refusals."""
        known = processor.answer_templates
        # of several targets the longest alone: the others are how it begins, and would be counted once more each
        return cls([*known.single, *known.several[-1:], *known.refusals])

    def learn(self, said: Sequence[int], new: int) -> None:
        """What the model has said: rows of one pass hear of each other at once, not when an answer is over."""
        if len(self.table) > MOST:
            self.table = self._first()
        _count(self.table, (BEGIN, *said)[-LOOKS_BACK - new :], OWN, new)

    def propose(self, question: Sequence[int], said: Sequence[int]) -> Iterator[Sequence[int]]:
        """Ids that may come next, likeliest first: each is one that was proposed before, and one token more."""
        asked: Shares = defaultdict(Counter)
        _count(asked, question, 1)
        past = (BEGIN, *said)[-LOOKS_BACK:]
        waiting: list[tuple[float, tuple[int, ...]]] = [(-1.0, ())]
        while waiting:
            chance, path = heappop(waiting)
            if path:
                yield path
            if len(path) == DRAFT_TOKENS:
                continue  # a table may go round in a circle
            found = self._next((*past, *path)[-LOOKS_BACK:], asked)
            total = sum(found.values())
            for word, count in found.items():
                if -chance * count / total >= LEAST:
                    heappush(waiting, (chance * count / total, (*path, word)))

    def _next(self, past: tuple[int, ...], asked: Shares) -> Counter[int]:
        """What followed the longest end of the past that was met: in answers, or in the question, whose words a name
        repeats."""
        for first in range(len(past)):
            for table in (asked, self.table):
                if past[first:] in table:
                    return table[past[first:]]
        return Counter()


def _count(table: Shares, ids: Sequence[int], times: int, new: int | None = None) -> None:
    """Count each token, of the last `new` ones, behind what stands before it."""
    words = tuple(ids)
    for place in range(1 if new is None else len(words) - new, len(words)):
        for first in range(max(0, place - LOOKS_BACK), place):
            table[words[first:place]][words[place]] += times


@dataclass(slots=True)
class Tally:
    """What answers took. `tokens`: that were said, without what closes them; `passes`: of the language model, counted
    once an answer that was said in them."""

    answers: int = 0
    tokens: int = 0
    passes: int = 0

    def count(self, said: Sequence[Said]) -> None:
        """Count some more answers."""
        self.answers += len(said)
        self.tokens += sum(len(one.ids) for one in said)
        self.passes += sum(one.passes for one in said)
