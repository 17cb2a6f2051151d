"""What the site has beside the pages of this folder: read off the program at every build, never written down.

`reference/python.md` has every public name, `commands.md` every command's `--help`, `recipes.md` every key of a
recipe. Pages of the repository outside of `docs/` are shown where they are linked to.
"""

import inspect
import io
import json
import os
import posixpath
import re
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any, get_type_hints
from unittest.mock import patch

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import cores
from cores.cli import VERBS, main
from cores.recipe import SECTIONS
from cores.typed_yaml import describe

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "CODE_OF_CONDUCT.md",
    "SECURITY.md",
    *(f"benchmarks/{page.name}" for page in ROOT.glob("benchmarks/*.md")),
)
# What public names are made of, to stand behind them.
PARTS = {
    "Cores": ("cores.inference.options.How", "cores.inference.chat.Chat"),
    "Segmentation": ("cores.inference.segmentation.TargetMask", "cores.inference.segmentation.Level"),
}
INHERITING = {"Cores"}  # whose methods are mostly those of a class that is not public
# Commands that are told apart before there is a parser, so that no usage names them.
APART = (("eval", "compare"), ("predict", "--engine", "ray"))
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
SUBVERBS = re.compile(r"\{([\w,-]+)\} \.\.\.")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """A page that mkdocs.yml does not name stands at the end of its section, so that none is out of reach."""
    sections = {name: pages for section in config.nav for name, pages in section.items()}
    docs = [page.name for page in (ROOT / "docs").glob("*.md")]
    for name, pages in (("How to", docs), ("Measurements", [uri for uri in OUTSIDE if "/" in uri])):
        sections[name] += sorted(page for page in pages if f"'{page}'" not in str(config.nav))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in `docs/`."""
    for name, text in (("python", python_page()), ("commands", commands_page()), ("recipes", recipes_page())):
        files.append(File.generated(config, f"reference/{name}.md", content=text))
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
        own = f"::: {module}.{name}\n    options:\n      heading: cores.{name}\n"
        parts.append(own + f"      inherited_members: {json.dumps(name in INHERITING)}\n")
        parts += [f"::: {path}\n" for path in PARTS.get(name, ())]
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
        yield from (words for words in APART if words[0] == verb)


def help_of(words: tuple[str, ...]) -> str:
    """What `cores WORDS --help` prints on a terminal of 80 columns without colours."""
    printed = io.StringIO()
    terminal = patch.dict(os.environ, {"COLUMNS": "80", "NO_COLOR": "1"})
    with terminal, redirect_stdout(printed), suppress(SystemExit):
        main([*words, "--help"])
    return printed.getvalue()


def recipes_page() -> str:
    """Every section of a recipe: what it says of itself, and a row a key."""
    parts = ["# Recipes\n", "Every key of a recipe. How runs are made of them: [training](../train.md).\n"]
    for name, section in SECTIONS.items():
        parts.append(f"## {name}\n")
        if not isinstance(section, type):
            parts.append(
                "transformers' TrainingArguments, under their own names; `--print-config` says what cores sets."
            )
            continue
        default = section()
        parts += [f"{inspect.getdoc(section)}\n", "| key | takes | default |\n| --- | --- | --- |"]
        for key, hint in get_type_hints(section).items():
            parts.append(f"| `{name}.{key}` | {describe(hint)} | `{json.dumps(getattr(default, key))}` |")
        parts.append("")
    return "\n".join(parts)
