"""One question in words and the boxes of its answer: asked again when unclear, elected when several are drawn."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cores.words.boxes import Box, alike, clip
from cores.words.grounding import Grounding
from cores.words.parsing import parse_boxes
from cores.words.speaker import Look, Speaker, Spoken


@dataclass(frozen=True, slots=True)
class Pointed:
    """A box in pixels of the picture, and what it was called."""

    box: Box
    label: str | None


@dataclass(frozen=True, slots=True)
class Heard:
    """What was said to one question. `spoken`: every answer that it took, the last being the one that counts."""

    status: Literal["boxes", "absent", "unclear"]
    boxes: tuple[Pointed, ...]
    spoken: tuple[Spoken, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Asks a speaker and reads its answers.

    `votes`: answers drawn to each question, of which the one that agrees best with the others is taken; 1: the
    likeliest alone. `seed`: of what is drawn. `max_new_tokens`: most of an answer.
    """

    speaker: Speaker
    votes: int
    seed: int
    max_new_tokens: int

    def hear(self, look: Look, prompts: Sequence[str], plain: Sequence[int] = ()) -> list[Heard]:
        """One answer a prompt. What is unclear is asked once again; those in `plain` are not, they may be text."""
        if not prompts:
            return []
        draws = [None] if self.votes == 1 else [self.seed + n for n in range(self.votes)]
        rounds = [self._ask(look, prompts, draw) for draw in draws]
        heard = [elect(each) for each in zip(*rounds, strict=True)]
        unclear = [n for n, one in enumerate(heard) if one.status == "unclear" and n not in plain]
        again = [f"{prompts[n]} {self.speaker.grounding.again}" for n in unclear]
        for n, second in zip(unclear, self._ask(look, again) if again else [], strict=True):
            heard[n] = replace(second, spoken=(*heard[n].spoken, *second.spoken))
        return heard

    def _ask(self, look: Look, prompts: Sequence[str], draw: int | None = None) -> list[Heard]:
        said = self.speaker.ask(look, prompts, self.max_new_tokens, draw)
        return [understand(self.speaker.grounding, look, one) for one in said]


def understand(grounding: Grounding, look: Look, spoken: Spoken) -> Heard:
    """An answer's boxes in pixels of the picture that was looked at; one that has none inside it is unclear."""
    parsed = parse_boxes(spoken.text)
    boxes = []
    for one in parsed.boxes:
        inside = clip(grounding.pixels(one.numbers, look.size, look.resized), look.size)
        boxes += [] if inside is None else [Pointed(inside, one.label)]
    status = "unclear" if parsed.status == "boxes" and not boxes else parsed.status
    return Heard(status, tuple(boxes), (spoken,))


def elect(answers: Sequence[Heard]) -> Heard:
    """Of several answers to one question: whether it is there by majority, then the answer most like the others."""
    clear = [one for one in answers if one.status != "unclear"]
    if not clear:
        return answers[0]
    (status, _), *_ = Counter(one.status for one in clear).most_common()
    same = [one for one in clear if one.status == status]
    boxes = [[pointed.box for pointed in one.boxes] for one in same]
    agreement = [sum(alike(mine, other) for other in boxes) for mine in boxes]
    return same[agreement.index(max(agreement))]
