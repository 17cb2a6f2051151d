"""What an answer says: its words, whether it found anything, and what it calls each thing."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerBase

from cores.prompts import Prompt

Status = Literal["segmented", "absent", "text"]
CLOSES = re.compile(r"[.,:;!?)\]]")


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer in words: `text` with the checkpoint's own tokens, `plain` without them.

    `status`: `segmented`, at least one target is named; `absent`, a refusal; `text`, anything else. `phrases`: what
    each chain's target is called, in order; None where it has no name.
    """

    text: str
    plain: str
    status: Status
    phrases: list[str | None]

    @property
    def spans(self) -> list[tuple[int, int] | None]:
        """Where each name stands in `plain`, first character and the one behind the last; None where it has none."""
        found: list[tuple[int, int] | None] = []
        upto = 0
        for phrase in self.phrases:
            name = None if phrase is None else " ".join(phrase.split())
            begin = -1 if name is None else self.plain.find(f"{name}:", upto)
            if name is None or begin < 0:
                found.append(None)
            else:
                upto = begin + len(name)
                found.append((begin, upto))
        return found


def read_answer(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, ids: Sequence[int], token_ids: Sequence[int]
) -> Reading:
    """Read the ids of an answer, with or without what closes it. `token_ids`: the levels', coarse to fine."""
    tokens = dict(zip(token_ids, prompt.settings.level_tokens, strict=True))
    text, span, phrases = "", "", []
    named = False  # a chain's name stands before its first grounding token
    run: list[int] = []
    name: str | None = None
    for number in [*ids, None]:
        if number is not None and number not in tokens:
            run.append(number)
            continue
        words = _words(tokenizer, run)
        run = []
        text, span = _join(text, words), _join(span, words)
        if number is None:
            break
        if not named:
            name, named = _name(span), True
        text, span = _join(text, tokens[number]), _join(span, tokens[number])
        if number == token_ids[-1]:
            phrases.append(name)
            span, named = "", False
    text = text.removesuffix(prompt.closing).rstrip()
    plain = _without(text, tokens.values())
    if phrases:
        return Reading(text, plain, "segmented", phrases)
    return Reading(text, plain, "absent" if prompt.refuses(text) else "text", [])


def _words(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    words = str(tokenizer.decode(ids, skip_special_tokens=False)).strip() if ids else ""
    return re.sub(r" (?=[.,:;!?])", "", words)  # tokenizers of whole words set them apart


def _join(before: str, after: str) -> str:
    """Tokenizers strip the blanks around grounding tokens: put back those that a reader expects."""
    blank = " " if before and after and not CLOSES.match(after) else ""
    return f"{before}{blank}{after}"


def _without(text: str, tokens: Iterable[str]) -> str:
    for token in tokens:
        text = text.replace(token, " ")
    return re.sub(r" (?=[.,:;!?])", "", " ".join(text.split()))


def _name(span: str) -> str | None:
    """The words before a colon, of what stands before a chain's first token."""
    name = span.lstrip(".,;!? ").rstrip(" ") + " "
    return name.rpartition(": ")[0].strip() or None
