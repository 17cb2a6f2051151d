"""The page in a real Chromium: what a person does with it, and what must not happen to them."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from fastapi import FastAPI
from page_server import Tab, chromium, serving
from PIL import Image

import cores
from cores import masks
from cores.data.sources import open_source
from cores.scenes.source import open_scenes
from cores.serving.app import create_app
from cores.serving.guard import Traffic
from cores.serving.page import mount
from cores.serving.page.examples import EXAMPLES, SIDE
from cores.serving.settings import Settings

pytestmark = pytest.mark.browser

SEVERAL = "car on the left and the house"  # of the first example
# Keeps what the sentence says, each time that it changes.
WATCH = """() => {
  window.heard = [];
  const said = document.querySelector(".said");
  new MutationObserver(() => heard.push(said.textContent)).observe(said, {childList: true, subtree: true});
}"""
# Both in one tick.
STOP_AND_ASK = """query => {
  document.querySelector(".go").click();
  document.querySelector(".query").value = query;
  document.querySelector(".ask").requestSubmit();
}"""
ABSENT = "point to the one that the raindrops fall on."  # of the second


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("downloads")) as found:
        yield found


@pytest.fixture(scope="module")
def model() -> Any:
    return cores.load()


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the server keeps what browsers send."""
    folder = tmp_path_factory.mktemp("sent")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def address(browser: Any, model: Any, sent: Path) -> Iterator[str]:
    settings = Settings(about="A note about the model.")
    with serving(create_app(model, settings), settings) as found:
        yield found


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Any]:
    """Opens tabs. None of them may have complained, or asked anybody but this machine."""
    tabs: list[Tab] = []

    def one(**context: Any) -> Tab:
        tabs.append(Tab(browser, address, **context))
        return tabs[-1]

    yield one
    for tab in tabs:
        assert tab.said == []
        assert tab.hosts <= {urlsplit(address).netloc, ""}  # "": what the page has in itself
        tab.context.close()


@pytest.fixture
def tab(opened: Any) -> Tab:
    return opened()


def scene(number: int = 0) -> Image.Image:
    """The picture of an example."""
    return open_scenes("test", 20, size=SIDE).scene(list(EXAMPLES)[number]).picture


def png(content: bytes | Path) -> np.ndarray:
    file = BytesIO(content) if isinstance(content, bytes) else content
    return np.asarray(Image.open(file).convert("RGB")).astype(int)


def slide(tab: Tab, percent: int) -> None:
    tab.page.locator(".opacity").fill(str(percent))


def test_an_answer_is_seen_switched_and_taken_home(tab: Tab, model: Any, tmp_path: Path) -> None:
    picture = scene()
    (truth,) = model.segment(picture, [SEVERAL])
    tab.example()
    tab.page.evaluate(WATCH)
    tab.ask(SEVERAL)
    assert tab.text(".said") == truth.answer
    heard = list(dict.fromkeys(tab.page.evaluate("heard")))
    assert len(heard) > 2  # word after word
    assert all(truth.answer.startswith(text) for text in heard)
    assert [row.split("\n") for row in tab.page.locator(".targets .chip").all_inner_texts()] == [
        [target.phrase, f"confidence {target.confidence:.2f}"] for target in truth.targets
    ]

    # The picture as shown: full colour inside of the masks, and nothing changed away from them.
    slide(tab, 100)
    inside, outside = truth.mask, ~truth.mask
    for _ in range(4):  # pixels of outline and rim
        inside, outside = (np.pad(m, 1, mode="edge") for m in (inside, outside))
        inside, outside = (
            np.min([m[y : y + SIDE, x : x + SIDE] for y in range(3) for x in range(3)], 0) for m in (inside, outside)
        )
    assert inside.any()
    drawn, plain = png(tab.download("png", tmp_path)), np.asarray(picture).astype(int)
    assert drawn.shape == plain.shape
    assert np.array_equal(drawn[outside], plain[outside])
    assert len({tuple(color) for color in drawn[inside]}) == 2
    slide(tab, 0)
    assert np.array_equal(png(tab.download("png", tmp_path))[inside], plain[inside])

    # Layers switch without a question: the browser has them all.
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url))
    slide(tab, 50)
    target = tab.pixels()
    tab.choice("location").check()
    both = tab.pixels()
    tab.choice("target").uncheck()
    location = tab.pixels()
    tab.choice("location").uncheck()
    nothing = tab.pixels()
    tab.choice("target").check()
    assert tab.pixels() == target
    tab.choice(truth.targets[0].phrase).uncheck()
    one = tab.pixels()
    assert len({target, both, location, nothing, one}) == 5
    assert not asked

    found = json.loads(tab.download("json", tmp_path).read_text("utf-8"))
    assert found["answers"] == json.loads(json.dumps([truth.to_dict()]))
    picture.save(tmp_path / found["image"])
    labelled = json.loads(tab.download("labelme", tmp_path).read_text("utf-8"))
    assert {shape["label"] for shape in labelled["shapes"]} == {SEVERAL}
    assert len({shape["group_id"] for shape in labelled["shapes"]}) == 2
    folder = tmp_path / "labelled"
    folder.mkdir()
    for name in (found["image"], f"{Path(found['image']).stem}.json"):
        (tmp_path / name).rename(folder / name)
    (sample,) = open_source(f"labelme:{folder}")
    read = [
        target.mask for conversation in sample.conversations for turn in conversation.turns for target in turn.targets
    ]
    again = np.any([masks.decode(rle) for rle in read], 0)
    assert (again & truth.mask).sum() / (again | truth.mask).sum() > 0.97


def test_a_refusal_marks_nothing_and_the_history_keeps_every_answer(tab: Tab, tmp_path: Path) -> None:
    tab.example(1)
    tab.ask(ABSENT)
    assert tab.text(".said").startswith("There is no")
    assert tab.text(".remark") == "Nothing is marked."
    assert tab.text(".under") == ""
    labelled = json.loads(tab.download("labelme", tmp_path).read_text("utf-8"))
    assert (labelled["shapes"], labelled["flags"]) == ([], {f"absent: {ABSENT}": False})
    plain = tab.pixels()
    tab.ask("where is the yellow fish?")
    marked = tab.pixels()
    assert marked != plain
    tab.page.locator(".history button").first.click()
    assert tab.pixels() == plain
    assert tab.text(".asked") == ABSENT
    tab.page.locator(".history button").last.click()
    assert tab.pixels() == marked


def test_undo_takes_back_step_by_step(tab: Tab) -> None:
    assert tab.text(".undo") == ""
    tab.example(1)
    plain = tab.pixels()
    tab.ask("where is the yellow fish?")
    first = tab.pixels()
    tab.ask("handle of the cup on the left")
    tab.page.set_input_files(".file", {"name": "grey.png", "mimeType": "image/png", "buffer": grey()})
    tab.page.wait_for_function("document.querySelector('canvas').getAttribute('aria-label') === 'grey.png'")
    tab.page.click(".undo")
    assert tab.text(".asked") == "handle of the cup on the left"
    tab.page.click(".undo")
    assert tab.pixels() == first
    tab.page.click(".undo")
    assert tab.pixels() == plain
    assert tab.text(".said") == ""
    tab.page.click(".undo")
    assert tab.page.locator(".examples").is_visible()
    assert not tab.page.locator("canvas").is_visible()


def grey() -> bytes:
    file = BytesIO()
    Image.new("RGB", (40, 30), "grey").save(file, "PNG")
    return file.getvalue()


def test_two_tabs_at_once_get_their_own_answers(opened: Any, model: Any) -> None:
    pairs = [(0, SEVERAL), (2, "pan at the bottom and the pan at the top"), (0, "the pink chair"), (2, "red cup")]
    tabs = [opened() for _ in range(2)]
    for tab, number in zip(tabs, (0, 2), strict=True):
        tab.example(number)
    for round_ in (pairs[:2], pairs[2:]):
        for tab, (_, query) in zip(tabs, round_, strict=True):  # both ask before either is waited for
            tab.page.fill(".query", query)
            tab.page.press(".query", "Enter")
        for tab, (number, query) in zip(tabs, round_, strict=True):
            tab.answered()
            assert tab.text(".asked") == query
            assert tab.text(".said") == model.segment(scene(number), [query])[0].answer


def test_the_keyboard_is_enough(tab: Tab, tmp_path: Path) -> None:
    page = tab.page

    def focused() -> str:
        return str(page.evaluate("document.activeElement.className"))

    def tab_to(name: str) -> None:
        for _ in range(25):
            page.keyboard.press("Tab")
            if name in focused().split():
                return
        raise AssertionError(f"Tab does not lead to {name}, but to {focused()!r}")

    tab_to("file")
    tab_to("query")
    tab_to("example")
    page.keyboard.press("Enter")
    page.wait_for_selector(".stage.full canvas")
    assert focused() == "query"
    page.keyboard.type(SEVERAL)
    page.keyboard.press("Enter")
    tab.answered()
    assert focused() == "query"
    before = tab.pixels()
    page.keyboard.press("Shift+Tab")
    assert focused() == "opacity"
    page.keyboard.press("ArrowRight")
    stronger = tab.pixels()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")  # the target's level
    assert len({before, stronger, tab.pixels()}) == 3
    tab_to("undo")
    tab_to("json")
    with page.expect_download():
        page.keyboard.press("Enter")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert tab.text(".said") == ""


def test_a_phone_shows_all_of_it_without_scrolling_sideways(opened: Any) -> None:
    tab = opened(width=390, height=844, has_touch=True, is_mobile=True, device_scale_factor=2)
    tab.example()
    tab.page.tap(".suggestions .chip >> nth=1")
    tab.answered()
    assert tab.text(".said")
    assert tab.page.evaluate("document.documentElement.scrollWidth") == 390
    right = "[...document.querySelectorAll('.page *')].map(node => node.getBoundingClientRect().right)"
    assert max(tab.page.evaluate(right)) <= 390.5
    for name in (".go", ".undo", ".png", ".levels .chip >> nth=0"):
        assert tab.page.locator(name).bounding_box()["height"] >= 40  # so that a thumb meets it


def test_mistakes_are_told_kindly_and_cost_nothing(tab: Tab, address: str) -> None:
    tab.ask("anything")
    assert tab.text(".sorry").startswith("Choose a picture first")
    tab.page.set_input_files(".file", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"})
    tab.page.wait_for_selector(".sorry:has-text('notes.txt is no picture')")
    tab.example()
    assert tab.text(".sorry") == ""
    tab.ask("   ")
    assert tab.text(".sorry") == "Ask for something in words."
    tab.ask("house " * 400)
    assert "at most 2000" in tab.text(".sorry")
    assert tab.page.input_value(".query").startswith("house house")  # so that it can be made shorter
    assert tab.text(".said") == ""
    tab.ask("<img src=x onerror=alert(1)> [SEG] <image>")
    assert tab.text(".asked") == "<img src=x onerror=alert(1)> [SEG] <image>"
    assert tab.page.locator(".right img").count() == 0


def test_a_picture_that_the_server_deleted_is_sent_again(tab: Tab, sent: Path) -> None:
    tab.example()
    tab.ask("the pink chair")
    for path in sent.rglob("*.png"):
        path.unlink()
    tab.ask(SEVERAL)
    assert tab.text(".sorry") == ""
    assert len(tab.page.locator(".targets .chip").all()) == 2


class Slow:
    """Instead of an engine: says one word after the other and never ends. `told`: words; `left`: answers given up."""

    ready, working = True, 0

    def __init__(self) -> None:
        self.told, self.left = 0, 0

    async def stream(self, picture: bytes, query: str) -> AsyncIterator[str]:
        try:
            while True:
                await asyncio.sleep(0.05)
                self.told += 1
                yield f"{query} "
        finally:
            self.left += 1


@contextmanager
def talking(browser: Any) -> Iterator[tuple[Slow, Tab]]:
    """A page of such an engine, with a picture."""
    app, engine = FastAPI(), Slow()
    app.state.engine, app.state.traffic = engine, Traffic()
    app.get("/healthz")(lambda: "ok")
    mount(app, engine, Settings())
    with serving(app, Settings()) as address:
        tab = Tab(browser, address)
        tab.example()
        yield engine, tab


def test_an_answer_streams_and_whoever_leaves_stops_the_work(browser: Any, sent: Path) -> None:
    with talking(browser) as (engine, tab):
        for leave in (lambda: tab.page.click(".go"), lambda: tab.page.keyboard.press("Escape"), tab.context.close):
            tab.page.fill(".query", "word")
            tab.page.press(".query", "Enter")
            tab.page.wait_for_selector(".said:has-text('word word word')")
            left = engine.left
            leave()
            until = time.monotonic() + 20
            while engine.left == left and time.monotonic() < until:
                time.sleep(0.05)
            assert engine.left == left + 1
        assert tab.said == []


def test_a_question_asked_in_the_moment_in_which_another_is_stopped_is_answered(browser: Any, sent: Path) -> None:
    with talking(browser) as (engine, tab):
        tab.page.fill(".query", "word0")
        tab.page.press(".query", "Enter")
        for number in range(1, 5):
            tab.page.wait_for_selector(f".said:has-text('word{number - 1} word{number - 1}')")
            tab.page.evaluate(STOP_AND_ASK, f"word{number}")
        tab.page.wait_for_selector(".said:has-text('word4 word4')")
        until = time.monotonic() + 20
        while engine.left < 4 and time.monotonic() < until:
            time.sleep(0.05)
        assert engine.left == 4
        tab.context.close()


def test_a_server_that_refuses_or_is_away_gives_the_question_back(browser: Any, model: Any, sent: Path) -> None:
    settings = Settings(rate=2)
    with serving(create_app(model, settings), settings) as address:
        tab = Tab(browser, address)
        tab.example()  # the picture is one request,
        tab.ask(SEVERAL)  # the question another
        answer = tab.text(".said")
        tab.ask("the pink chair")
        assert "busy or away" in tab.text(".sorry")
        assert tab.text(".said") == answer
        assert tab.page.input_value(".query") == "the pink chair"
    tab.ask("red cup")
    assert "the server is away" in tab.text(".sorry")
    assert tab.text(".said") == answer
    tab.context.close()


def test_a_key_is_asked_for_where_there_is_one(browser: Any, model: Any, sent: Path) -> None:
    settings = Settings(api_keys=("secret",))
    with serving(create_app(model, settings), settings) as address:
        for password, status in (("wrong", 401), ("secret", 200)):
            context = browser.new_context(http_credentials={"username": "anybody", "password": password})
            assert context.new_page().goto(address).status == status
            context.close()
        tab = Tab(browser, address, http_credentials={"username": "anybody", "password": "secret"})
        tab.example()
        tab.ask(SEVERAL)  # uploads and questions bring the key, too
        assert len(tab.page.locator(".targets .chip").all()) == 2
        tab.context.close()
