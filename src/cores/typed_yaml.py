"""Values that people write: YAML without its traps, checked against types; wrong names get the nearest right one."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml

MANY = 12  # values of a choice that stand in a row with "or"


def fits(value: Any, hint: Any) -> bool:
    """Is a value of YAML one of this type? A whole number is a float too; true and false are no numbers."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in inner)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if origin is list:
        return isinstance(value, list) and all(fits(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def describe(hint: Any) -> str:
    """A type in the words of a recipe's reader."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return "anything"
    if origin is Literal:
        return " or ".join(map(str, inner)) if len(inner) <= MANY else f"one of {', '.join(map(str, inner))}"
    if origin in (Union, UnionType):
        return " or ".join("null" if one is NoneType else describe(one) for one in inner)
    if origin is list:
        return f"a list of {describe(inner[0])}"
    if origin is dict:
        return f"names with {describe(inner[1])} each"
    return {NoneType: "null", str: "text", int: "a whole number", float: "a number", bool: "true or false"}[hint]


def nearest(name: str, known: Iterable[str]) -> str:
    """What to try instead of a name that is not known: the nearest one, else all when they are few, else nothing."""
    known = sorted(known)
    found = get_close_matches(name, known, n=1)
    if found:
        return f"; did you mean {found[0]}?"
    return f"; take one of {', '.join(known)}" if len(known) < 20 else ""


class Loader(yaml.SafeLoader):
    """YAML with 1.2's scalars: 3e-4 is a number; only true and false are booleans; a key stands once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping as yaml reads it. Raises yaml's ConstructorError when a key stands twice."""
        keys = [key.value for key, _ in node.value]
        for number, (key, _) in enumerate(node.value):
            if key.value in keys[:number]:
                raise yaml.constructor.ConstructorError(
                    problem=f"{key.value} stands twice", problem_mark=key.start_mark
                )
        return super().construct_mapping(node, deep)


Loader.yaml_implicit_resolvers = {
    first: [(tag, regex) for tag, regex in pairs if tag.rpartition(":")[2] not in ("bool", "float", "timestamp")]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), list("tf"))
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?$"),
    list("-+.0123456789"),
)
