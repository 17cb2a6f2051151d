"""docs/extending.md does what it says: each of its steps, done in a copy of the package, passes its own checks."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text("utf-8")
STEP = re.compile(r"<!-- (new|in|check)(?:: (\S+?)(?:, after: (.+?))?)? -->\n```python\n(.*?)```", re.DOTALL)
CHAPTERS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))


def test_every_chapter_has_steps_and_a_check():
    assert len(CHAPTERS) >= 5
    for title, text in CHAPTERS.items():
        kinds = [kind for kind, *_ in STEP.findall(text)]
        assert kinds[-1] == "check", title
        assert len(kinds) >= 2, title
        assert text.count("```python") == len(kinds), f"{title}: a block that no step uses"


@pytest.mark.parametrize("title", CHAPTERS)
def test_the_steps_of_a_chapter_work(title, tmp_path):
    package = tmp_path / "src" / "cores"
    shutil.copytree(ROOT / "src" / "cores", package, ignore=shutil.ignore_patterns("__pycache__"))
    for kind, name, anchor, code in STEP.findall(CHAPTERS[title]):
        if kind == "new":
            assert not (tmp_path / name).exists()
            (tmp_path / name).write_text(code, "utf-8")
        elif kind == "in":
            _insert(tmp_path / name, anchor, code)
        else:
            (tmp_path / "test_added.py").write_text(code, "utf-8")
    for place in (package, tmp_path / "test_added.py"):
        found = subprocess.run(
            [sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"), str(place)],
            capture_output=True,
            text=True,
        )
        assert found.returncode == 0, found.stdout
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "."]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(package.parent), str(ROOT / "tests")])}
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def _insert(file: Path, anchor: str, code: str) -> None:
    """Put lines behind the one line that holds the anchor."""
    lines = file.read_text("utf-8").splitlines(keepends=True)
    (place,) = (number for number, line in enumerate(lines) if anchor in line)
    file.write_text("".join([*lines[: place + 1], code, *lines[place + 1 :]]), "utf-8")
