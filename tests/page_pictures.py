"""Photographs the page and a report for the docs: python tests/page_pictures.py docs/images"""

import sys
import tempfile
from io import BytesIO
from pathlib import Path

from page_server import Tab, Window, chromium, serving
from PIL import Image

import cores
from cores.cli import main as command
from cores.cli.asking import TINY
from cores.serving.app import create_app
from cores.serving.settings import Settings


def main(folder: Path) -> None:
    """Write page.png, page-dark.png, page-phone.png and report.png."""
    settings = Settings(about=f"{TINY}.")
    with (
        tempfile.TemporaryDirectory() as downloads,
        chromium(Path(downloads)) as browser,
        serving(create_app(cores.load(), settings), settings) as address,
    ):
        desk = Tab(browser, address, 1180, 820)
        desk.example(3)
        desk.ask("the thing you would chop onions with")
        desk.ask("leg of the purple chair")
        desk.choice("location").check()
        photograph(desk, folder / "page.png")
        dark = Tab(browser, address, 1180, 820, color_scheme="dark")
        dark.example(2)
        dark.ask("pan at the bottom and the pan at the top")
        photograph(dark, folder / "page-dark.png")
        phone = Tab(browser, address, 390, 844, is_mobile=True, has_touch=True)
        phone.example(1)
        phone.ask("which one do you sip a hot drink from, the green one on the left?")
        photograph(phone, folder / "page-phone.png")
        out = Path(downloads) / "evaluation"
        asked = ["--on", "scenes|test", "--limit", "40", "--answers", "generated"]
        command(["eval", *asked, "--out", str(out), "--quiet"])
        report = Window(browser, (out / "report.html").as_uri(), 1180, 1000)
        report.page.evaluate("document.querySelector('h2').scrollIntoView()")
        photograph(report, folder / "report.png", whole=False)


def photograph(window: Window, path: Path, whole: bool = True) -> None:
    """The page, or what the window shows of it, in few enough colours to be a small file."""
    window.page.evaluate("document.activeElement.blur()")
    opened = Image.open(BytesIO(window.page.screenshot(full_page=whole))).convert("RGB")
    opened.quantize(192, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
