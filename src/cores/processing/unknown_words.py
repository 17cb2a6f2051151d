"""Which words of a text a tokenizer does not know: those that it loses, and those that it can only spell.

All lost words have the same ids, so that no model can tell them apart, trained or not. A spelled one can be learned;
a model that was never trained on it does not know what it means.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from cores.processing.tokens import encode

SHOWN = 8  # words that a line names; the others are counted
LONGEST = 24  # letters of a word that a line shows
FEWEST = 3  # pieces of a word that count as spelling: shorter ones are initials and articles
FIELDS = ("{loc}", "{part}", "{seg}")  # of answers: tokens' places, not words


@dataclass(frozen=True, slots=True)
class UnknownWords:
    """Words in the order in which they were met. `lost`: read as the unknown token; `spelled`: letter by letter."""

    lost: tuple[str, ...]
    spelled: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.lost or self.spelled)

    def __str__(self) -> str:
        """One line that names at most eight words of each kind; empty when every word is known."""
        said = []
        if self.lost:
            said.append(f"does not know {_named(self.lost)}: all such words read alike")
        if self.spelled:
            said.append(
                f"can only spell {_named(self.spelled)}: their meaning has to be learned (docs/own-data.md, new words)"
            )
        return f"the tokenizer {'; it '.join(said)}" if said else ""


def find_unknown_words(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> UnknownWords:
    """The words of texts that the tokenizer maps to its unknown token, or cuts into single letters or bytes."""
    lost, spelled = [], []
    for word in dict.fromkeys(word for text in texts for word in _words(text)):
        ids = encode(tokenizer, word)
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
            lost.append(word)
        elif word.isalpha() and len(ids) >= max(FEWEST, len(word)):
            spelled.append(word)
    return UnknownWords(tuple(lost), tuple(spelled))


def _words(text: str) -> list[str]:
    """Letters, marks and digits that stand together, and each symbol; punctuation is no word."""
    for field in FIELDS:
        text = text.replace(field, " ")
    return "".join(_spaced(letter) for letter in text).split()


def _spaced(letter: str) -> str:
    kind = unicodedata.category(letter)[0]
    if kind in "LMN":
        return letter
    return f" {letter} " if kind == "S" else " "


def _named(words: tuple[str, ...]) -> str:
    shown = ", ".join(word if len(word) <= LONGEST else f"{word[:LONGEST]}..." for word in words[:SHOWN])
    more = len(words) - SHOWN
    return f"{shown} and {more:,} more" if more > 0 else shown
