"""Names in annotation files: of things, as they are asked for, and of files, as another system wrote them."""

import os
import unicodedata
from pathlib import Path, PurePosixPath

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


def named_file(folder: Path, name: str) -> Path:
    """The file that an annotation in `folder` names; Windows' backslashes are read, unless a file is called so."""
    if "\\" in name and not os.path.isfile(folder / name):
        name = name.replace("\\", "/")
    return folder / PurePosixPath(name)
