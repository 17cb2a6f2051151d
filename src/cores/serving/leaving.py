"""Work that is worth doing as long as its client is there."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

from starlette.types import Receive

from cores.serving.refusals import Refusal

T = TypeVar("T")


class Left(Exception):
    """The client is gone."""


async def while_there(receive: Receive, work: Awaitable[T], seconds: float) -> T:
    """What the work gives. It is cancelled when the client leaves or after so many seconds.

    Raises Left, and Refusal with 504.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((task, gone), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise Left
        raise Refusal(504, f"there was no answer within {seconds:g} s")
    finally:
        for one in (task, gone):
            one.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await one


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
