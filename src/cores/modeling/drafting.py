"""Drafts of answers: what may be said next is read at once, and what greedy decoding would have said of it is kept.

The ids of a pass are a block: a lead, one token after the other, and behind its last one, the root, the drafts, which
branch off where they part. A token's state predicts the next; so a walk from the root along what is predicted gives
what would have been said token by token, up to the first word that no draft has, and that word with it.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

DRAFT_TOKENS = 48  # most that the drafts of a row take in a pass
FEW_TOKENS = 4  # the same of a row whose last drafts were wrong


class Drafter(Protocol):
    """Who guesses how answers go on."""

    def propose(self, question: Sequence[int], said: Sequence[int]) -> Iterable[Sequence[int]]:
        """Ids that may come next in the answer to a question, likeliest first; `said`: what has come so far."""
        ...

    def learn(self, said: Sequence[int]) -> None:
        """An answer as it was said, with what closed it."""
        ...


class Block:
    """One row's ids of a pass. `before`: see `Past.behind`; `root`: the number of the lead's last token."""

    def __init__(
        self, lead: Sequence[int], drafts: Iterable[Sequence[int]] = (), room: int = 0, longest: int = 0
    ) -> None:
        """`room`: most tokens of all drafts; `longest`: of one, more are cut off."""
        self.ids, self.before = list(lead), list(range(-1, len(lead) - 1))
        self.root = len(lead) - 1
        self._after: dict[tuple[int, int], int] = {}  # of a token's number and an id that follows it
        if room > 0 and longest > 0:
            for draft in drafts:
                if not self._add(draft[:longest], room):
                    break

    @property
    def drafted(self) -> bool:
        """Are there drafts?"""
        return self.asked > 1

    @property
    def asked(self) -> int:
        """How many tokens are asked what follows them: the root and all drafts'."""
        return len(self.ids) - self.root

    def _add(self, draft: Sequence[int], room: int) -> bool:
        """Was there room for it?"""
        at = self.root
        for word in draft:
            if (at, word) not in self._after:
                if self.asked > room:
                    return False
                self._after[at, word] = len(self.ids)
                self.ids.append(word)
                self.before.append(at)
            at = self._after[at, word]
        return True

    def walk(self, predicted: Sequence[int]) -> list[int]:
        """The numbers of tokens whose predictions are said in turn; `predicted`: by each token from the root on."""
        path = [self.root]
        while (after := self._after.get((path[-1], predicted[path[-1] - self.root]))) is not None:
            path.append(after)
        return path
