"""What can be asked about a scene, with the exact answer.

A thing is asked for only when enough of it shows; a kind of which too little shows is neither asked for nor called
absent. The draw is a pure function of the seed.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from cores.data.sample import Conversation, Form, Target, Turn
from cores.masks import encode
from cores.scenes.kinds import COLOURS, Kind
from cores.scenes.scene import Scene
from cores.scenes.words import (
    MEANS_FRAMES,
    NAME_FRAMES,
    NUMBERS,
    YOU_FRAMES,
    clause_bank,
    held_out,
    refer,
)

T = TypeVar("T")

OBJECT_AREA = 0.015  # least share of the picture that must show of an object that is asked for
PART_AREA = 0.008  # the same for a part
SHOWS = 0.6  # least share of an object that must not be hidden
NEAR_MISS = 0.2  # how often what is absent is another colour of a kind that is there
TRAIN_NEAR_MISS = 0.35
FAMILIES = {  # how often each family is asked
    "class": 1.0,
    "refer": 1.5,
    "part": 1.5,
    "means": 1.7,
    "means part": 1.7,
    "several": 0.8,
    "absent": 1.3,
    "explain": 0.5,
    "text": 0.6,
}
TRAIN_FAMILIES = FAMILIES | {"absent": 1.8}


@dataclass(frozen=True, slots=True)
class Asked:
    """One target by name: object ids of the scene, from 0 (several for a class), and the part, None for the whole."""

    things: tuple[int, ...]
    part: str | None = None
    phrase: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A query of one family. `targets` in the answer's order; `answer` only where the templates do not write it."""

    family: str
    query: str
    form: Form
    targets: tuple[Asked, ...] = ()
    answer: str | None = None


class _Asker:
    """The scene as those see it who ask: which things count, and which words tell them apart."""

    def __init__(self, scene: Scene, kinds: tuple[Kind, ...], rng: np.random.Generator, split: str) -> None:
        self.scene, self.kinds, self.rng, self.split = scene, kinds, rng, split
        self.wording = "phrasing" if split == "phrasing" else "train"
        pixels = scene.objects.size
        areas = [int((scene.objects == n).sum()) for n in range(len(scene.things))]
        self.clear = [
            n
            for n, area in enumerate(areas)
            if area >= OBJECT_AREA * pixels and area >= SHOWS * max(scene.whole[n], 1)
        ]
        self.count = Counter(thing.kind.name for thing in scene.things)
        self.parts = [
            (n, part.name)
            for n in self.clear
            for part in scene.things[n].kind.parts
            if int(scene.mask(n, part.name).sum()) >= PART_AREA * pixels
        ]

    def pick(self, items: Sequence[T]) -> T:
        return items[int(self.rng.integers(len(items)))]

    def places(self, n: int) -> list[str]:
        """Words of place or size that tell a thing from the other one of its kind."""
        thing = self.scene.things[n]
        others = [m for m, t in enumerate(self.scene.things) if t.kind is thing.kind and m != n]
        if len(others) != 1:
            return []
        (x, y), (u, v) = thing.centre, self.scene.things[others[0]].centre
        size, other = self.scene.whole[n], self.scene.whole[others[0]]
        found = []
        if abs(x - u) > 0.15:
            found.append("on the left" if x < u else "on the right")
        if abs(y - v) > 0.15:
            found.append("at the top" if y < v else "at the bottom")
        if max(size, other) > 1.4 * min(size, other):
            found.append("the larger" if size > other else "the smaller")
        return found

    def words(self, n: int) -> tuple[str, str] | None:
        """Colour and place (each may be "") that name a thing uniquely and that this split may use."""
        thing = self.scene.things[n]
        choices = [(thing.colour, "")] + [(thing.colour, place) for place in self.places(n)]
        plain = [("", place) for place in self.places(n)]
        if self.count[thing.kind.name] == 1:
            plain.append(("", ""))
        novel = self.split == "novel"
        choices = [c for c in choices if held_out(c[0], thing.kind, c[1]) == novel]
        choices += [] if novel else plain
        return self.pick(choices) if choices else None

    def means(self, kind: Kind, part: str | None, which: str) -> str:
        """A query by what something is for. `which` ends it where there are two of a kind ("the red one")."""
        clause = self.pick(clause_bank(kind, part, self.wording))
        frames = [(frame, clause) for frame in MEANS_FRAMES[self.wording]]
        if clause.startswith("you "):
            frames += [(frame, clause.removeprefix("you ")) for frame in YOU_FRAMES[self.wording]] * 2
        frame, filling = self.pick(frames)
        text = frame.format(c=filling)
        if which:
            text = f"{text.rstrip('?.')}, {which}{text[-1] if text[-1] in '?.' else ''}"
        return text

    def which(self, n: int) -> str | None:
        """The ending of a query by use: "" for the only one of its kind, None when no words tell it apart."""
        if self.count[self.scene.things[n].kind.name] == 1 and self.split != "novel":
            return ""
        words = self.words(n)
        if words is None:
            return None
        colour, place = words
        if place.startswith("the "):
            return " ".join(w for w in (place, colour, "one") if w)
        return " ".join(w for w in ("the", colour, "one", place) if w)


def _class(a: _Asker) -> Question | None:
    names = sorted({a.scene.things[n].kind.name for n in a.clear})
    names = [m for m in names if all(n in a.clear for n, t in enumerate(a.scene.things) if t.kind.name == m)]
    if not names or a.split == "novel":
        return None
    name = a.pick(names)
    things = tuple(n for n, t in enumerate(a.scene.things) if t.kind.name == name)
    return Question("class", name, "phrase", (Asked(things),))


def _named(a: _Asker, name: str) -> tuple[str, Form]:
    """A name as it is asked: half through the templates, half in words of the world's own."""
    if a.wording == "train" and a.rng.random() < 0.5:
        return name.removeprefix("the "), "phrase"
    return a.pick(NAME_FRAMES[a.wording]).format(n=name), "sentence"


def _refer(a: _Asker) -> Question | None:
    if not a.clear:
        return None
    n = a.pick(a.clear)
    words = a.words(n)
    if words is None:
        return None
    query, form = _named(a, refer(a.scene.things[n].kind, *words))
    return Question("refer", query, form, (Asked((n,)),))


def _part(a: _Asker) -> Question | None:
    if not a.parts:
        return None
    n, part = a.pick(a.parts)
    words = a.words(n)
    if words is None:
        return None
    query, form = _named(a, f"the {part} of {refer(a.scene.things[n].kind, *words)}")
    return Question("part", query, form, (Asked((n,), part),))


def _means(a: _Asker) -> Question | None:
    if not a.clear:
        return None
    n = a.pick(a.clear)
    which = a.which(n)
    if which is None:
        return None
    return Question("means", a.means(a.scene.things[n].kind, None, which), "sentence", (Asked((n,)),))


def _means_part(a: _Asker) -> Question | None:
    if not a.parts:
        return None
    n, part = a.pick(a.parts)
    which = a.which(n)
    if which is None:
        return None
    return Question("means part", a.means(a.scene.things[n].kind, part, which), "sentence", (Asked((n,), part),))


def _several(a: _Asker) -> Question | None:
    if len(a.clear) < 2:
        return None
    first, second = (int(n) for n in a.rng.choice(a.clear, 2, replace=False))
    words = a.words(first), a.words(second)
    if words[0] is None or words[1] is None:
        return None
    names = [refer(a.scene.things[n].kind, *w) for n, w in zip((first, second), words, strict=True) if w]
    query, form = _named(a, " and ".join(names))
    targets = (Asked((first,), phrase=names[0]), Asked((second,), phrase=names[1]))
    return Question("several", query, form, targets)


def _absent(a: _Asker) -> Question | None:
    """Training meets more near misses than are asked for elsewhere, and never refuses a held-out combination: that
    would teach that what `novel` asks for is not there."""
    missing = [kind for kind in a.kinds if not a.count[kind.name]]
    near = TRAIN_NEAR_MISS if a.split == "train" else NEAR_MISS
    kind = a.pick(missing)
    colour = a.pick(list(COLOURS)) if a.rng.random() < 0.5 else ""
    part = a.pick(kind.parts).name if a.rng.random() < 0.5 else None
    draw = a.rng.random()
    if draw < near and a.clear:  # the kind is there, in other colours
        n = a.pick(a.clear)
        kind = a.scene.things[n].kind
        taken = {t.colour for t in a.scene.things if t.kind is kind}
        colour = a.pick([c for c in COLOURS if c not in taken])
    elif draw < near + (1 - near) / 2:
        return Question("absent", a.means(kind, part, ""), "sentence")
    if colour and a.split == "train" and held_out(colour, kind, ""):
        return None
    name = refer(kind, colour)
    query, form = _named(a, f"the {part} of {name}" if part else name)
    return Question("absent", query, form)


def _explain(a: _Asker) -> Question | None:
    asked = _means_part(a) if a.rng.random() < 0.6 else _means(a)
    if asked is None:
        return None
    target = asked.targets[0]
    thing = a.scene.things[target.things[0]]
    name = refer(thing.kind, thing.colour)
    what = f"the {target.part} of {name}" if target.part else name
    clause = a.pick(clause_bank(thing.kind, target.part, "train"))
    return Question("explain", asked.query, "explain", asked.targets, f"This is {what}: the thing that {clause}.")


def _text(a: _Asker) -> Question | None:
    draw = a.rng.random()
    unique = [n for n in a.clear if a.count[a.scene.things[n].kind.name] == 1]
    if draw < 0.5 and unique:
        thing = a.scene.things[a.pick(unique)]
        return Question("text", f"What colour is the {thing.kind.name}?", "raw", (), f"It is {thing.colour}.")
    clear = {a.scene.things[n].kind.name for n in a.clear}
    countable = [k for k in a.kinds if k.name in clear or not a.count[k.name]]
    kind = a.pick([k for k in countable if k.name in clear]) if clear and a.rng.random() < 0.7 else a.pick(countable)
    number = a.count[kind.name]
    if number and not all(n in a.clear for n, t in enumerate(a.scene.things) if t.kind is kind):
        return None
    noun = kind.name if number == 1 else kind.plural
    verb = "is" if number == 1 else "are"
    return Question("text", f"How many {kind.plural} are there?", "raw", (), f"There {verb} {NUMBERS[number]} {noun}.")


_ASK: dict[str, Callable[[_Asker], Question | None]] = {
    "class": _class,
    "refer": _refer,
    "part": _part,
    "means": _means,
    "means part": _means_part,
    "several": _several,
    "absent": _absent,
    "explain": _explain,
    "text": _text,
}
_NOVEL = ("refer", "part", "means", "means part", "several")


def draw_questions(scene: Scene, kinds: tuple[Kind, ...], seed: int, count: int, split: str) -> list[Question]:
    """Up to `count` different questions about a scene; fewer when it has nothing more to ask.

    `split`: `phrasing` takes the wordings that training never sees, `novel` only combinations of colour, kind and
    place that it never sees; all others ask alike and differ in their scenes.
    """
    rng = np.random.default_rng([seed, 77])
    asker = _Asker(scene, kinds, rng, split)
    families = TRAIN_FAMILIES if split == "train" else FAMILIES
    names = list(_NOVEL if split == "novel" else families)
    weight = np.array([families[name] for name in names])
    found: dict[str, Question] = {}
    for _ in range(6 * count):
        if len(found) == count:
            break
        question = _ASK[names[int(rng.choice(len(names), p=weight / weight.sum()))]](asker)
        if question is not None:
            text = question.query
            if question.form != "phrase" and rng.random() < 0.5:
                text = text[0].upper() + text[1:]
            found.setdefault(
                text.lower(), Question(question.family, text, question.form, question.targets, question.answer)
            )
    return list(found.values())


def conversation_of(scene: Scene, question: Question) -> Conversation:
    """A question as a conversation of one turn, with masks. The location of a part is its object."""
    targets = []
    for asked in question.targets:
        whole = np.logical_or.reduce([scene.mask(n) for n in asked.things])
        mask = scene.mask(asked.things[0], asked.part) if asked.part else whole
        targets.append(Target(encode(mask), encode(whole), asked.phrase))
    return Conversation((Turn(question.query, question.answer, tuple(targets), question.form),))
