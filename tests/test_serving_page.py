"""The page without a browser: what strangers may send to it, and that it names no other machine."""

import asyncio
import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from cores.errors import CheckpointError, DataError
from cores.serving.page import mount
from cores.serving.page.blocks import FAILED, SCRIPTS, answered
from cores.serving.page.stopping import Stops
from cores.serving.settings import Settings


class Saying:
    """Instead of an engine: says some words, then fails. `asked`: the bytes of pictures."""

    def __init__(self, *words: str, error: Exception) -> None:
        self.words, self.error = words, error
        self.asked: list[bytes] = []

    async def stream(self, picture: bytes, query: str) -> Any:
        self.asked.append(picture)
        for word in self.words:
            yield word
        raise self.error


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what browsers send is kept, with one file."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "sent"))
    (tmp_path / "sent" / "1f").mkdir(parents=True)
    (tmp_path / "sent" / "1f" / "a.png").write_bytes(b"a picture")
    (tmp_path / "secret").write_text("not yours")
    return tmp_path / "sent"


def told(engine: Any, question: Any) -> list[dict[str, Any]]:
    async def collect() -> list[dict[str, Any]]:
        return [one async for one in answered(engine, question, Stops(), "tab")]

    return asyncio.run(collect())


def question(path: Any, **other: Any) -> dict[str, Any]:
    return {"number": 1, "query": "the cup", "name": "a.png", "path": path, **other}


def test_what_is_said_so_far_comes_again_and_again_then_what_went_wrong(folder: Path) -> None:
    engine = Saying("It ", "is", error=DataError("the picture: is damaged"))
    assert told(engine, question(str(folder / "1f" / "a.png"))) == [
        {"number": 1, "text": "It "},
        {"number": 1, "text": "It is"},
        {"number": 1, "sorry": "The picture: is damaged."},
    ]
    assert engine.asked == [b"a picture"]


@pytest.mark.parametrize("error", [CheckpointError("/models/ours: no config.json"), OSError("/tmp/x")], ids=repr)
def test_faults_of_the_server_name_no_file(folder: Path, error: Exception) -> None:
    (last,) = told(Saying(error=error), question(str(folder / "1f" / "a.png")))
    assert last["sorry"].lower() == f"{FAILED}."


def test_no_file_is_read_but_what_was_sent(folder: Path) -> None:
    engine = Saying(error=AssertionError("asked"))
    (folder / "1f" / "link.png").symlink_to(folder.parent / "secret")
    paths = [
        "/etc/passwd",
        str(folder / ".." / "secret"),
        str(folder / "1f" / "link.png"),
        str(folder),
        str(folder / "1f" / "none.png"),
        f"{folder}\0",
        "x" * 5000,
        None,
        7,
        {"path": "/etc/passwd"},
    ]
    for path in paths:
        (said,) = told(engine, question(path))
        assert said["gone"]
    assert engine.asked == []


@pytest.mark.parametrize(
    "sent", [None, 3, "x", [], {}, question("x", number="1"), question("x", query=["a"])], ids=repr
)
def test_what_is_no_question_is_refused(sent: Any) -> None:
    (said,) = told(Saying(error=AssertionError("asked")), sent)
    assert said == {"number": None, "sorry": "This was no question of the page's."}


def test_gradio_serves_no_files_of_the_machine_and_asks_no_other(folder: Path) -> None:
    async def built() -> FastAPI:  # in a loop, since gradio leaves one open where it finds none
        app = FastAPI()
        mount(app, Saying(error=AssertionError("asked")), Settings())
        return app

    client = TestClient(asyncio.run(built()))
    assert "CoReS" in client.get("/").text
    for path in ("/etc/passwd", str(folder.parent / "secret"), f"{folder}/../secret", __file__):
        assert client.get(f"/gradio_api/file={path}").status_code in (403, 404)
    assert client.get("/gradio_api/proxy=http://127.0.0.1:1/x").status_code >= 400
    assert client.get("/monitoring/summary").status_code >= 400
    assert client.get("/gradio_api/info").json()["named_endpoints"] == {}


def test_the_pages_own_files_name_no_other_machine_and_are_what_gradio_takes_them_for() -> None:
    files = {
        path.name: path.read_text("utf-8")
        for path in resources.files("cores.serving.page").iterdir()
        if "." in path.name and not path.name.endswith(".py")
    }
    assert set(files) == {"page.html", "page.css", *SCRIPTS}
    for name, text in files.items():
        assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", text), name
    for name in ("page.html", "page.css"):  # templates of Handlebars, then of JavaScript
        assert not re.search(r"`|\$\{|\\|\{\{(?!about\}\})", files[name]), name


class Endless:
    """An engine that says one word and then thinks. `left`: how often it was given up."""

    def __init__(self) -> None:
        self.left = 0

    async def stream(self, picture: bytes, query: str) -> Any:
        try:
            yield "word"
            await asyncio.sleep(3600)
        finally:
            self.left += 1


def test_a_tab_stops_its_own_question_alone_also_before_it_arrives(folder: Path) -> None:
    async def talk() -> None:
        engine, stops, path = Endless(), Stops(), str(folder / "1f" / "a.png")

        async def ask(tab: str, number: int) -> list[dict[str, Any]]:
            return [one async for one in answered(engine, question(path, number=number), stops, tab)]

        asked = [asyncio.create_task(ask(*which)) for which in (("a", 1), ("b", 1), ("a", 2))]
        await asyncio.sleep(0.2)
        stops.stop("a", 1)
        assert await asyncio.wait_for(asked[0], 5) == [{"number": 1, "text": "word"}]
        await asyncio.sleep(0.1)
        assert engine.left == 1
        assert not asked[1].done()
        assert not asked[2].done()  # asked after the one that was stopped
        stops.stop("b", 7)
        assert await asyncio.wait_for(asked[1], 5) == [{"number": 1, "text": "word"}]
        assert await asyncio.wait_for(ask("b", 7), 5) == []  # stopped on its way here
        asked[2].cancel()  # whoever listened has left
        with pytest.raises(asyncio.CancelledError):
            await asked[2]
        assert engine.left == 3
        assert not stops._asked

    asyncio.run(talk())
