"""What the docs point at is there: files, headings, public names, commands; and the site builds without a warning."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

import cores
from cores.cli import VERBS
from cores.recipe import SECTIONS, load_recipe
from cores.trainer_section import trainer_arguments

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
KEY = re.compile(rf"`({'|'.join(SECTIONS)})\.(?!py|json)(\w+)([`=:])")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def headings(page: Path) -> set[str]:
    """Anchors of a page's headings, as hosts and the site make them."""
    found = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_finds_it(page: Path) -> None:
    for link in LINK.findall(FENCED.sub("", page.read_text("utf-8"))):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in headings(there), f"{page.name}: {link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_recipe_key_that_is_named_exists(page: Path) -> None:
    """`section.key` where it stands as code by itself; `model.key` with a value alone, for Python has a model, too."""
    for section, key, behind in KEY.findall(page.read_text("utf-8")):
        if (section, behind) == ("model", "`"):
            continue
        known = trainer_arguments() if section == "trainer" else get_type_hints(SECTIONS[section])
        assert key in known, f"{page.name}: there is no {section}.{key}"


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_has_every_name(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    python = (tmp_path / "reference" / "python" / "index.html").read_text("utf-8")
    for name in set(cores.__all__) - {"__version__"}:
        assert re.search(rf"<h2[^>]*>(\s|<[^>]+>)*cores\.{name}(\s|<)", python), f"{name} is not in the reference"
    commands = (tmp_path / "reference" / "commands" / "index.html").read_text("utf-8")
    for verb in VERBS:
        assert f"usage: cores {verb}" in commands, f"{verb} is not in the reference"
    recipes = (tmp_path / "reference" / "recipes" / "index.html").read_text("utf-8")
    for key in vars(load_recipe("tiny").model):
        assert f"<code>model.{key}</code>" in recipes, f"model.{key} is not in the reference"
    servers = {server for page in tmp_path.rglob("*.html") for server in _servers(page.read_text("utf-8"))}
    assert not servers, f"pages ask other servers for something: {servers}"


def _servers(html: str) -> list[str]:
    """Where a page takes scripts, styles and pictures from, but for its own site."""
    return re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"(https?:[^\"]+)\"", html)
