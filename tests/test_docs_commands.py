"""Commands and code that the docs show: every flag exists, and Python runs as it stands."""

import io
import os
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout, suppress
from functools import cache
from pathlib import Path

import pytest

from cores.cli import VERBS, main

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
FENCED = re.compile(r"^```(?:sh|text)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:^|-m |\$ )cores (.+)$", re.MULTILINE)
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


@cache
def help_of(*words: str) -> str:
    printed = io.StringIO()
    with redirect_stdout(printed), suppress(SystemExit):
        main([*words, "--help"])
    return printed.getvalue()


def shown(page: Path) -> list[str]:
    """What stands behind `cores` in code blocks, and in code inside of sentences."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    blocks = "\n".join(FENCED.findall(text))
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [*COMMAND.findall(blocks), *re.findall(r"`cores ([^`]+)`", outside)]


def parser_of(words: list[str]) -> tuple[str, ...]:
    """Which parser reads a command: a verb's, that of a verb below it, or the one for very many pictures."""
    if "--engine" in words:
        return words[0], "--engine", "ray"
    below = tuple(words[:2])
    usage = f"usage: cores {' '.join(below)} "
    return below if words[1:2] and words[1].isalpha() and help_of(*below).startswith(usage) else (words[0],)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_flag_of_a_command_exists(page: Path) -> None:
    for command in shown(page):
        words = command.partition("  #")[0].split()
        if words[0].startswith("-") or words[0].isupper():
            continue  # --help, VERB
        assert words[0] in VERBS, f"{page.name}: cores {command}"
        unknown = set(FLAG.findall(" ".join(words))) - set(FLAG.findall(help_of(*parser_of(words))))
        assert not unknown, f"{page.name}: cores {command}: there is no {', '.join(unknown)}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["predict", "results-formats"])
def test_python_of_a_page_runs(name: str, tmp_path: Path) -> None:
    """All of its blocks, one after the other, with a scene for its photographs."""
    for extra in ("pandas", "supervision") if name == "results-formats" else ():
        pytest.importorskip(extra)
    page = ROOT / "docs" / f"{name}.md"
    for picture in ("kettle.jpg", "desk.jpg"):
        shutil.copy(ROOT / "docs" / "images" / "scene.png", tmp_path / picture)
    code = "\n".join(PYTHON.findall(page.read_text("utf-8")))
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
