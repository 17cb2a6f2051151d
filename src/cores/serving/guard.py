"""What stands before every request: names, keys, rates, and limits of size and time that are kept while it comes."""

import asyncio
import json
import logging
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cores.serving.hosts import Hosts
from cores.serving.keys import Keys
from cores.serving.leaving import Left
from cores.serving.metrics import Metrics
from cores.serving.rate import RateLimit
from cores.serving.refusals import Busy, Closing, Refusal, refusal_of
from cores.serving.settings import Settings

log = logging.getLogger(__name__)
OPEN = ("/healthz", "/readyz")  # asked by machines that have no key and know an address alone
API = "/v1/"
SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Content-Security-Policy": "frame-ancestors 'self'; object-src 'none'; base-uri 'self'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
API_HEADERS = {"Cache-Control": "no-store", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'"}


@dataclass(slots=True)
class Traffic:
    """`working`: requests, other than for reading a page, that are worked on. `draining`: the server goes down; what
    has begun is answered, new ones are refused."""

    working: int = 0
    draining: bool = False


class Guard:
    """An ASGI application around another one; `traffic` is kept up to date."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, traffic: Traffic) -> None:
        self.app, self.settings, self.metrics, self.traffic = app, settings, metrics, traffic
        self.hosts, self.keys = Hosts(settings.hosts), Keys(settings.api_keys)
        self.rate = None if settings.rate is None else RateLimit(settings.rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._request(scope, receive, send)
        else:  # no websockets here
            await send({"type": "websocket.close", "code": 1003})

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, posted = scope["path"], scope["method"] not in ("GET", "HEAD", "OPTIONS")
        answer = _Answer(send, path, self.settings.send_seconds)
        began = monotonic()
        self.traffic.working += posted
        try:
            self._admit(scope, path, posted)
            await self.app(scope, _Body(receive, self.settings).receive, answer.send)
        except (Left, ClientDisconnect):
            log.info("%s: the client left", path)
        except Exception as error:
            await self._say(error, answer)
        finally:
            self.traffic.working -= posted
            self.metrics.request(path, answer.status, monotonic() - began)

    def _admit(self, scope: Scope, path: str, posted: bool) -> None:
        """Raises Refusal."""
        headers = Headers(scope=scope)
        if path not in OPEN and not self.hosts.allowed(headers.get("host", "")):
            raise Refusal(421, "this name of the server is not known here: see --allowed-hosts of cores serve")
        client = self.keys.passed(headers)
        if client is None and path not in OPEN:
            scheme = "Bearer" if path.startswith(API) else 'Basic realm="cores", charset="UTF-8"'
            said = "an API key is needed: send it as Authorization: Bearer KEY"
            raise Refusal(401, said, {"WWW-Authenticate": scheme})
        if not posted:
            return
        if self.traffic.draining:
            raise Closing()
        if self.traffic.working > self.settings.max_requests:
            raise Busy()
        seconds = self.rate.wait(client or (scope.get("client") or ("",))[0]) if self.rate else 0
        if seconds:
            raise Refusal(429, f"too many requests: ask again in {seconds} s", {"Retry-After": str(seconds)})
        if _length(headers) > self.settings.max_body:
            raise too_large(self.settings)

    async def _say(self, error: Exception, answer: "_Answer") -> None:
        """Put a refusal into one sentence; what is our own fault is logged, and kept from the client."""
        said = refusal_of(error)
        if said is None:
            log.error("a request failed", exc_info=error)
            said = Refusal(500, "something went wrong here, and was logged: the request may be right")
        if answer.status is None:
            with suppress(OSError, Left):
                await answer.refuse(said)


class _Answer:
    """What is sent, with the headers that every answer has; a client that does not read is left."""

    def __init__(self, send: Send, path: str, seconds: float) -> None:
        self._send, self._path, self._seconds = send, path, seconds
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in {**SECURITY, **(API_HEADERS if self._path.startswith(API) else {})}.items():
                headers.setdefault(name, value)
        try:
            async with asyncio.timeout(self._seconds):
                await self._send(message)
        except TimeoutError:
            raise Left from None

    async def refuse(self, said: Refusal) -> None:
        body = json.dumps({"error": str(said)}).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **said.headers}
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": said.status, "headers": pairs})
        await self.send({"type": "http.response.body", "body": body})


class _Body:
    """A request's body as it comes: no more than so many bytes, whatever its headers say, and in so many seconds."""

    def __init__(self, receive: Receive, settings: Settings) -> None:
        self._receive, self._settings = receive, settings
        self._size, self._until, self._whole = 0, monotonic() + settings.body_seconds, False

    async def receive(self) -> Message:
        """Raises Refusal for what is too large or too slow."""
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout(self._until - monotonic()):
                message = await self._receive()
        except TimeoutError:
            seconds = self._settings.body_seconds
            raise Refusal(408, f"the request did not come within {seconds:g} s", {"Connection": "close"}) from None
        self._size += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._size > self._settings.max_body:
            raise too_large(self._settings)
        return message


def too_large(settings: Settings) -> Refusal:
    """What is said of a body that is larger than it may be."""
    size = settings.max_body / (1 << 20)
    return Refusal(413, f"the request is larger than {size:g} MiB: send a smaller picture", {"Connection": "close"})


def _length(headers: Headers) -> int:
    value = headers.get("content-length", "0")
    return int(value) if value.isdecimal() else 0
