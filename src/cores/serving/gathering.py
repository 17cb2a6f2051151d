"""A bounded queue from which a worker takes together what came together."""

from collections import deque
from collections.abc import Iterable
from threading import Condition
from time import monotonic
from typing import Generic, Protocol, TypeVar

from cores.serving.refusals import Busy, Closing


class Sized(Protocol):
    """A piece of work. `questions`: how many there are in it."""

    @property
    def questions(self) -> int: ...


J = TypeVar("J", bound=Sized)


class Gathering(Generic[J]):
    """Work that waits for one worker, in the order in which it came.

    Args:
        most: pieces that may wait; batch: most questions that are taken at once, though at least one piece is;
        gather: seconds that `take` waits for more after the first.
    """

    def __init__(self, most: int, batch: int, gather: float) -> None:
        self.most, self.batch, self.gather = most, batch, gather
        self._waiting: deque[J] = deque()
        self._changed = Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def check(self) -> None:
        """Raises Busy when too many wait, Closing after `close`."""
        if self._closed:
            raise Closing()
        if len(self._waiting) >= self.most:
            raise Busy()

    def put(self, job: J) -> None:
        """Add a piece of work. Raises as `check`."""
        with self._changed:
            self.check()
            self._waiting.append(job)
            self._changed.notify()

    def take(self) -> list[J]:
        """What waits, up to a batch of it; waits until there is something. Nothing: closed, and all was taken."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            until = monotonic() + self.gather
            while not self._closed and self._count() < self.batch and (left := until - monotonic()) > 0:
                self._changed.wait(left)
            return list(self._fitting())

    def _count(self) -> int:
        return sum(job.questions for job in self._waiting)

    def _fitting(self) -> Iterable[J]:
        room = self.batch
        while self._waiting and (room == self.batch or self._waiting[0].questions <= room):
            job = self._waiting.popleft()
            room -= job.questions
            yield job

    def close(self) -> None:
        """Take nothing new; what waits is still given out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
