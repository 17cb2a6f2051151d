"""Questions that a page no longer wants.

Gradio's own way (`cancels`) stops an event, not a question: one that is asked in the very moment in which another is
stopped would be lost.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")
TABS = 4096  # whose last stop is remembered


class Stops:
    """What tabs have stopped. A tab's questions have growing numbers, of which it asks one at a time."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, int] = OrderedDict()  # the number that a tab stopped last
        self._asked: dict[tuple[str, int], asyncio.Event] = {}

    def stop(self, tab: str, number: int) -> None:
        """End a tab's question of this number, at once or as soon as it arrives."""
        self._last[tab] = max(number, self._last.pop(tab, number))
        while len(self._last) > TABS:
            self._last.popitem(last=False)
        for (whose, which), event in self._asked.items():
            if whose == tab and which <= number:
                event.set()

    async def until(self, tab: str, number: int, pieces: AsyncIterator[T]) -> AsyncGenerator[T, None]:
        """What `pieces` has, until the question is stopped; what waits for the next piece then is cancelled."""
        if tab in self._last and number <= self._last[tab]:
            return
        event = self._asked.setdefault((tab, number), asyncio.Event())
        stopped = asyncio.ensure_future(event.wait())
        try:
            while True:
                following = asyncio.ensure_future(anext(pieces))
                try:
                    await asyncio.wait({following, stopped}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not following.done():  # stopped, or whoever listens has left
                        following.cancel()
                        with suppress(asyncio.CancelledError, StopAsyncIteration):
                            await following
                if stopped.done():
                    return
                try:
                    piece = following.result()
                except StopAsyncIteration:
                    return
                yield piece
        finally:
            stopped.cancel()
            self._asked.pop((tab, number), None)
