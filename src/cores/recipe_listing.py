"""A resolved recipe as YAML: every value with the place that said it, in a comment, so that it is a recipe again."""

from collections.abc import Iterator
from typing import Any

import yaml

from cores.loss_keys import LOSS_KEYS
from cores.prompts.styles import STYLES
from cores.recipe import OF_BASES, SECTIONS, Recipe
from cores.recipe_files import Said
from cores.trainer_section import DEFAULTS

COLUMN = 56  # where comments begin, if the value leaves room
LOSSES = {key.recipe: key for key in LOSS_KEYS}


def listing(recipe: Recipe, said: Said) -> str:
    """All sections with all keys. `said`: what the recipe was read from.

    `trainer` has what was said; in comments what cores sets. The rest is transformers' own.
    """
    lines = ["# file:line or command line: where a value was said; default: nowhere\n"]
    for section in SECTIONS:
        values = getattr(recipe, section)
        plain = values if isinstance(values, dict) else vars(values)
        lines.append(f"{section}:\n")
        for key, value in plain.items():
            lines += _lines(said, (section, key), value, _meaning(recipe, section, key, value))
        if section == "trainer":
            lines += [
                _line(f"  # {key}: {_flow(value)}", "default of cores")
                for key, value in DEFAULTS.items()
                if key not in plain
            ]
            lines.append("  # whatever else TrainingArguments has: transformers' defaults\n")
    return "".join(lines)


def _lines(said: Said, path: tuple[str, ...], value: Any, meaning: str) -> Iterator[str]:
    """A key's line; of a mapping, its own and those below."""
    head = f"{'  ' * (len(path) - 1)}{_flow(path[-1])}:"
    if isinstance(value, dict) and value:
        yield f"{head}\n"
        for key, inner in value.items():
            yield from _lines(said, (*path, key), inner, "")
    else:
        yield _line(f"{head} {_flow(value)}", said.place(path) or f"default{meaning}")


def _line(text: str, comment: str) -> str:
    return f"{text:{COLUMN}}  # {comment}\n"


def _flow(value: Any) -> str:
    """A value in one line of YAML."""
    inside: str = yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=2**31)
    return inside[1:-2]


def _meaning(recipe: Recipe, section: str, key: str, value: Any) -> str:
    """What a key comes to whose default is to say nothing, as far as that is known without any model."""
    if value is not None or not (section in ("losses", "prompt") or key in OF_BASES):
        return ""
    if recipe.model.start:
        return ": the checkpoint's own"
    if key in OF_BASES:
        return f": {OF_BASES[key]}"
    style, refiner = (getattr(recipe.model, name) or OF_BASES[name] for name in ("style", "refiner"))
    if section == "losses":
        return f": {_flow(LOSSES[key].value(style, refiner))}, of style {style}"
    return f": {getattr(STYLES[style], key)}, of style {style}" if hasattr(STYLES[style], key) else ""
