"""Annotation files: JSON in UTF-8, and fields that must be there and of their type."""

import json
import re
import reprlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader, TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

from cores.data.formats.names import is_blank
from cores.errors import DataError
from cores.regular_files import open_regular

Kind = TypeVar("Kind")
BLANKS, DECODER, ENDS = re.compile(r"\s*"), json.JSONDecoder(), tuple(",] \t\r\n")
NAMES = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
}


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """An annotation file, opened to read its bytes.

    Raises DataError for a folder, a pipe, a lost link, and for whatever the system says while it is read.
    """
    try:
        with open_regular(path) as file:
            yield file
    except FileNotFoundError:
        raise DataError(f"{clipped(path)}: there is no such file") from None
    except IsADirectoryError:
        raise DataError(f"{clipped(path)}: is a folder, a file was expected") from None
    except OSError as error:
        raise DataError(f"{clipped(path)}: cannot be read: {error.strerror}") from None


def read_bytes(path: Path) -> bytes:
    """All bytes of a file. Raises DataError when it is no regular file or cannot be read."""
    with opened(path) as file:
        return file.read()


def decode(content: bytes, where: str | Path, fallback: str | None = None) -> str:
    """Bytes of a text file as text: UTF-8, with or without a byte order mark.

    Args: `fallback`: the encoding of what is no UTF-8, where a published set has such files.
    Raises DataError, beginning with `where`, for what is in neither.
    """
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in content[:4]:
        raise DataError(f"{where}: is UTF-16 or UTF-32 text, expected UTF-8: save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        broken = error
    if fallback is not None:
        try:
            return content.decode(fallback)
        except UnicodeDecodeError:
            raise DataError(f"{where}: is neither UTF-8 nor {fallback} text: save it as UTF-8") from None
    raise DataError(
        f"{where}: is no UTF-8 text (byte {broken.start}: {broken.reason}), expected UTF-8: save it as UTF-8; "
        "another encoding cannot be told from its bytes"
    )


def parse(text: str | bytes, where: str | Path) -> Any:
    """JSON as Python values. Raises DataError that says at which line it breaks."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: is no JSON: {error}") from None
    except (RecursionError, ValueError) as error:  # nested without end; a number of ten thousand digits
        raise DataError(f"{where}: is no JSON that can be read: {error}") from None


def read_json(path: Path, fallback: str | None = None) -> Any:
    """What a JSON file holds. Args as `decode`.

    Raises DataError, with the file's name, when it cannot be read or is no JSON.
    """
    return parse(decode(read_bytes(path), path, fallback), path)


def read_items(path: Path, block: int = 1 << 20) -> Iterator[Any]:
    """The items of a file that is one JSON list, in UTF-8: one after the other, never all of them in memory.

    Args: `block`: characters that are read at once, at least. Raises DataError that names the item at which it breaks.
    """
    try:
        with opened(path) as file:
            text = _Ahead(TextIOWrapper(file, encoding="utf-8-sig"), block)
            if text.sign() != "[":
                raise DataError(f"{path}: found {short(text.text[:60])}, expected a list")
            text.use(1)
            number = 0
            while text.sign() != "]":
                if number:
                    if text.sign() != ",":
                        raise DataError(f"{path}: record {number}: is no JSON: a comma or the list's end is missing")
                    text.use(1)
                try:
                    yield text.value()
                except (ValueError, RecursionError) as error:
                    raise DataError(f"{path}: record {number}: is no JSON: {error}") from None
                number += 1
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8") from None


class _Ahead:
    """A text read block by block, of which what is used is forgotten."""

    def __init__(self, file: IO[str], block: int) -> None:
        self.file, self.block, self.text, self.at = file, block, "", 0

    def more(self) -> bool:
        """Read on; was there anything?"""
        left = self.text[self.at :]
        new = self.file.read(max(self.block, len(left)))  # twice as far each time: a long value is not tried often
        self.text, self.at = left + new, 0
        return bool(new)

    def use(self, count: int) -> None:
        self.at += count

    def sign(self) -> str:
        """The next letter that is no blank; none at the end."""
        while True:
            self.at = BLANKS.match(self.text, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.text) or not self.more():
                return self.text[self.at : self.at + 1]

    def value(self) -> Any:
        """The next value. Raises ValueError when there is none."""
        self.sign()
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError:
                if not self.more():
                    raise
                continue
            if self.text[end : end + 1] in ENDS or not self.more():  # a number may go on in the next block
                self.at = end
                return value


def take(record: Any, key: str, kind: type[Kind], where: str | Path) -> Kind:
    """A field that must be there. Raises DataError with what was found instead; `where` names file and record."""
    if not isinstance(record, dict):
        raise DataError(f"{where}: found {short(record)}, expected an object with the field {key!r}")
    if key not in record:
        raise DataError(f"{where}: the field {key!r} is missing; there are {listed(map(repr, record))}")
    return check(record[key], kind, f"{where}: {key}")


def maybe(record: dict[str, Any], key: str, kind: type[Kind], where: str | Path) -> Kind | None:
    """A field that may be missing or null, which gives None. Raises DataError, as `take`, for another type."""
    value = record.get(key)
    return None if value is None else check(value, kind, f"{where}: {key}")


def check(value: Any, kind: type[Kind], where: str) -> Kind:
    """A value of this type. A whole number is a number too; true and false are no numbers.

    Raises DataError, beginning with `where`, for a value of another type and for text that holds half a character.
    """
    fits = isinstance(value, (int, float) if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise DataError(f"{where}: found {short(value)}, expected {NAMES.get(kind, 'a number')}")
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise DataError(f"{where}: found {short(value)}, which holds half a character: no text") from None
    return value  # type: ignore[no-any-return]


def texts(value: Any, where: str) -> list[str]:
    """A list of texts, none of them blank. Raises DataError, beginning with `where`, when it is none."""
    for text in check(value, list, where):
        if is_blank(check(text, str, f"{where}: item")):
            raise DataError(f"{where}: one of its texts is empty")
    return list(value)


def take_id(record: Any, key: str, where: str | Path) -> int | str:
    """An id that must be there: a whole number, or text; text of digits alone is the number ("7" and 7 are one).

    Raises DataError, as `take`, when it is missing or of another type.
    """
    if isinstance(record, dict) and isinstance(value := record.get(key), str):
        text = check(value, str, f"{where}: {key}")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 19 and str(int(text)) == text else text
    return take(record, key, int, where)


class _Short(reprlib.Repr):
    """`repr` of a bounded part of a value: a few hundred bytes of pickle can hold 2 to the 40 items."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 4, 100, 100
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = 20

    def repr_int(self, value: int, level: int) -> str:
        bits = value.bit_length()  # Python refuses to write out more than a few thousand digits
        return repr(value) if bits < 200 else f"a number of {bits} bits"

    def repr_bytes(self, value: bytes, level: int) -> str:
        return repr(value[: self.maxstring])


def short(value: Any) -> str:
    """A value for a message, in 60 letters at most."""
    text = _Short().repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def clipped(text: object) -> str:
    """What somebody else named, for a message: its first 60 letters, 1000 of a path."""
    said = str(text)
    limit = 1000 if isinstance(text, Path) else 60
    return said if len(said) <= limit else f"{said[: limit - 3]}..."


def listed(names: Iterable[str], count: int = 20) -> str:
    """The first names of several, `count` at most, for a message."""
    members = [clipped(name) for name in islice(names, count + 1)]
    return ", ".join(members[:count]) + (", ..." if len(members) > count else "") or "none"
