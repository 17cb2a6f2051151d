"""The page as one Gradio component: its own HTML and script, questions and answers through Gradio's queue."""

import asyncio
import hmac
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from html import escape
from importlib import resources
from typing import Any, cast

import gradio as gr
from fastapi import FastAPI

from cores.errors import CoresError
from cores.inference.segmentation import Segmentation
from cores.serving.engine import Engine
from cores.serving.page.answers import as_shown
from cores.serving.page.examples import examples_html
from cores.serving.page.uploads import sent
from cores.serving.settings import Settings

log = logging.getLogger(__name__)

FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
FRAME = (
    ".gradio-container .main, .gradio-container .html-container {padding: 0 !important}"
    "@keyframes cores-blink {to {opacity: 0}}"  # which cannot stand in the page's own style sheet
)
GROUND = {"body_background_fill": "#f6f7f9", "body_background_fill_dark": "#12151b"}  # --ground of the style sheet
KEPT = (300, 3600)  # seconds: every so often pictures are deleted that were sent so long ago; a page sends its again
SCRIPTS = ("masks.js", "files.js", "page.js")  # one after the other, one scope


def mount_blocks(app: FastAPI, engine: Engine, settings: Settings, note: str) -> None:
    """As `cores.serving.page.mount`."""
    gr.mount_gradio_app(
        app,
        build(engine, note),
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
        auth=_with_key(settings.api_keys),
        auth_message="The password is the API key; any name will do." if settings.api_keys else None,
    )


def build(engine: Engine, note: str = "") -> gr.Blocks:
    """The page's blocks; `note` as `mount` takes it."""
    html = _file("page.html").replace("EXAMPLES", examples_html()).replace("NOTE", escape(note))
    script = "\n".join(map(_file, SCRIPTS))

    async def answer(event: gr.EventData) -> AsyncIterator[dict[str, Any]]:
        async for told in answered(engine, event._data):
            yield told

    blocks: gr.Blocks
    with gr.Blocks(title="CoReS", analytics_enabled=False, fill_width=True, delete_cache=KEPT) as blocks:
        page = gr.HTML(html_template=html, css_template=_file("page.css"), js_on_load=script, apply_default_css=False)
        # Many questions at a time: it is the engine that queues them, batches them and refuses what is too much.
        once = {"queue": True, "show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
        asked = page.ask(answer, None, page, **once)
        page.stop(None, None, None, cancels=[asked])
    return blocks


async def answered(engine: Engine, question: Any) -> AsyncIterator[dict[str, Any]]:
    """What the page is told about one question, each with the `number` that it gave the question.

    First `text`, what is said so far, again and again; then `answer` (`as_shown`). Else `sorry`, why there is none,
    with `gone` when the picture has to be sent again. `question`: what the page says, or anybody who can write HTTP.
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
    text, stream = "", cast(AsyncGenerator[str | Segmentation], engine.stream(picture, query))
    try:
        async with aclosing(stream) as pieces:  # so that leaving stops the work at once
            async for piece in pieces:
                if isinstance(piece, Segmentation):
                    yield {"number": number, "answer": await asyncio.to_thread(as_shown, piece, name)}
                else:
                    text += piece
                    yield {"number": number, "text": text}
    except CoresError as error:
        yield {"number": number, "sorry": _sentence(str(error))}
    except Exception:
        log.exception("a question of the page failed")
        yield {"number": number, "sorry": "Something went wrong on the server: ask again, or ask for something else."}


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _with_key(keys: tuple[str, ...]) -> Any:
    """Who may log in: whoever knows one of the keys, if there are any."""
    known = [key.encode() for key in keys]
    return (lambda name, given: any([hmac.compare_digest(given.encode(), key) for key in known])) if known else None


def _file(name: str) -> str:
    return resources.files("cores.serving.page").joinpath(name).read_text(encoding="utf-8")
