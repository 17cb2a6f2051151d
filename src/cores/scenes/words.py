"""How the synthetic world is talked about: names, places, and clauses that never name what they mean.

The clauses are data (clauses.json), one list a kind and part; each follows "the thing that ...". The last of each list
and the last frames are kept for the `phrasing` split.
"""

import json
from functools import cache
from importlib import resources

from cores.scenes.kinds import COLOURS, KINDS, Kind

MEANS_FRAMES = {  # {c}: a clause
    "train": (
        "what is it that {c}?",
        "the thing that {c}",
        "which one here {c}?",
        "find what {c}.",
        "where is the thing that {c}?",
        "point to the one that {c}.",
        "I need something that {c}.",
        "show me the thing that {c}.",
    ),
    "phrasing": ("where is the one that {c}?", "show me what {c}.", "point to something that {c}."),
}
YOU_FRAMES = {  # {c}: a clause that begins with "you", without it
    "train": ("what would you {c}?", "which one do you {c}?", "the thing you would {c}"),
    "phrasing": ("what do you {c}?", "the one you would {c}"),
}
NAME_FRAMES = {  # {n}: a name with its article; wordings beside the templates that every data set goes through
    "train": ("where is {n}?", "show me {n}.", "find {n}.", "point to {n}.", "I am looking for {n}."),
    "phrasing": ("I need to find {n}.", "which one is {n}?"),
}
PLACES = ("", "on the left", "on the right", "at the top", "at the bottom", "the larger", "the smaller")
NUMBERS = ("no", "one", "two", "three", "four", "five")


@cache
def clauses() -> dict[str, dict[str, list[str]]]:
    """kind -> part ("" the whole object) -> clauses."""
    found: dict[str, dict[str, list[str]]] = json.loads(
        resources.files(__package__).joinpath("clauses.json").read_text("utf-8")
    )
    return found


def clause_bank(kind: Kind, part: str | None, wording: str) -> list[str]:
    """The clauses for an object (part None) or a part; `wording`: `train`, or `phrasing` for the one kept back."""
    bank = clauses()[kind.name][part or ""]
    return bank[:-1] if wording == "train" else bank[-1:]


def refer(kind: Kind, colour: str = "", place: str = "") -> str:
    """The words for one object, with article: "the red kettle on the left", "the larger blue cup"."""
    if place.startswith("the "):
        return " ".join(word for word in (place, colour, kind.name) if word)
    return " ".join(word for word in ("the", colour, kind.name, place) if word)


def held_out(colour: str, kind: Kind, place: str) -> bool:
    """Whether a combination of colour, kind and place belongs to the `novel` split: one in seven, never trained."""
    names = list(KINDS)
    number = list(COLOURS).index(colour) + 3 * names.index(kind.name) + 5 * PLACES.index(place)
    return number % 7 == 0
