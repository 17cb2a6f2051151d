"""The page as one Gradio component: its own HTML and script, questions and answers through Gradio's queue."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from importlib import resources
from typing import Any

import gradio as gr
from fastapi import FastAPI

from cores.inference.segmentation import Segmentation
from cores.serving.engine import Engine
from cores.serving.page.answers import as_shown
from cores.serving.page.examples import examples_html
from cores.serving.page.stopping import Stops
from cores.serving.page.uploads import sent
from cores.serving.refusals import refusal_of
from cores.serving.settings import Settings

log = logging.getLogger(__name__)

FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
FRAME = (
    ".gradio-container .main, .gradio-container .html-container {padding: 0 !important}"
    "@keyframes cores-blink {to {opacity: 0}}"  # which cannot stand in the page's own style sheet
)
GROUND = {"body_background_fill": "#f6f7f9", "body_background_fill_dark": "#12151b"}  # --ground of the style sheet
KEPT = (300, 3600)  # seconds: every so often pictures are deleted that were sent so long ago; a page sends its again
FAILED = "something went wrong here, and was logged: ask again, or ask for something else"
LOST = "() => ({lost: Date.now()})"  # what the page is told of a question that did not arrive
SCRIPTS = ("masks.js", "view.js", "showing.js", "drawing.js", "asking.js", "pictures.js", "files.js")  # one scope


def mount_blocks(app: FastAPI, engine: Engine, settings: Settings) -> None:
    """As `cores.serving.page.mount`."""
    gr.mount_gradio_app(
        app,
        build(engine, settings.about),
        path="/",
        theme=gr.themes.Base(font=FONTS, font_mono=["ui-monospace", "monospace"]).set(**GROUND),
        css=FRAME,
        footer_links=[],
        run_history=False,
        show_error=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        max_file_size=settings.max_body,
    )


def build(engine: Engine, about: str = "") -> gr.Blocks:
    """The page's blocks; `about`: a sentence under its title."""
    html = _file("page.html").replace("EXAMPLES", examples_html())
    script = "\n".join([*map(_file, SCRIPTS), "show();"])

    stops = Stops()

    async def answer(event: gr.EventData, tab: gr.Request) -> AsyncIterator[dict[str, Any]]:
        async with aclosing(answered(engine, event._data, stops, str(tab.session_hash))) as pieces:
            async for told in pieces:
                yield told

    def stop(event: gr.EventData, tab: gr.Request) -> None:
        match event._data:  # else it was no page that said so
            case {"number": int(number)}:
                stops.stop(str(tab.session_hash), number)

    blocks: gr.Blocks
    with gr.Blocks(title="CoReS", analytics_enabled=False, fill_width=True, delete_cache=KEPT) as blocks:
        style = _file("page.css")
        page = gr.HTML(html_template=html, css_template=style, js_on_load=script, apply_default_css=False, about=about)
        # Many questions at a time: it is the engine that queues them, batches them and refuses what is too much.
        how: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "trigger_mode": "multiple"}
        asked = page.ask(answer, None, page, queue=True, concurrency_limit=None, **how)
        asked.failure(None, None, page, js=LOST)
        page.stop(stop, None, None, queue=False, **how)
    return blocks


async def answered(engine: Engine, question: Any, stops: Stops, tab: str) -> AsyncGenerator[dict[str, Any], None]:
    """What the page is told about one question, each with the `number` that it gave the question.

    First `text`, what is said so far, again and again; then `answer` (`as_shown`). Else `sorry`, why there is none,
    with `gone` when the picture has to be sent again; nothing more once `tab` has stopped it. `question`: what the
    page says, or anybody who can write HTTP.
    """
    match question:
        case {"number": int(number), "query": str(query), "name": str(name), "path": path}:
            pass
        case _:
            yield {"number": None, "sorry": "This was no question of the page's."}
            return
    picture = await asyncio.to_thread(sent, path)
    if picture is None:
        yield {"number": number, "gone": True, "sorry": "The picture is no longer here: drop it again."}
        return
    text = ""
    try:
        async with (  # so that leaving stops the work at once
            aclosing(engine.stream(picture, query)) as stream,
            aclosing(stops.until(tab, number, stream)) as pieces,
        ):
            async for piece in pieces:
                if isinstance(piece, Segmentation):
                    yield {"number": number, "answer": await asyncio.to_thread(as_shown, piece, name)}
                else:
                    text += piece
                    yield {"number": number, "text": text}
    except Exception as error:
        said = refusal_of(error)
        if said is None:
            log.exception("a question of the page failed")
        yield {"number": number, "sorry": _sentence(str(said or FAILED))}


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _file(name: str) -> str:
    return resources.files("cores.serving.page").joinpath(name).read_text(encoding="utf-8")
