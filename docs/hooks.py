"""What the site has beside the pages of this folder: read off the program at every build, never written down.

`reference/python.md` has every public name, `reference/commands.md` every command's `--help`; pages of the repository
outside of `docs/` are shown where they are linked to.
"""

import io
import os
import posixpath
import re
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import cores
from cores.cli import VERBS, main

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *(f"benchmarks/{page.name}" for page in ROOT.glob("benchmarks/*.md")),
)
# Classes whose methods are inherited from ours and wanted on the page, and what answers consist of.
INHERITING = {"Cores"}
PARTS = {"Segmentation": ("TargetMask", "Level")}
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
SUBVERBS = re.compile(r"\{([\w,-]+)\} \.\.\.")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in `docs/`."""
    for uri, text in (("reference/python.md", python_page()), ("reference/commands.md", commands_page())):
        files.append(File.generated(config, uri, content=text))
    for uri in OUTSIDE:
        files.append(File.generated(config, uri, content=(ROOT / uri).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Any, files: Files, **_: Any) -> str:
    """Links are written for the repository: here they become the site's; one to a file that it has not, plain text."""
    here = page.file.src_uri
    home = here if here in OUTSIDE else f"docs/{here}"

    def on_site(link: re.Match[str]) -> str:
        there = posixpath.normpath(posixpath.join(posixpath.dirname(home), link[1])).removeprefix("docs/")
        if files.get_file_from_path(there) is None:
            return f"] ({link[1]})" if (ROOT / there).exists() else link[0]
        return f"]({posixpath.relpath(there, posixpath.dirname(here) or '.')}{link[2] or ''})"

    return LINK.sub(on_site, markdown)


def python_page() -> str:
    """A heading a public name, for mkdocstrings to fill from its docstring."""
    parts = ["# Python\n", "Everything that `import cores` gives. Other modules may change from version to version.\n"]
    for name, module in cores._NAMES.items():
        for shown in (name, *PARTS.get(name, ())):
            inherited = "true" if shown in INHERITING else "false"
            heading = f"cores.{shown}" if shown == name else shown
            options = f"    options:\n      heading: {heading}\n      inherited_members: {inherited}\n"
            parts.append(f"::: {module}.{shown}\n{options}")
    return "\n".join(parts)


def commands_page() -> str:
    """Every command with what its `--help` prints."""
    parts = ["# Commands\n", "What `--help` says, of every command.\n"]
    for words in commands():
        parts.append(f"## cores {' '.join(words)}\n\n```text\n{help_of(words)}```\n")
    return "\n".join(parts)


def commands() -> Iterator[tuple[str, ...]]:
    """Every verb, and below it its own verbs, as the words to type."""
    for verb in VERBS:
        yield (verb,)
        below = SUBVERBS.search(help_of((verb,)))
        yield from ((verb, word) for word in (below[1].split(",") if below else ()))
        if verb == "eval":
            yield (verb, "compare")  # which is asked for before there is a parser


def help_of(words: tuple[str, ...]) -> str:
    """What `cores WORDS --help` prints on a terminal of 100 columns without colours."""
    printed = io.StringIO()
    terminal = patch.dict(os.environ, {"COLUMNS": "100", "NO_COLOR": "1"})
    with terminal, redirect_stdout(printed), suppress(SystemExit):
        main([*words, "--help"])
    return printed.getvalue()
