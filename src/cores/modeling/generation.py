"""Answers of the language model, generated or given: prefixes are read once, and every question goes on from its own.

A pass reads the next token of every row that is still open, and drafts of what may follow, where there are any: the
same tokens in fewer passes (`drafting`). Families whose layers carry a state along the row cannot take a draft back,
nor stand side by side with padding: there, one question is read at a time, a token a pass.

Legend: questions = of one call, rows = those that are still open, width = the language model's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cores.modeling.drafting import DRAFT_TOKENS, FEW_TOKENS, Block, Drafter
from cores.modeling.model import CoresModel
from cores.modeling.prefix_cache import PrefixCache, Rows

SCORED_AT_ONCE = 256  # states whose logits stand in memory at once, in fp32: 0.15 GB for 150,000 words

Choose = Callable[[Tensor, Sequence[int]], Tensor]
Follow = Callable[[int, Sequence[int]], bool]


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """One answer in tokens. `ids`: without the closing ones; `score`: mean log-probability (closing counted).

    `states` (tokens, width): at least one row an id, the hidden state that predicted it; `sure` (tokens,): its
    log-probability. `cut`: it ended before it closed, at the most tokens allowed or where it was told to. `passes`: of
    the language model, in which it was said or read.
    """

    ids: list[int]
    states: Tensor
    sure: Tensor
    score: float
    cut: bool = False
    passes: int = 1


class Generation:
    """Answers to questions side by side, each behind its own prefix, a pass of the language model at a time.

    Args: `prefixes`, `questions`: as many, at least one; of a question its ids (length,), up to where the answer
    begins; `closing`: the ids that end an answer; `max_new_tokens`: at least 1; `choose`: log-probabilities (rows,
    vocabulary), and the rows' numbers among the questions, to the ids (rows,) that are said next, None for the
    likeliest; `drafter`: changes no answer, and is not asked where somebody chooses; `follow`: is told a question's
    number and all ids said to it, before its first pass and after each, and ends the answer there by saying False.
    """

    def __init__(
        self,
        model: CoresModel,
        prefixes: Sequence[PrefixCache],
        questions: Sequence[Tensor],
        closing: Sequence[int],
        max_new_tokens: int,
        choose: Choose | None = None,
        drafter: Drafter | None = None,
        follow: Follow | None = None,
    ) -> None:
        self.model, self.prefixes, self.choose, self.follow = model, prefixes, choose, follow
        self.drafter = drafter if choose is None and model.mllm.packs else None
        self.told = [_Telling(question.tolist(), list(closing), max_new_tokens) for question in questions]
        self._waiting = _groups(model, len(self.told))  # of those that are read side by side
        self._still: list[int] = []  # numbers of the questions that are the rows
        self._begin()

    @property
    def open(self) -> bool:
        """Is there anything left to say?"""
        return bool(self._still)

    @torch.no_grad()
    def step(self) -> None:
        """One pass: every row says its next tokens."""
        still = _say_more(self._rows, self.told, self._still, self.choose, self.drafter)
        self._still = self._followed(still)
        if self._still and len(self._still) < len(still):
            self._rows.keep_rows([still.index(number) for number in self._still])
        if not self._still:
            self._begin()

    def said(self) -> list[Said]:
        """One `Said` a question, as far as it was said."""
        nothing = self.prefixes[0].patches[:0]  # (0, width)
        sure = [torch.cat([nothing[:, 0].float(), *one.sure]) for one in self.told]
        scores = torch.stack([own.sum() / max(len(own), 1) for own in sure]).tolist()
        told = zip(self.told, sure, scores, strict=True)
        return [one.over(torch.cat([nothing, *one.states]), own, score) for one, own, score in told]

    def _begin(self) -> None:
        """Put the next questions that anybody waits for side by side."""
        while self._waiting and not self._still:
            self._still = self._followed(self._waiting.pop(0))
        if self._still:
            self._rows = Rows(self.model.mllm, [self.prefixes[number] for number in self._still])

    def _followed(self, numbers: Sequence[int]) -> list[int]:
        """Those of these questions whose answers shall go on."""
        if self.follow is None:
            return list(numbers)
        return [number for number in numbers if self.follow(number, self.told[number].said)]


def generate(
    model: CoresModel,
    prefixes: Sequence[PrefixCache],
    questions: Sequence[Tensor],
    closing: Sequence[int],
    max_new_tokens: int,
    choose: Choose | None = None,
    drafter: Drafter | None = None,
    follow: Follow | None = None,
) -> list[Said]:
    """Whole answers to questions: one `Said` each. Args: as `Generation`'s."""
    answers = Generation(model, prefixes, questions, closing, max_new_tokens, choose, drafter, follow)
    while answers.open:
        answers.step()
    return answers.said()


@torch.no_grad()
def teacher_force(
    model: CoresModel,
    prefixes: Sequence[PrefixCache],
    questions: Sequence[Tensor],
    answers: Sequence[Tensor],
    closing: Sequence[int],
) -> list[Said]:
    """As `generate`, with given answers, ids (length,) each, read in one pass; closing tokens included or not."""
    found = []
    for group in _groups(model, len(questions)):
        asked, given = [questions[number].tolist() for number in group], [answers[number].tolist() for number in group]
        blocks = [Block([*question, *words]) for question, words in zip(asked, given, strict=True)]
        states = Rows(model.mllm, [prefixes[number] for number in group]).read(blocks)
        lengths = [len(words) for words in given]
        first = [len(question) - 1 for question in asked]  # a state predicts the token behind it
        parts = [states[row, at : at + length] for row, (at, length) in enumerate(zip(first, lengths, strict=True))]
        words = torch.tensor([word for own in given for word in own], device=states.device)
        pairs = zip(torch.cat(parts).split(SCORED_AT_ONCE), words.split(SCORED_AT_ONCE), strict=True)
        sure = torch.cat([_log_probabilities(model.mllm.logits(some), said) for some, said in pairs])
        own = sure.split(lengths)
        scores = torch.stack([one.mean() for one in own]).tolist()
        found += [Said(_unclosed(ids, closing), *of) for ids, *of in zip(given, parts, own, scores, strict=True)]
    return found


def _groups(model: CoresModel, questions: int) -> list[list[int]]:
    """Numbers of questions that are read side by side: all of them, or each alone where a family cannot pack."""
    numbers = list(range(questions))
    return [numbers] if model.mllm.packs else [[number] for number in numbers]


def _unclosed(ids: list[int], closing: Sequence[int]) -> list[int]:
    """An answer without the ids that close it, if it is closed."""
    return ids[: -len(closing)] if ids[-len(closing) :] == list(closing) else ids


class _Telling:
    """An answer that comes pass by pass."""

    def __init__(self, question: list[int], closing: list[int], most: int) -> None:
        self.question, self.closing, self.most = question, closing, most
        self.said: list[int] = []
        self.states: list[Tensor] = []  # (tokens, width), a pass
        self.sure: list[Tensor] = []  # log-probabilities (tokens,), a pass
        self.passes, self.room = 0, DRAFT_TOKENS

    @property
    def closed(self) -> bool:
        return self.said[-len(self.closing) :] == self.closing

    @property
    def open(self) -> bool:
        return not self.closed and len(self.said) < self.most

    def block(self, drafter: Drafter | None) -> Block:
        """What the next pass reads: the question, or what was said last, and drafts of what follows."""
        lead = self.said[-1:] or self.question
        if drafter is None:
            return Block(lead)
        return Block(lead, drafter.propose(self.question, self.said), self.room, self.most - len(self.said) - 1)

    def say(self, block: Block, predicted: Sequence[int]) -> list[int]:
        """Say what the block's tokens from its root on have predicted; the numbers of those that did, in turn."""
        path = []
        for number in block.walk(predicted):
            if self.open:
                self.said.append(predicted[number - block.root])
                path.append(number)
        self.passes += 1
        if block.drafted:  # who says something else is given less to read
            self.room = DRAFT_TOKENS if len(path) > 1 else max(self.room // 2, FEW_TOKENS)
        return path

    def over(self, states: Tensor, sure: Tensor, score: float) -> Said:
        """The answer as far as it was said."""
        return Said(_unclosed(self.said, self.closing), states, sure, score, not self.closed, self.passes)


def _say_more(
    rows: Rows, told: Sequence[_Telling], numbers: Sequence[int], choose: Choose | None, drafter: Drafter | None
) -> list[int]:
    """One pass over rows that are answers of these `numbers`; the numbers of those that are still open after it."""
    telling = [told[number] for number in numbers]
    blocks = [one.block(drafter) for one in telling]
    states = rows.read(blocks)
    places = [(row, number) for row, block in enumerate(blocks) for number in range(block.root, len(block.ids))]
    states = states[tuple(torch.tensor(places).T.to(states.device))]  # (places, width): of all roots and drafts
    logits = rows.mllm.logits(states)  # (places, vocabulary)
    chosen = logits.argmax(-1) if choose is None else choose(logits.float().log_softmax(-1), numbers)
    predicted = chosen.tolist()  # the pass's one wait for the device
    first, paths, kept = 0, [], []
    for one, block in zip(telling, blocks, strict=True):
        path = one.say(block, predicted[first : first + block.asked])
        paths.append([*range(block.root), *path])
        kept.append([first + number - block.root for number in path])
        first += block.asked
    index = torch.tensor([place for own in kept for place in own], device=states.device)
    sure, counts = _log_probabilities(logits[index], chosen[index]), [len(own) for own in kept]
    for one, own, of_own in zip(telling, states[index].split(counts), sure.split(counts), strict=True):
        one.states.append(own)
        one.sure.append(of_own)
        if drafter is not None:
            drafter.learn(one.said, len(own))
    still = [row for row, one in enumerate(telling) if one.open]
    if still:
        rows.keep(paths, still)
    return [numbers[row] for row in still]


def _log_probabilities(logits: Tensor, words: Tensor) -> Tensor:
    """Of words (places,), by their logits (places, vocabulary)."""
    return logits.float().log_softmax(-1).gather(1, words[:, None])[:, 0]
