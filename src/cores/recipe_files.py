"""The files of recipes: found by name or path, one laid over another, and for every value the place that said it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from cores.errors import RecipeError
from cores.typed_yaml import Loader, nearest

COMMAND_LINE = "command line"

Keys = tuple[str, ...]  # such as ("trainer", "learning_rate")


@dataclass
class Said:
    """What a recipe says, as plain values, and where. `places`: by path, `FILE:LINE` or `command line`."""

    values: dict[str, Any]
    places: dict[Keys, str] = field(default_factory=dict)

    def place(self, path: Keys) -> str | None:
        """Where the value at a path was said, with all that holds it if need be; None: nowhere, it is a default."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path) if len(path) > 1 else None

    def lay_over(self, over: "Said") -> None:
        """Take another's values in place of one's own, each `section.key` as a whole."""
        for section, inner in over.values.items():
            both = isinstance(inner, dict) and isinstance(self.values.get(section), dict)
            for key in inner if both else ():
                self._forget((section, key))
            if not both:
                self._forget((section,))
            self.values[section] = {**self.values[section], **inner} if both else inner
        self.places |= over.places

    def set(self, setting: str) -> Iterator[str]:
        """Take one `section.key=value` of the command line; gives what is wrong with it."""
        path, equals, text = setting.partition("=")
        *outer, last = path.split(".")
        if not equals or not outer or not all((*outer, last)):
            yield f"{setting!r} is no setting: expected section.key=value"
            return
        try:
            value = yaml.load(text, Loader)
        except yaml.YAMLError:
            yield f"{path}: found {text!r}, expected a value in YAML; put quotes around a text with signs"
            return
        values = self.values
        for step in outer:
            values = values.setdefault(step, {})
            if not isinstance(values, dict):
                yield f"{path}: there is nothing inside {step}"
                return
        values[last] = value
        self._forget((*outer, last))
        self.places[*outer, last] = COMMAND_LINE

    def _forget(self, path: Keys) -> None:
        self.places = {one: place for one, place in self.places.items() if one[: len(path)] != path}


def recipe_names() -> list[str]:
    """The recipes that come with cores."""
    found = (entry.name for entry in resources.files("cores.recipes").iterdir())
    return sorted(name.removesuffix(".yaml") for name in found if name.endswith(".yaml"))


def recipe_text(name: str | Path) -> str:
    """The YAML of a recipe: the name of one that comes with cores, or a file.

    Raises RecipeError when it is neither, or cannot be read.
    """
    if str(name) in recipe_names():
        return (resources.files("cores.recipes") / f"{name}.yaml").read_text("utf-8")
    try:
        return Path(name).read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise RecipeError(f"{name}: is neither a file nor a recipe{nearest(str(name), recipe_names())}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{name}: cannot be read: {error}") from None


def read(name: str | Path, seen: tuple[str, ...] = ()) -> Said:
    """What a recipe says, over what it extends. Raises RecipeError for a file that cannot be used."""
    if str(name) in seen:
        raise RecipeError(f"recipe {name}: extends itself: {' -> '.join((*seen, str(name)))}")
    text = recipe_text(name)
    try:
        values = yaml.load(text, Loader)
        places = dict(_places(yaml.compose(text, Loader), str(name)))
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe {name}: is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"recipe {name}: expected sections (model, data, trainer, ...), found {values!r}")
    parent = values.pop("extends", None)
    said = Said(values, places)
    if parent is None:
        return said
    result = read(parent, (*seen, str(name)))
    result.lay_over(said)
    return result


def _places(node: Any, name: str, path: Keys = ()) -> Iterator[tuple[Keys, str]]:
    """The line of every key below a node of YAML."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            yield here, f"{name}:{key.start_mark.line + 1}"
            yield from _places(value, name, here)
