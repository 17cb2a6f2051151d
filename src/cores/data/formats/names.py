"""Words of annotation files: whether there are any, and what a thing is called when it is asked for."""

import unicodedata

from cores.errors import DataError

INVISIBLE = ("Cc", "Cf", "Zs", "Zl", "Zp")  # Unicode categories: control and format marks, separators


def is_blank(text: str) -> bool:
    """Is there nothing to see in a text: blanks, line ends, marks without width?"""
    return all(unicodedata.category(letter) in INVISIBLE for letter in text)


def as_asked(label: str, where: str) -> str:
    """A label or class name as it is asked for: Cup, "cup " and cup are one thing. Raises DataError when blank."""
    if is_blank(label):
        raise DataError(f"{where}: is blank: give the thing a name")
    return " ".join(unicodedata.normalize("NFC", label).split()).lower()
