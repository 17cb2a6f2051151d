"""`cores chat`: in a terminal of its own, from a pipe, and pictures as terminals want them."""

import base64
import io
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cores.cli import main
from cores.cli.inline_pictures import blocks, fitted, graphics_of, iterm2, kitty, sixel
from cores.scenes.source import open_scenes


class Terminal(io.TextIOWrapper):
    """A stream that says it is a terminal."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding=encoding)

    def isatty(self) -> bool:
        return True


def picture() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 255, (22, 31, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.mark.parametrize(
    ("environment", "graphics"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"TERM": "foot-extra"}, "sixel"),
        ({"TERM": "xterm-256color"}, "blocks"),
        ({"TERM": "screen-256color", "KITTY_WINDOW_ID": "1"}, "blocks"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, "blocks"),
        ({"TERM": "dumb"}, "none"),
        ({}, "none"),
    ],
)
def test_what_a_terminal_can_show_is_known_by_its_environment(environment: dict[str, str], graphics: str) -> None:
    assert graphics_of(environment, Terminal()) == graphics
    assert graphics_of(environment, io.StringIO()) == "none"


def test_a_terminal_without_the_letters_gets_no_blocks() -> None:
    assert graphics_of({"TERM": "xterm"}, Terminal("ascii")) == "none"


def test_graphics_hold_the_picture() -> None:
    shown = picture()
    parts = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", kitty(shown.resize((300, 200))))
    assert [head.endswith("m=1") for head, _ in parts] == [True] * (len(parts) - 1) + [False]
    data = base64.b64decode("".join(part for _, part in parts))
    assert Image.open(io.BytesIO(data)).size == (300, 200)
    found = re.fullmatch(r"\x1b\]1337;File=inline=1;size=(\d+):([^\x07]+)\x07", iterm2(shown))
    assert found is not None
    data = base64.b64decode(found[2])
    assert len(data) == int(found[1])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(shown))


def test_sixels_are_the_picture_in_few_colours() -> None:
    few = picture().quantize(64).convert("RGB")
    found = np.zeros((22, 31, 3), dtype=np.uint8)
    text = sixel(picture())
    body = re.fullmatch(r'\x1bP0;1q"1;1;31;22((?:#\d+;2;\d+;\d+;\d+)*)(.*)\x1b\\', text)
    assert body is not None
    colors = {int(n): [int(v) for v in rgb.split(";")] for n, rgb in re.findall(r"#(\d+);2;([\d;]+)", body[1])}
    for band, line in enumerate(body[2].split("-")):
        for layer in line.split("$"):
            number, runs = re.fullmatch(r"#(\d+)(.*)", layer).groups()  # type: ignore[union-attr]
            x = 0
            for count, letter in re.findall(r"(?:!(\d+))?([?-~])", runs):
                for _ in range(int(count or 1)):
                    for bit in range(6):
                        if (ord(letter) - 63) >> bit & 1:
                            found[6 * band + bit, x] = [round(v * 255 / 100) for v in colors[int(number)]]
                    x += 1
            assert x == 31
    assert np.abs(found.astype(int) - np.asarray(few).astype(int)).max() <= 2


def test_half_blocks_show_two_rows_a_line() -> None:
    shown = fitted(picture(), 10)
    lines = blocks(shown).splitlines()
    assert (shown.size, len(lines)) == ((10, 8), 4)
    cells = [re.findall(r"38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m▀", line) for line in lines]
    values = np.array(cells, dtype=int).reshape(4, 10, 2, 3).transpose(0, 2, 1, 3).reshape(8, 10, 3)
    assert np.array_equal(values, np.asarray(shown))


def scene(folder: Path) -> tuple[Path, list[str]]:
    found = open_scenes("test", n=4)[3]
    found.image.save(folder / "scene.png")
    return folder / "scene.png", [turn.query for conversation in found.conversations for turn in conversation.turns]


@pytest.mark.slow
def test_in_a_terminal_answers_stream_masks_are_drawn_and_ctrl_d_ends(tmp_path: Path) -> None:
    image, queries = scene(tmp_path)
    main_side, other = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "CORES_CACHE": str(tmp_path / "cache"), "PYTHONUTF8": "1"}
    for name in ("TMUX", "KITTY_WINDOW_ID", "TERM_PROGRAM", "LC_TERMINAL"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "cores", "chat", str(image), "--out", str(tmp_path / "out")]
    sides = {"stdin": other, "stdout": other, "stderr": other}
    running = subprocess.Popen(command, **sides, env=environment, start_new_session=True)
    os.close(other)
    told = ""

    def until(mark: str, seconds: float = 240) -> str:
        """What is said to the end of the mark, since the last one."""
        nonlocal told
        ends = time.monotonic() + seconds
        while mark not in told and time.monotonic() < ends:
            if select.select([main_side], [], [], 1)[0]:
                try:
                    told += os.read(main_side, 65536).decode("utf-8", "replace")
                except OSError:  # the other side is closed
                    break
        before, found, told = told.partition(mark)
        assert found, before[-2000:]
        return before

    try:
        until("> ")
        os.write(main_side, f"{queries[0]}\r".encode())
        answer = until("scene.1.overlay.png")
        assert "[SEG]" in answer
        assert "▀" in answer
        until("> ")  # keys that come before the prompt go to the terminal, where Ctrl-D is an end of its own
        os.write(main_side, b"/undo\r")
        until("forgotten: ")
        until("> ")
        os.write(main_side, b"\x04")
        assert running.wait(timeout=60) == 0
    finally:
        running.kill()
        os.close(main_side)
    with Image.open(tmp_path / "out" / "scene.1.overlay.png") as overlay:
        assert overlay.width == 128
    assert queries[0] in (tmp_path / "cache" / "chat" / "history").read_text()


def test_questions_may_come_from_a_pipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, queries = scene(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{queries[0]}\n\n/help\na<image>b\n"))
    assert main(["chat", str(image), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "[SEG]" in said[0]
    assert said[1].startswith("-> ")
    assert said[2].startswith("/undo forgets")
    assert "<image>" in said[3]
    assert "\x1b" not in "".join(said)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["{tmp}/missing.png"], "no such file"),
        (["https://example.org/a.png"], "is an address"),
        (["{tmp}/scene.png", "--max-new-tokens", "0"], "an answer has at least one token"),
        (["{tmp}/scene.png", "--model", "{tmp}/nothing"], "there is no such folder"),
    ],
)
def test_a_mistake_is_one_line(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene(tmp_path)
    assert main(["chat", *(flag.format(tmp=tmp_path) for flag in flags)]) == 2
    assert message in capsys.readouterr().err
