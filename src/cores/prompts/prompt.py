"""A prompt: system text, exemplars, and turns about one picture; and what is answered.

It is written as `prefix`, everything up to the picture's closing mark, which all conversations about a picture share,
and then each conversation's own pieces. `rng` draws wordings in training; without one the validation wording is taken.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

from cores.errors import CheckpointError, DataError, RecipeError
from cores.prompts.settings import PromptSettings
from cores.prompts.styles import STYLES
from cores.prompts.wording import CHAT, Exemplar, Wording, wording
from cores.vocabulary import IM_END, IM_START, IMAGE, PLACEHOLDERS

FILE = "prompt.json"


class Piece(NamedTuple):
    """A stretch of a prompt; `supervised` ones (answers and what closes them) are what is trained."""

    text: str
    supervised: bool


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question in words, its answer, and how many chains, one a target, the answer holds."""

    question: str
    answer: str
    chains: int


class Prompt:
    """Writes prompts as the settings say. `words`: the stored ones of a checkpoint, else this package's.

    Raises RecipeError when the settings ask for a format that is not there, or for more exemplars than there are.
    """

    def __init__(self, settings: PromptSettings, words: Wording | None = None) -> None:
        self.settings = settings
        self.words = words or wording(settings.format, len(settings.level_names))
        count = settings.exemplars
        if isinstance(count, int) and count > len(self.words.exemplars):
            raise RecipeError(f"prompt.exemplars: found {count}, there are {len(self.words.exemplars)}")

    def save(self, folder: Path) -> None:
        """Write `prompt.json`: the settings and every string that they stand for."""
        stored = {**asdict(self.settings), "wording": self.words.to_dict()}
        text = json.dumps(stored, indent=1, ensure_ascii=False)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Prompt":
        """The prompt of a checkpoint's folder. Raises CheckpointError when it has no usable `prompt.json`."""
        file = folder / FILE
        try:
            stored = json.loads(file.read_text("utf-8"))
            words = Wording.from_dict(stored.pop("wording"))
            return cls(PromptSettings(**stored), words)
        except FileNotFoundError:
            raise CheckpointError(f"{file}: is missing: how this model is spoken to is not known") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{file}: cannot be read as a prompt's settings: {error}") from None

    @property
    def closing(self) -> str:
        """What closes an answer, without blanks."""
        return self.words.format.answer.partition("{answer}")[2].strip()

    def system(self, rng: Random) -> str:
        """System text and exemplars (in-context guidance, paper section 3.1)."""
        style, words = STYLES[self.settings.style], self.words
        spoken = [words.format.system, words.format.hierarchy if style.hierarchy else ""]
        parts = [" ".join(part for part in spoken if part)]
        parts += [f"USER: {one.question} ASSISTANT: {one.answer}" for one in self._draw(rng)]
        text = " ".join(part for part in parts if part)
        if not style.closed or not text or self.settings.format == CHAT:
            return text
        return f"{text} "

    def _draw(self, rng: Random) -> list[Exemplar]:
        chosen, library = self.settings.exemplars, self.words.exemplars
        if chosen == "fixed":
            return library[:1]
        count = chosen if isinstance(chosen, int) else int(chosen == "random")
        return rng.sample(library, count)

    def start(self, rng: Random) -> str:
        """What stands before the first turn."""
        system = self.system(rng)
        format = self.words.format
        return format.start.replace("{system}", system) if system else format.bare

    def prefix(self, rng: Random) -> str:
        """Everything up to and with the picture's closing mark."""
        format = self.words.format
        return f"{self.start(rng)}{format.first.partition('{question}')[0]}{format.picture}"

    def pieces(self, turns: Sequence[tuple[str, str | None]]) -> list[Piece]:
        """The turns as they are written down, without what stands before the first. A last answer of None is open."""
        words, found = self.words.format, []
        for number, (question, answer) in enumerate(turns):
            before, _, after = (words.later if number else words.first).partition("{question}")
            found.append(Piece(f"{before}{question}{after}", False))
            if answer:
                before, _, after = words.answer.partition("{answer}")
                found.append(Piece(f"{before}{answer}{after}", True))
        return found

    def whole(self, turns: Sequence[tuple[str, str | None]], rng: Random) -> list[Piece]:
        """A whole prompt, of turns whose first question begins with `<image>`."""
        marked = [(question.replace(IMAGE, self.words.format.picture), answer) for question, answer in turns]
        return [Piece(self.start(rng), False), *self.pieces(marked)]

    def conversation(self, turns: Sequence[tuple[str, str | None]]) -> list[Piece]:
        """The turns as they go on after `prefix`.

        Raises DataError when a turn holds one of the picture's own marks.
        """
        for text in (text for turn in turns for text in turn if text):
            held = [mark for mark in (IMAGE, IM_START, IM_END) if mark in text]
            if held:
                raise DataError(f"{text!r} holds {held[0]}, which marks the picture's place: leave it out")
        (question, answer), *others = turns
        first, *rest = self.pieces([(f"{self.words.format.between}{question}", answer), *others])
        opening = self.words.format.first.partition("{question}")[0]
        return [Piece(first.text.removeprefix(opening), False), *rest]

    def ask(self, query: str, form: str, rng: Random | None = None) -> str:
        """A query in words; `form` as in `Turn`. In training, names are in small letters."""
        if rng is None:
            return self.words.validation_questions[form].replace("{query}", query)
        query = query.lower() if form == "phrase" else query
        return rng.choice(self.words.questions[form]).replace("{query}", query)

    def as_question(self, phrase: str) -> str:
        """A phrase as the question about it, without the request for a mask that stands behind a sentence, too."""
        forms = self.words.validation_questions
        return forms["phrase"].removesuffix(forms["sentence"].partition("{query}")[2]).replace("{query}", phrase)

    def answer(self, phrases: Sequence[str | None], rng: Random | None = None) -> str:
        """One chain for each target, in order (the answer hierarchy, paper section 3.1).

        Where there are several targets, one with a phrase is named first.
        """
        said = []
        for phrase in phrases:
            name = phrase if len(phrases) > 1 else None
            plain = [one for one in self.words.answers if not (name and one.startswith("Sure"))]
            template = self.words.validation_answer if rng is None else rng.choice(plain)
            said.append(f"{name}: {template[0].lower()}{template[1:]}" if name else template)
        return self.fill(" ".join(said))

    def fill(self, answer: str) -> str:
        """An answer with the checkpoint's own tokens in the place of {loc}, {part} and {seg}."""
        for name, token in self.settings.tokens.items():
            answer = answer.replace(PLACEHOLDERS[name], token)
        return answer

    def exchange(
        self, query: str, form: str, answer: str | None, phrases: Sequence[str | None], rng: Random | None = None
    ) -> Exchange:
        """A query about these targets (each with its phrase or None) and the answer that is taught.

        `answer` is said as it stands when there are no targets, or when it holds a chain for each of them; else it
        follows the chains, as an explanation. Nothing of both means: not there.

        Raises DataError when the answer holds chains, but not as many as there are targets.
        """
        question = self.ask(query, form, rng)
        if phrases:
            given = self.fill(answer or "")
            chains = given.count(self.settings.tokens["target"])
            if chains == 0:
                given = f"{self.answer(phrases, rng)} {given}".rstrip()
            elif chains != len(phrases):
                raise DataError(f"{query!r}: the answer {answer!r} names {chains} targets, there are {len(phrases)}")
            return Exchange(question, given, len(phrases))
        if answer is not None:
            return Exchange(question, answer, 0)
        if self.settings.on_absent == "empty_mask":
            return Exchange(question, self.answer([None], rng), 1)
        return Exchange(question, self.words.refusals[0] if rng is None else rng.choice(self.words.refusals), 0)

    def refuses(self, text: str) -> bool:
        """Whether an answer begins as a refusal does."""
        said = " ".join(text.split()).lower()
        return any(said.startswith(stem.rstrip(".").lower()) for stem in self.words.refusals)
