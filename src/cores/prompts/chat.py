"""A model's own chat template as a format of ours: rendered once, and cut at what was put into it.

A template is code that writes a whole conversation down; a `Format` is the text between its parts, which is saved with
a checkpoint. Words that no template holds are put in for system text, questions and answers, and what stands between
them is taken. Then everything is put together again and compared with the template's own writing; a template that
writes a part otherwise from place to place cannot be cut so and is refused.

Three things are ours. No default system text is kept: many templates write one where none is given, which nobody asked
for. Each answer begins with the empty thoughts of a thinking model, though its template may leave them out of answers
that were given. And where nothing closes an answer, the token that opens the next question does, as those models stop.
"""

from collections.abc import Callable, Collection
from typing import Any

from cores.errors import CheckpointError
from cores.prompts.wording import Format, chat_words
from cores.vocabulary import IMAGE

SYSTEM, QUESTIONS, ANSWERS = "Zqsystemqz", ("Zqaskedqz", "Zqfurtherqz"), ("Zqtoldqz", "Zqrepliedqz")
Messages = list[dict[str, Any]]
Render = Callable[[Messages, bool], str]  # messages, and whether an answer is about to begin, to text


def chat_parts(render: Render, written: str, around: tuple[str, str], bos: str, marks: Collection[str]) -> Format:
    """The parts of a chat template. `Format.begins` is left to the caller, who knows the tokenizer.

    Args: `render`: the template; `written`: what it writes for a picture; `around`: text before and after a picture
    that the family puts there behind the template's back; `bos`: the beginning token's text, or empty; `marks`: the
    tokenizer's added tokens, with one of which a picture may close.

    Raises CheckpointError when it cannot be cut, does not show the picture, or writes nothing to close an answer.
    """
    reasons = []
    for name, speak in {"lists of parts": _in_parts, "plain text": _in_text(written)}.items():
        try:
            return _Cut(render, speak, written, around, bos, marks).format()
        except _Unlike as found:
            reasons.append(f"with {name}, {found}")
    raise CheckpointError(
        f"the model's chat template cannot be cut into parts: {'; '.join(reasons)}; choose another prompt.format"
    )


class _Unlike(Exception):
    """Why a template does not write conversations as the cut needs them."""


Speak = Callable[[str, bool, str], Any]  # text, whether a picture comes with it, text before the picture, to content


def _in_parts(text: str, picture: bool = False, before: str = "") -> Any:
    """A message's content as a list, as templates of multimodal models read it."""
    parts: list[dict[str, str]] = [{"type": "text", "text": before}] if before else []
    return [*parts, *([{"type": "image"}] if picture else []), {"type": "text", "text": text}]


def _in_text(written: str) -> Speak:
    """A message's content as one string, as templates of language models read it: the picture is a line of its own."""

    def speak(text: str, picture: bool = False, before: str = "") -> Any:
        return f"{before}{written}\n{text}" if picture else f"{before}{text}"

    return speak


class _Cut:
    """One way of speaking to a template, and what it writes."""

    def __init__(
        self,
        render: Render,
        speak: Speak,
        written: str,
        around: tuple[str, str],
        bos: str,
        marks: Collection[str],
    ) -> None:
        self.render, self.speak, self.written, self.around = render, speak, written, around
        self.bos, self.marks = bos, sorted(filter(None, marks), key=len, reverse=True)
        self.system_in_turn = False
        self.thoughtless: set[str] = set()  # what stands before answers that were given, without the thoughts
        self.unwritten = ""  # what closes an answer, where the template does not write it

    def format(self) -> Format:
        system, hierarchy = chat_words()
        head, behind, ask, closed = self._cut(self._write(1), [self.written, QUESTIONS[0], ANSWERS[0]])
        opening = self._cut(self._write(1, answered=False), [self.written, QUESTIONS[0]])[-1]
        _, _, first, between, *_ = self._cut(self._write(2), [self.written, *_alternate()])
        begins = max(ask, opening, key=len)
        if not begins.startswith(ask) or not begins.startswith(opening):
            raise _Unlike(f"an answer begins with {ask!r} when it is given, with {opening!r} when it is asked for")
        self.thoughtless = {one for one in (ask, first) if one != begins and begins.startswith(one)}
        closing = closed.rstrip() or self._closed_by_the_next(between)
        if not between.startswith(closing):
            raise _Unlike(f"an answer ends with {closing!r} alone, with {between!r} before another question")
        start, bare = self._starts(head, between[len(closed) :] if between.startswith(closed) else "")
        picture, space = self._picture(f"{self.around[1]}{behind}")
        parts = Format(
            system=system,
            hierarchy=hierarchy,
            start=start,
            first=f"{{question}}{opening}",
            later=f"{between[len(closing) :]}{{question}}{opening}",
            answer=f"{begins[len(opening) :]}{{answer}}{closing}",
            bare=bare,
            picture=f"{self.around[0]}{picture}",
            between=space,
        )
        self._prove(parts, head)
        return parts

    def _closed_by_the_next(self, between: str) -> str:
        """What stands between two turns, up to its first token."""
        places = [(between.index(mark), mark) for mark in self.marks if mark in between]
        if not places:
            raise _Unlike("it writes nothing that closes an answer")
        place, mark = min(places)
        self.unwritten = between[: place + len(mark)]
        return self.unwritten

    def _picture(self, after: str) -> tuple[str, str]:
        """The picture with its closing marks, and what parts them from the question."""
        head = ""
        while mark := next((one for one in self.marks if after.startswith(one)), ""):
            head, after = head + mark, after.removeprefix(mark)
        return f"{IMAGE}{head}", after

    def _starts(self, head: str, turn: str) -> tuple[str, str]:
        """What stands before the picture, with system text and without.

        Args: `head`: as the template writes it where none is given; `turn`: what opens a later question.
        """
        try:
            before, after, *_ = self._cut(self._write(1, SYSTEM), [SYSTEM, self.written, QUESTIONS[0], ANSWERS[0]])
            again = self._cut(self._write(2, SYSTEM), [SYSTEM, self.written, *_alternate()])
            if again[:2] != [before, after]:
                raise _Unlike("it writes the system text elsewhere in a longer conversation")
        except _Unlike:  # no role for it: it goes before the first question
            self.system_in_turn = True
            before, after, *_ = self._cut(self._write(1, SYSTEM), [SYSTEM, self.written, QUESTIONS[0], ANSWERS[0]])
        start = f"{before}{{system}}{after}"
        ends = range(len(head) + 1)
        if any(before.startswith(head[:end]) and after.endswith(head[end:]) for end in ends):
            return start, head
        # a text of its own stands there: keep only what begins every text and what opens a question
        opening = after[after.rfind(turn) :] if turn and turn in after else ""
        if not opening or not head.endswith(opening):
            raise _Unlike(f"it writes {head!r} where no system text is given, which cannot be left out")
        first = self.bos if head.startswith(self.bos) and not opening.startswith(self.bos) else ""
        return start, f"{first}{opening}"

    def _write(self, turns: int, system: str = "", answered: bool = True) -> str:
        messages: Messages = []
        in_turn = self.system_in_turn if system else False
        if system and not in_turn:
            messages.append({"role": "system", "content": self.speak(system, False, "")})
        for turn in range(turns):
            before = f"{system}\n\n" if in_turn and not turn else ""
            messages.append({"role": "user", "content": self.speak(QUESTIONS[turn], not turn, before)})
            if answered or turn < turns - 1:
                messages.append({"role": "assistant", "content": self.speak(ANSWERS[turn], False, "")})
        try:
            return self.render(messages, not answered)
        except Exception as error:  # a template raises whatever it likes, and so does Jinja
            raise _Unlike(f"it fails: {error!s:.200}") from None

    @staticmethod
    def _cut(text: str, at: list[str]) -> list[str]:
        """The text between these, each of which it holds once and in this order."""
        found = []
        for one in at:
            if text.count(one) != 1:
                raise _Unlike(f"{one!r} comes {text.count(one)} times, or out of order, in what it writes")
            before, _, text = text.partition(one)
            found.append(before)
        return [*found, text]

    def _prove(self, parts: Format, head: str) -> None:
        """Everything that was rendered, put together from the parts, must be what the template wrote.

        `head`: what it writes before the picture where no system text is given.
        """
        begins = (parts.first + parts.answer).removeprefix("{question}").partition("{answer}")[0]
        for turns in (1, 2):
            for answered in (True, False):
                for system in (SYSTEM, ""):
                    ours, theirs = assemble(parts, turns, system, answered), self._write(turns, system, answered)
                    if not system and theirs.startswith(head):
                        theirs = parts.bare + theirs.removeprefix(head)
                    theirs = theirs.replace(self.written, f"{self.around[0]}{IMAGE}{self.around[1]}")
                    for given in self.thoughtless:
                        for answer in ANSWERS:
                            theirs = theirs.replace(given + answer, begins + answer)
                    if answered:
                        ours, theirs = ours.removesuffix(self.unwritten), theirs.rstrip()
                    if ours != theirs:
                        raise _Unlike(f"put together again it reads {ours!r}, the template wrote {theirs!r}")


def assemble(parts: Format, turns: int, system: str, answered: bool) -> str:
    """A conversation of the words put in, as the parts write it down."""
    text = parts.start.replace("{system}", system) if system else parts.bare
    for turn in range(turns):
        question = QUESTIONS[turn] if turn else f"{parts.picture}{parts.between}{QUESTIONS[turn]}"
        text += (parts.later if turn else parts.first).replace("{question}", question)
        if answered or turn < turns - 1:
            text += parts.answer.replace("{answer}", ANSWERS[turn])
    return text


def _alternate() -> list[str]:
    """Questions and answers of two turns in their order."""
    return [one for pair in zip(QUESTIONS, ANSWERS, strict=True) for one in pair]
