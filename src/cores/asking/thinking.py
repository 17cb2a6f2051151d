"""Free reasoning before an answer: `<think> ... </think>` in the model's own words, and then the chain.

It is opened for the model, which says what it likes, but neither a grounding token nor the end, until it closes it
itself; after so many tokens it is closed for it (budget forcing, Muennighoff et al. 2025). What stands behind it is
the answer, and alone is read as one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from cores.modeling.generation import Choose, Follow, Said
from cores.processing.processor import CoresProcessor
from cores.processing.tokens import encode

OPENING, ENDING = "<think>", "</think>"  # as DeepSeek-R1 and Qwen3 write it


@dataclass(frozen=True, slots=True)
class Thought:
    """Free reasoning. `ids`: with its marks; `chosen`: from which to which of them the model chose itself; `inner`:
    without its marks."""

    ids: Sequence[int] = ()
    chosen: tuple[int, int] = (0, 0)
    inner: Sequence[int] = ()

    @property
    def length(self) -> int:
        """How many tokens the model chose."""
        return self.chosen[1] - self.chosen[0]


NOTHING = Thought()


class Thinking:
    """Chooses the words of some answers (a `Choose` of `modeling.generation`), a token a pass.

    Args: `opening`, `ending`: ids of the marks; `most`: tokens between them, at least 1; `never`: ids that no thought
    has; `choose`: what chooses every word that is free, None for the likeliest.
    """

    def __init__(
        self, opening: Sequence[int], ending: Sequence[int], most: int, never: Sequence[int], choose: Choose | None
    ) -> None:
        self.opening, self.ending, self.most = list(opening), list(ending), most
        self.never, self.choose = sorted(set(never)), choose
        self._minds: dict[int, _Mind] = {}

    @staticmethod
    def of(processor: CoresProcessor, most: int, choose: Choose | None) -> "Thinking | None":
        """For answers of a checkpoint; None where no token may be thought."""
        opening, ending = (encode(processor.tokenizer, mark) for mark in (OPENING, ENDING))
        never = [*processor.token_ids, processor.closing[0], processor.sizes.image_token_id]
        return Thinking(opening, ending, most, never, choose) if most else None

    @property
    def room(self) -> int:
        """The most tokens of a thought with its marks."""
        return len(self.opening) + self.most + len(self.ending)

    def __call__(self, chances: Tensor, numbers: Sequence[int]) -> Tensor:
        """The ids (rows,) that are said next, of log-probabilities (rows, vocabulary) of answers of these numbers."""
        minds = [self._minds.setdefault(number, _Mind(list(self.opening))) for number in numbers]
        thinks = torch.tensor([not mind.over for mind in minds], device=chances.device)
        shut = torch.zeros(chances.shape[-1], dtype=torch.bool, device=chances.device)
        shut[[word for word in self.never if word < len(shut)]] = True  # a picture's placeholder may be no word
        allowed = chances.masked_fill(thinks[:, None] & shut, -math.inf)
        words = allowed.argmax(-1) if self.choose is None else self.choose(allowed, numbers)
        said = [self._say(*pair) for pair in zip(minds, words.tolist(), strict=True)]
        return torch.tensor(said, device=chances.device)

    def _say(self, mind: "_Mind", word: int) -> int:
        if mind.over:
            return word
        if mind.forced:
            word = mind.forced.pop(0)
            mind.over = mind.closes and not mind.forced
        else:
            mind.free += 1
            mind.over = mind.free >= len(self.ending) and [*mind.ids, word][-len(self.ending) :] == self.ending
            if not mind.over and mind.free == self.most:
                mind.forced, mind.closes = list(self.ending), True
        mind.ids.append(word)
        return word

    def spoken(self, number: int, ids: Sequence[int]) -> Sequence[int]:
        """Of all that is said to a question, what stands behind the thought."""
        mind = self._minds.get(number)
        return ids[len(mind.ids) :] if mind is not None and mind.over else []

    def limited(self, most: int, follow: Follow | None) -> Follow:
        """`follow`, which ends an answer, too, when `most` tokens stand behind its thought: room that a short thought
        leaves is not the answer's."""

        def goes_on(number: int, ids: Sequence[int]) -> bool:
            wanted = follow is None or follow(number, ids)
            return wanted and len(self.spoken(number, ids)) < most

        return goes_on

    def apart(self, number: int, said: Said) -> tuple[Thought, Said]:
        """A thought, and the answer behind it."""
        mind = self._minds.get(number, _Mind([]))
        at, first = len(mind.ids), min(len(self.opening), len(mind.ids))
        sure = said.sure[at:]
        score = float(sure.mean()) if len(sure) else 0.0
        rest = replace(said, ids=said.ids[at:], states=said.states[at:], sure=sure, score=score)
        ids, last = tuple(mind.ids), first + mind.free
        closed = mind.over and not mind.closes  # by the model
        return Thought(ids, (first, last), ids[first : last - len(self.ending) * closed]), rest


@dataclass(slots=True)
class _Mind:
    """How far one thought is. `forced`: what is said next; `closes`: that ends it; `free`: words the model chose."""

    forced: list[int]
    closes: bool = False
    over: bool = False
    free: int = 0
    ids: list[int] = field(default_factory=list)
