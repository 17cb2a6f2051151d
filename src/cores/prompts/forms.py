"""How a text of a user's own is put into words: one rule for what is asked and for what is trained.

Data sets that know what their texts are (class names, ReasonSeg's `is_sentence`) say the form themselves.
"""

import re

from cores.data.sample import Form
from cores.errors import UserError

# Words that make a whole request of a query: with one of them it is asked as it stands.
CLAUSE = frozenset(
    "what which where who whose when why how that you your i me we is are was were do does can could would should "
    "show find point segment locate mark look tell give please".split()
)


def refuse_half_characters(text: str) -> None:
    """Raise UserError for text that no tokenizer takes: Python reads bytes that are no UTF-8 as half characters."""
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(f"{text!r:.120}: is no text in UTF-8") from None


def form_of(query: str) -> Form:
    """A sentence, which is asked as it stands, or a phrase, which names something and is put into a question.

    A sentence ends in a full stop, question or exclamation mark, or holds a word that names do not ("the thing *that*
    one holds").
    """
    words = re.findall(r"[a-z']+", query.lower())
    return "sentence" if query.rstrip().endswith((".", "?", "!")) or CLAUSE.intersection(words) else "phrase"
