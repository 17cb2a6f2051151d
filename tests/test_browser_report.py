"""An evaluation's report in a real Chromium, as `cores eval` writes it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_server import Window, chromium

from cores.cli import main

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluation") / "out"
    assert main(["eval", "--on", "scenes|test", "--limit", "6", "--out", str(out), "--quiet"]) == 0
    return out / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("downloads")) as found:
        yield found


@pytest.mark.parametrize("width", [1280, 390])
def test_a_report_shows_itself_without_a_word_of_complaint(browser: Any, report: Path, width: int) -> None:
    window = Window(browser, report.as_uri(), width)
    page = window.page
    assert window.said == []
    assert window.hosts == {""}
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    (left,) = {bar["x"] for bar in map(lambda bar: bar.bounding_box(), page.locator(".blocks i").all())}
    assert left > 0  # every bar begins where the others do
    window.context.close()


def test_the_box_finds_answers_by_their_words_and_the_other_answers_unfold(browser: Any, report: Path) -> None:
    window = Window(browser, report.as_uri())
    page = window.page
    lines = page.evaluate("document.querySelector('.filter textarea').value").split("\n")
    word = lines[0].split("\t")[-1].split()[-1]
    page.locator(".filter input").press_sequentially(word)
    wanted = [line for line in lines if word.lower() in line.lower()]
    assert page.inner_text(".filter output").startswith(f"{len(wanted)} answers")
    assert page.locator(".filter pre").inner_text().split("\n") == wanted
    page.fill(".filter input", "<b>nothing</b>")
    assert page.inner_text(".filter output") == "0 answers"
    table = page.locator("details").nth(1).locator("table").first
    assert not table.is_visible()
    page.locator("summary").nth(1).click()
    assert table.is_visible()
    assert window.said == []
    window.context.close()
