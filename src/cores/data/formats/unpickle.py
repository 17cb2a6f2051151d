"""The refer sets' pickles, read without running anything: containers, strings and numbers, and nothing else.

A pickle is a program. Whatever it does beyond plain values begins with looking up a name, and every name is refused.
"""

import pickle
from pathlib import Path
from typing import Any, NoReturn

from cores.errors import DataError

BROKEN = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,  # also text that cannot be decoded
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
)


class Plain(pickle.Unpickler):
    """An unpickler that knows no names. Raises DataError for the first one."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise DataError(
            f"asks for {module}.{name}: only containers, strings and numbers are read, so this file is refused; "
            "get it from its authors again"
        )

    def persistent_load(self, pid: Any) -> NoReturn:
        raise DataError(f"asks for the outside object {pid!r}: only containers, strings and numbers are read")


def read_pickle(path: Path) -> Any:
    """The value of a pickle of any protocol, Python 2's too, whose strings are read as UTF-8.

    Bytes that are no UTF-8 come as surrogates (`repaired` makes text of them). Raises DataError.
    """
    try:
        with path.open("rb") as file:
            return Plain(file, encoding="utf-8", errors="surrogateescape").load()
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except BROKEN as error:
        raise DataError(f"{path}: is no pickle that can be read ({type(error).__name__}: {error})") from None


def repaired(text: str) -> str:
    """Text of a Python 2 string that was cp1252."""
    if text.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in text):
        return text
    return text.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
