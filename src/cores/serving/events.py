"""Server-sent events: an answer's words as they come, then the answer."""

from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from cores.plain_json import dumps
from cores.serving.leaving import while_there
from cores.serving.refusals import Refusal

HEADERS = {"x-accel-buffering": "no"}  # nginx would keep the words until the end


def event(name: str, data: dict[str, Any]) -> bytes:
    """One event, as `EventSource` reads it."""
    return f"event: {name}\ndata: {dumps(data, ensure_ascii=False)}\n\n".encode()


class EventStream(StreamingResponse):
    """An answer of events. What makes them is stopped when the client leaves, and after so many seconds, as the last
    event then says."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], seconds: float) -> None:
        super().__init__(events, headers=HEADERS)
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await while_there(receive, self.stream_response(sent), self.seconds)
        except Refusal as refused:
            if not begun:
                raise
            said = event("error", {"error": str(refused)})
            await send({"type": "http.response.body", "body": said, "more_body": False})
