"""Answers that always hold a whole chain: what is said where a model would leave a grounding token out.

A model speaks as ever, except where its answer would not be a row of whole chains, at least one of them:

- a grounding token that is not the next one of its chain becomes the one that is;
- where the answer would end inside a chain or before the first, or has no more tokens than that takes, the rest of the
  validation answer is said, from where the chain stands, and then it ends;
- where there is no room for one chain more, it ends.

So a refusal is said, and then the chain of what the model takes to be nearest. Its probabilities are the model's own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cores.errors import UserError


class Constrained:
    """Chooses the words of some answers (a `Choose` of `modeling.generation`), a token a pass.

    Args: `token_ids`: of the levels, coarse to fine; `template`: ids of an answer with one chain, closed; `closing`:
    the ids that end an answer; `most`: tokens of an answer. Raises UserError when they are too few for the template.
    """

    def __init__(self, token_ids: Sequence[int], template: Sequence[int], closing: Sequence[int], most: int) -> None:
        if most < len(template):
            raise UserError(f"max_new_tokens: found {most}, a constrained answer takes {len(template)} here")
        self.token_ids, self.closing, self.most = list(token_ids), list(closing), most
        begins = [0, *(template.index(token) + 1 for token in token_ids[:-1])]
        self.rest = [list(template[begin:]) for begin in begins]  # by the level that is next
        self._answers: dict[int, _Chains] = {}

    def __call__(self, chances: Tensor, numbers: Sequence[int]) -> Tensor:
        """The ids (rows,) that are said next, of log-probabilities (rows, vocabulary) of answers of these numbers."""
        likeliest = chances.argmax(-1).tolist()
        chosen = [self._choose(*pair) for pair in zip(numbers, likeliest, strict=True)]
        return torch.tensor(chosen, device=chances.device)

    def _choose(self, number: int, word: int) -> int:
        answer = self._answers.setdefault(number, _Chains())
        if not answer.forced:
            word = self._allowed(answer, word)
        if answer.forced:
            word = answer.forced.pop(0)
        answer.said += 1
        if word in self.token_ids:
            answer.level = (answer.level + 1) % len(self.token_ids)
            answer.whole += answer.level == 0
        return word

    def _allowed(self, answer: "_Chains", word: int) -> int:
        """The word, or another grounding token in its place; what has to be said instead is put into `forced`."""
        left = self.most - answer.said
        open_chain = answer.level > 0 or not answer.whole
        if open_chain and (word == self.closing[0] or left <= len(self.rest[answer.level])):
            answer.forced = list(self.rest[answer.level])
        elif word in self.token_ids:
            word = self.token_ids[answer.level]
            if not open_chain and len(self.token_ids) > 1 and left <= len(self.rest[1]):
                answer.forced = list(self.closing)
        return word


class _Chains:
    """How far one answer is. `level`: which is next; `whole`: chains that are; `forced`: what is said next."""

    def __init__(self) -> None:
        self.said = self.level = self.whole = 0
        self.forced: list[int] = []
