"""An application behind a socket: slow clients are left, and what has begun is answered before it stops."""

import asyncio
import signal
import socket
from contextlib import ExitStack
from functools import partial
from time import monotonic
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from cores.errors import UserError
from cores.serving.settings import Settings

LAST_SECONDS = 3  # for connections that stay open when everything is answered, such as a page's own


class PunctualProtocol(H11Protocol):
    """HTTP whose requests' headers must have come within so many `seconds`."""

    def __init__(self, seconds: float, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seconds = seconds
        self._clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._idle:
            self._start()
        else:
            self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    @property
    def _idle(self) -> bool:
        """Is no request whose headers are known worked on?"""
        return self.cycle is None or self.cycle.response_complete

    def _start(self) -> None:
        if self._clock is None:
            self._clock = self.loop.call_later(self._seconds, self._late)

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _late(self) -> None:
        if self._idle:
            self.transport.close()


class Server(uvicorn.Server):
    """Told to stop, it refuses what is new with 503 and answers what has begun, at most for `drain_seconds`; told
    twice, it stops at once. `told`: the signal."""

    def __init__(self, app: FastAPI, settings: Settings, proxies: str | None = None, access_log: bool = False) -> None:
        """`proxies`: addresses of those that stand before it, whose word is taken on who asks."""
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http=partial(PunctualProtocol, settings.head_seconds),  # type: ignore[arg-type]
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=access_log,
            server_header=False,
            proxy_headers=proxies is not None,
            forwarded_allow_ips=proxies,
            limit_concurrency=settings.connections,
            timeout_graceful_shutdown=LAST_SECONDS,
        )
        super().__init__(config)
        self.told: signal.Signals | None = None
        self._traffic, self._engine = app.state.traffic, app.state.engine
        self._drain_seconds, self._until = settings.drain_seconds, 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """What uvicorn does with a signal."""
        if self.told is not None:
            self.should_exit = self.force_exit = True
        self.told, self._traffic.draining = signal.Signals(sig), True
        self._until = monotonic() + self._drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second: is it over?"""
        over = await super().on_tick(counter)
        if not self._traffic.draining:
            return over
        return over or monotonic() > self._until or not (self._traffic.working or self._engine.working)


def bound(host: str, port: int) -> socket.socket:
    """A socket that has this address, so that a taken one is known before a model is loaded. Raises UserError."""
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port}: expected a number from 0 to 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with ExitStack() as failed:
            opened = failed.enter_context(socket.socket(family, kind, protocol))
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(address)
            failed.pop_all()
            return opened
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: {error.strerror}: take another with --port") from None
