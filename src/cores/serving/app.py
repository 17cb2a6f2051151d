"""The HTTP side of an engine: a FastAPI application that is asked with JSON or forms."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from cores import __version__
from cores.inference.facade import Cores, CoresInWords
from cores.inference.segmentation import Segmentation
from cores.plain_json import dumps
from cores.serving.engine import Engine
from cores.serving.events import EventStream, event
from cores.serving.guard import Guard, Traffic
from cores.serving.leaving import while_there
from cores.serving.metrics import Metrics
from cores.serving.page import mount
from cores.serving.reading import Asked, read
from cores.serving.reference import reference
from cores.serving.refusals import refusal_of
from cores.serving.rendering import rendered
from cores.serving.schemas import ChatAsking, Failure, Health, SegmentAsking, Segmented, request_body
from cores.serving.settings import Settings

log = logging.getLogger(__name__)
ABOUT = "Ask for something in words, get its exact mask."
REFUSED: dict[int | str, dict[str, Any]] = {
    400: {"model": Failure, "description": "The form is no form."},
    401: {"model": Failure, "description": "An API key is needed."},
    408: {"model": Failure, "description": "The request came too slowly."},
    413: {"model": Failure, "description": "The request is too large."},
    415: {"model": Failure, "description": "The content is neither JSON nor a form."},
    421: {"model": Failure, "description": "The server is asked by a name that is not its own."},
    422: {"model": Failure, "description": "The picture, a query or an option cannot be used."},
    429: {"model": Failure, "description": "Too many requests of one client."},
    500: {"model": Failure, "description": "A fault of the server's own."},
    503: {"model": Failure, "description": "Too many requests are waiting, or the server goes down."},
    504: {"model": Failure, "description": "There was no answer in time."},
}
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
EVENT = {
    "type": "object",
    "properties": {
        "event": {"enum": ["text", "result", "error"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["event", "data"],
}
EVENTS = {
    "description": "Events: `text` has a piece of the answer as `{text}`, `result` comes last and is as a result of "
    "`/v1/segment`, `error` comes instead of it as `{error}`.",
    "content": {"text/event-stream": {"schema": EVENT}},
}


def create_app(cores: Cores | CoresInWords, settings: Settings | None = None) -> FastAPI:
    """An application that answers with this model, which nobody else may use meanwhile.

    `app.state.engine` is its engine, started with the application and closed with it; `app.state.traffic` says what
    goes on.
    """
    settings = settings or Settings()
    metrics, traffic = Metrics(), Traffic()
    engine = Engine(cores, settings, metrics.batch)
    _watch(metrics, engine, traffic)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        warming = asyncio.create_task(engine.start())
        warming.add_done_callback(_say_failure)
        try:
            yield
        finally:
            await asyncio.wait((warming,))
            await engine.close()

    app = FastAPI(
        title="CoReS", version=__version__, description=ABOUT, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.engine, app.state.traffic = engine, traffic
    app.add_middleware(Guard, settings=settings, metrics=metrics, traffic=traffic)
    app.add_exception_handler(HTTPException, _http_error)
    _add_questions(app, engine, settings)
    _add_health(app, engine, metrics, traffic)
    if settings.page:
        _refuse_the_rest(app)  # which the page at / would answer in a form of its own
        mount(app, engine, settings)
    return app


def _add_questions(app: FastAPI, engine: Engine, settings: Settings) -> None:
    @app.post(
        "/v1/segment",
        summary="Answers to questions about a picture, with masks",
        responses={**REFUSED, 200: {"model": Segmented}},
        openapi_extra=request_body(SegmentAsking, settings),
    )
    async def segment(request: Request) -> Response:
        asked = await read(request, SegmentAsking)

        async def work() -> list[dict[str, Any]]:
            found = await engine.segment(asked.image, asked.queries, asked.options)
            return await asyncio.to_thread(rendered, found, asked.image, asked.name, asked.formats)

        results = await while_there(request.receive, work(), settings.answer_seconds)
        return Response(dumps({"results": results}), media_type="application/json")

    @app.post(
        "/v1/chat",
        summary="The answer to one question, sent while it is made",
        responses={**REFUSED, 200: EVENTS},
        openapi_extra=request_body(ChatAsking, settings),
        response_class=Response,
    )
    async def chat(request: Request) -> Any:
        asked = await read(request, ChatAsking)
        pieces = engine.stream(asked.image, asked.queries[0], asked.options)
        first = await while_there(request.receive, anext(pieces), settings.answer_seconds)
        return EventStream(_events(first, pieces, asked), settings.answer_seconds)


async def _events(
    first: str | Segmentation, rest: AsyncGenerator[str | Segmentation, None], asked: Asked
) -> AsyncIterator[bytes]:
    """What went wrong before the first piece has a status of its own; what does later is an event."""
    async with aclosing(rest):
        try:
            piece: str | Segmentation | None = first
            while piece is not None:
                if isinstance(piece, str):
                    yield event("text", {"text": piece})
                else:
                    (found,) = await asyncio.to_thread(rendered, [piece], asked.image, asked.name, asked.formats)
                    yield event("result", found)
                piece = await anext(rest, None)
        except Exception as error:
            said = refusal_of(error)
            if said is None:
                raise
            yield event("error", {"error": str(said)})


def _refuse_the_rest(app: FastAPI) -> None:
    """Other methods and paths below /v1 are refused as everything else is."""
    known = {getattr(route, "path", ""): ", ".join(getattr(route, "methods", None) or ()) for route in app.routes}

    @app.api_route("/v1/{rest:path}", methods=METHODS, include_in_schema=False)
    async def refuse(request: Request, rest: str) -> Response:
        if allowed := known.get(f"/v1/{rest}"):
            raise HTTPException(405, "Method Not Allowed", {"allow": allowed})
        raise HTTPException(404, "Not Found")


def _add_health(app: FastAPI, engine: Engine, metrics: Metrics, traffic: Traffic) -> None:
    @app.get("/healthz", summary="Is the process alive?")
    async def healthz() -> Health:
        return Health(status="ok")

    @app.get("/readyz", summary="Can it answer questions?", responses={503: {"model": Health}})
    async def readyz(response: Response) -> Health:
        if traffic.draining or not engine.ready:
            response.status_code = 503
        return Health(status="draining" if traffic.draining else "ok" if engine.ready else "starting")

    @app.get("/metrics", summary="Counts, for Prometheus", response_class=Response)
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type=metrics.content_type)

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        return HTMLResponse(reference(app.openapi(), str(request.base_url).rstrip("/")))


def _watch(metrics: Metrics, engine: Engine, traffic: Traffic) -> None:
    """Numbers that the engine keeps itself."""
    cache = engine.cache
    metrics.watch("waiting", "Requests in the queue", lambda: engine.waiting)
    metrics.watch("working", "Requests that are worked on", lambda: traffic.working)
    metrics.watch("cache_bytes", "Features that are kept, in bytes", lambda: cache.held)
    metrics.watch("cache_pictures", "Pictures whose features are kept", lambda: len(cache))
    metrics.watch("cache_hits", "Pictures that were seen before", lambda: cache.hits)
    metrics.watch("cache_misses", "Pictures that had to be looked at", lambda: cache.misses)
    metrics.watch("ready", "1 when questions are answered", lambda: engine.ready)


def _say_failure(warming: asyncio.Task[None]) -> None:
    if not warming.cancelled() and (error := warming.exception()) is not None:
        log.error("the model cannot answer its first question: this server will never be ready", exc_info=error)


async def _http_error(request: Request, error: Exception) -> Response:
    """What the framework refuses, such as a path that is not there, in the words of a `Failure`."""
    assert isinstance(error, HTTPException)
    return Response(dumps({"error": str(error.detail)}), error.status_code, error.headers, "application/json")
