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


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """One answer in tokens. `ids`: without the closing ones; `score`: mean log-probability (closing counted).

    `states` (tokens, width): at least one row an id, the hidden state that predicted it. `cut`: it reached the most
    tokens allowed before it closed. `passes`: of the language model, in which it was said or read.
    """

    ids: list[int]
    states: Tensor
    score: float
    cut: bool = False
    passes: int = 1


@torch.no_grad()
def generate(
    model: CoresModel,
    prefixes: Sequence[PrefixCache],
    questions: Sequence[Tensor],
    closing: Sequence[int],
    max_new_tokens: int,
    choose: Choose | None = None,
    drafter: Drafter | None = None,
) -> list[Said]:
    """Answer questions side by side, each behind its own prefix.

    Args: `prefixes`, `questions`: as many, at least one; of a question its ids (length,), up to where the answer
    begins; `closing`: the ids that end an answer; `max_new_tokens`: at least 1; `choose`: log-probabilities (rows,
    vocabulary), and the rows' numbers among the questions, to the ids (rows,) that are said next, None for the
    likeliest; `drafter`: changes no answer, and is not asked where somebody chooses. Returns: one `Said` a question.
    """
    told = [_Telling(question.tolist(), list(closing), max_new_tokens) for question in questions]
    if choose is not None or not model.mllm.packs:
        drafter = None
    for still in _groups(model, len(told)):
        rows = Rows(model.mllm, [prefixes[number] for number in still])
        while still:
            still = _say_more(rows, told, still, choose, drafter)
    scores = torch.stack([torch.cat(one.sure).mean() for one in told]).tolist()
    return [one.over(score) for one, score in zip(told, scores, strict=True)]


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
        scores = torch.stack([own.mean() for own in sure.split(lengths)]).tolist()
        found += [Said(_unclosed(ids, closing), *of) for ids, *of in zip(given, parts, scores, strict=True)]
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

    def over(self, score: float) -> Said:
        """The whole answer."""
        return Said(_unclosed(self.said, self.closing), torch.cat(self.states), score, not self.closed, self.passes)


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
        if drafter is not None and not one.open:
            drafter.learn(one.said)
    still = [row for row, one in enumerate(telling) if one.open]
    if still:
        rows.keep(paths, still)
    return [numbers[row] for row in still]


def _log_probabilities(logits: Tensor, words: Tensor) -> Tensor:
    """Of words (places,), by their logits (places, vocabulary)."""
    return logits.float().log_softmax(-1).gather(1, words[:, None])[:, 0]
