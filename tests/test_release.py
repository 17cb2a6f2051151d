"""What a release is made of says one thing: version, changelog, hosted checks."""

import re
import tomllib
from pathlib import Path

import yaml

import cores

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
HEADINGS = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)


def test_the_changelog_begins_with_the_version() -> None:
    """A version in the making is Unreleased; a released one has its date. Those before it are dated, newest first."""
    version = PROJECT["version"]
    assert version == cores.__version__
    first, *before = HEADINGS
    if ".dev" in version:
        assert first == "Unreleased"
    else:
        assert re.fullmatch(re.escape(version) + r" - \d{4}-\d\d-\d\d", first)
    dates = [heading.partition(" - ")[2] for heading in HEADINGS if heading != "Unreleased"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", heading) for heading in before)
    assert dates == sorted(dates, reverse=True)


def test_hosted_checks_are_the_checks_of_the_repository() -> None:
    (job,) = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert job["strategy"]["matrix"]["python"][0] == oldest
    checked = re.search(r"^check:.*\n((?:\t.+\n)+)", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert checked
    tools = {line.split("/", 1)[1].split()[0] for line in checked[1].splitlines()}
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    assert {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in local["hooks"]} == tools


def test_the_readme_names_every_extra() -> None:
    table = (ROOT / "README.md").read_text("utf-8").split("## Install")[1]
    rows = re.findall(r"^\| (`[a-z].*?) \| ", table, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == set(PROJECT["optional-dependencies"]) - {"language"}  # which is of one test alone
