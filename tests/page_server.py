"""A server of this process, and a Chromium that looks at it."""

import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SWITCHES = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def serving(app: Any, settings: Any) -> Iterator[str]:
    """The address of this application, served by a thread as `cores serve` does it."""
    from cores.serving.server import Server, bound

    with bound("127.0.0.1", 0) as socket:
        server = Server(app, settings)
        thread = Thread(target=server.run, args=([socket],), daemon=True)
        thread.start()
        until = time.monotonic() + 120
        while not app.state.engine.ready and thread.is_alive() and time.monotonic() < until:
            time.sleep(0.05)
        assert app.state.engine.ready
        try:
            yield f"http://127.0.0.1:{socket.getsockname()[1]}/"
        finally:
            server.handle_exit(signal.SIGTERM, None)
            thread.join(30)


@contextmanager
def chromium(downloads: Path) -> Iterator[Any]:
    """A Chromium; skips the test where there is none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here: `make browser` installs Debian's")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install cores[dev]"
    )
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=SWITCHES, downloads_path=downloads)
        try:
            yield browser
        finally:
            browser.close()


class Window:
    """A window at an address: `page` is playwright's; what the console `said` and which `hosts` were asked is kept."""

    def __init__(self, browser: Any, address: str, width: int = 1280, height: int = 900, **context: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": height}, **context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.said: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        self.page.goto(address)

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.said.append(message.text)


class Tab(Window):
    """A window with the page for asking."""

    def __init__(self, browser: Any, address: str, width: int = 1280, height: int = 900, **context: Any) -> None:
        super().__init__(browser, address, width, height, **context)
        self.page.wait_for_selector(".page .go")

    def example(self, number: int = 0) -> None:
        """Take an example picture."""
        self.page.locator(".example").nth(number).click()
        self.page.wait_for_selector(".stage.full canvas")

    def ask(self, query: str) -> None:
        """Ask, and wait until it is answered or refused."""
        self.page.fill(".query", query)
        self.page.press(".query", "Enter")
        self.answered()

    def answered(self) -> None:
        """Wait until nothing is asked any more."""
        self.page.wait_for_function("document.querySelector('.go').textContent === 'Ask'")

    def text(self, name: str) -> str:
        """What an element says; nothing where it is hidden."""
        found = self.page.locator(name)
        return found.inner_text().strip() if found.is_visible() else ""

    def pixels(self) -> bytes:
        """The canvas, as a file of PNG."""
        import base64

        data = self.page.evaluate("document.querySelector('canvas').toDataURL('image/png')")
        return base64.b64decode(data.split(",")[1])

    def choice(self, name: str) -> Any:
        """The check box with this text beside it."""
        return self.page.locator(".chip", has_text=name).locator("input")

    def download(self, name: str, folder: Path) -> Path:
        """Press a button of the downloads; the file that comes."""
        with self.page.expect_download() as coming:
            self.page.click(f".downloads .{name}")
        path = folder / coming.value.suggested_filename
        coming.value.save_as(path)
        return path
