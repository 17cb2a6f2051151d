"""The words of prompts, from this package's data files, and as a checkpoint keeps them: what it was trained with.

Placeholders: {system}, {question}, {answer} in formats, and `<image>` for the picture; {query} in questions; {loc},
{part}, {seg} in answers.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib import resources
from typing import Any, get_args

from cores.data.sample import Form
from cores.errors import CheckpointError, RecipeError
from cores.typed_yaml import describe, fits
from cores.vocabulary import IM_END, IM_START, IMAGE, LEVEL_NAMES

CHAT = "chat"  # the format that is made of a model's own chat template


@dataclass(frozen=True, slots=True)
class Format:
    """How turns are written down.

    `system` and `hierarchy` (the sentence that announces the chain) fill `start`; `first` and `later` hold a question
    up to where the answer begins, `answer` the answer with what closes it. `bare`: the start where nothing fills it;
    `picture`: with its marks, as it stands before the first question; `between`: what parts it from the question;
    `begins`: does the tokenizer's own beginning token, if it has one, stand before all?
    """

    system: str
    hierarchy: str
    start: str
    first: str
    later: str
    answer: str
    bare: str = ""
    picture: str = f"{IM_START}{IMAGE}{IM_END}"
    between: str = "\n"
    begins: bool = True


@dataclass(frozen=True, slots=True)
class Exemplar:
    """Question and answer in words alone that show the hierarchy: where a thing is found, then what it looks like."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Wording:
    """Every string that prompts of one format and one number of levels are made of.

    `questions`: by form of the query, drawn in training; `validation_questions`: the one of each form that is asked
    otherwise. `answers`, `validation_answer`: the same for answers. `exemplars[0]` is the published one.
    """

    format: Format
    questions: dict[str, list[str]]
    validation_questions: dict[str, str]
    answers: list[str]
    validation_answer: str
    exemplars: list[Exemplar]
    refusals: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back to equal words."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "Wording":
        """The words that `to_dict` wrote. Raises CheckpointError when a field is missing or unknown."""
        try:
            parts = {**stored, "format": Format(**stored["format"])}
            parts["exemplars"] = [Exemplar(**one) for one in stored["exemplars"]]
            found = cls(**parts)
            if wrong := "; ".join(_wrong(found)):
                raise TypeError(wrong)
            return found
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"the stored wording of the prompts does not fit this version: {error}") from None


def _wrong(words: Wording) -> Iterator[str]:
    """What is no wording of prompts, a line each: everything that is read of a file is said before it is used."""
    forms = get_args(Form)
    hints = {"questions": dict[str, list[str]], "validation_questions": dict[str, str], "answers": list[str],
             "validation_answer": str, "refusals": list[str]}  # fmt: skip
    values: dict[str, tuple[Any, Any]] = {name: (getattr(words, name), hint) for name, hint in hints.items()}
    parts: list[tuple[str, Format | Exemplar]] = [("format", words.format)]
    parts += [(f"exemplars.{n}", one) for n, one in enumerate(words.exemplars)]
    for where, part in parts:
        values |= {f"{where}.{one.name}": (getattr(part, one.name), one.type) for one in fields(part)}
    wrong = [name for name, (value, hint) in values.items() if not fits(value, hint)]
    yield from (f"{name}: found {values[name][0]!r:.60}, expected {describe(values[name][1])}" for name in wrong)
    if wrong:
        return
    for name in ("questions", "validation_questions"):
        empty = [form for form in forms if not all(getattr(words, name).get(form) or [""])]
        yield from (f"{name}.{form}: is missing or empty" for form in empty)
    yield from (
        f"{name}: is empty" for name in ("answers", "validation_answer") if not all(getattr(words, name) or [""])
    )
    if words.format.picture.count(IMAGE) != 1:
        yield f"format.picture: found {words.format.picture!r}, expected one {IMAGE} in it"
    for name, mark in (("first", "{question}"), ("later", "{question}"), ("answer", "{answer}")):
        if getattr(words.format, name).count(mark) != 1:
            yield f"format.{name}: found {getattr(words.format, name)!r:.60}, expected one {mark} in it"
    if not words.format.answer.partition("{answer}")[2].strip():
        yield f"format.answer: found {words.format.answer!r:.60}, expected something that closes the answer"


def format_names() -> list[str]:
    """The conversation formats that come with cores, sorted; `chat` is made of a model's own template instead."""
    return sorted(_read("formats.json")["formats"])


def chat_words() -> tuple[str, str]:
    """What `chat` says in its system text: `Format.system` and `Format.hierarchy`."""
    words = _read("formats.json")["chat"]
    return words["system"], words["hierarchy"]


def wording(format_name: str, levels: int, chat: Format | None = None) -> Wording:
    """The words of this package. `chat`: what a model's own template makes of the format of this name.

    Raises RecipeError when there is no such format or number of levels.
    """
    formats = _read("formats.json")["formats"]
    if format_name == CHAT and chat is None:
        raise RecipeError("prompt.format: chat is made of a model's own chat template; none is known here")
    if format_name not in formats and chat is None:
        raise RecipeError(f"prompt.format: found {format_name!r}, expected one of {', '.join(sorted(formats))}")
    if levels not in LEVEL_NAMES:
        raise RecipeError(f"a chain has 1, 2 or 3 levels, found {levels}")
    templates = _read("templates.json")
    chain = "1" if levels == 1 else "2"

    def deepen(answer: str) -> str:
        return answer.replace(templates["location"], templates["location_and_part"]) if levels == 3 else answer

    return Wording(
        format=chat or Format(**formats[format_name]),
        questions=templates["questions"],
        validation_questions=templates["validation_questions"],
        answers=[deepen(answer) for answer in templates["answers"][chain]],
        validation_answer=deepen(templates["validation_answers"][chain]),
        exemplars=[Exemplar(**one) for one in _read("exemplars.json")["exemplars"]],
        refusals=_text("refusals.txt").splitlines(),
    )


@cache
def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_text(name))
    return found


def _text(name: str) -> str:
    return resources.files("cores.prompts").joinpath(name).read_text("utf-8")
