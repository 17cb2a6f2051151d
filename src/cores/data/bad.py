"""What is done about items that cannot be used: stop at the first, leave out a few and say so, or tell all faults."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from cores.errors import CoresError, DataError

log = logging.getLogger(__name__)
OnBad = Literal["error", "skip"]
SHARE = 0.01  # more than that is no accident
AT_LEAST = 10  # items left out before a share means anything


@dataclass
class BadItems:
    """Counts what was used and what was left out, in items.

    `policy`: `error` raises what is wrong with the first bad item; `skip` leaves bad ones out, logs each once, and
    raises when they are more than one in a hundred. `reasons`: how often each was given.
    """

    policy: OnBad = "error"
    used: int = 0
    skipped: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def use(self) -> None:
        """Count an item that was used."""
        self.used += 1

    def skip(self, error: DataError) -> None:
        """Leave out an item. Raises its error, or DataError when there are too many."""
        if self.policy == "error":
            raise error
        reason = str(error)
        if reason not in self.reasons:
            log.warning("left out: %s", reason)
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        self.skipped += 1
        total = self.used + self.skipped
        if self.skipped >= AT_LEAST and self.skipped > SHARE * total:
            some = "; ".join(list(self.reasons)[:3])
            raise DataError(
                f"{self.skipped} of {total} items cannot be used, more than {SHARE:.0%}: {some}; "
                "run `cores data check` for all of them"
            )


class EmptySplit(DataError):
    """A data set is there and has nothing in the split that was asked for."""


class ManyFaults(DataError):
    """Several faults of one file or item, a line each in `faults`. Its own text says the first.

    `rest`: what could be read of it all the same, for those who look for further faults.
    """

    def __init__(self, faults: list[str], rest: object = None) -> None:
        self.faults, self.rest = tuple(faults), rest
        more = f"; and {len(faults) - 1:,} more faults: `cores data check` lists them" if len(faults) > 1 else ""
        super().__init__(f"{faults[0]}{more}")


class Faults:
    """Gathers what is wrong with the parts of something, so that all of it is told at once.

    faults = Faults()
    for part in parts:
        with faults.gathered():
            read(part)
    faults.tell()
    """

    def __init__(self) -> None:
        self.found: list[str] = []

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Inside, a DataError is kept for later, and ends the block."""
        try:
            yield
        except DataError as error:
            self.found += faults_of(error)

    def tell(self, rest: object = None) -> None:
        """Raises DataError with all that was gathered, when there is anything. `rest`: see ManyFaults."""
        if self.found:
            raise ManyFaults(self.found, rest)


def faults_of(error: Exception) -> tuple[str, ...]:
    """All faults that an error tells of, a line each; an error that nobody foresaw begins with its type."""
    if isinstance(error, ManyFaults):
        return error.faults
    return (str(error) if isinstance(error, CoresError) else f"{type(error).__name__}: {error}",)


class Counted:
    """Warns of the first, tenth, hundredth, ... of different messages, with how many there were: none is lost."""

    def __init__(self) -> None:
        self.messages: set[str] = set()

    def warn(self, message: str) -> None:
        """Count a message that is new; the first, tenth, hundredth, ... of them is logged."""
        if message in self.messages:
            return
        self.messages.add(message)
        count = len(self.messages)
        if str(count).strip("0") == "1":
            log.warning("%s (%d so far)", message, count)
