"""What reaches the terminal: names of files and texts of data may hold codes that move its cursor or set its title."""

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

# Control characters, marks that turn the direction of writing, and bytes of a name that are no UTF-8.
CODES = r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
LINE = re.compile(f"[{CODES}]")
TEXT = re.compile(rf"(?!\x1b\[A)(?![\n\r\t])[{CODES}]")  # lines, and the step up that progress bars take


def printable(text: str) -> str:
    """The text on one line, with control characters written as \\x1b."""
    return LINE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that Python could not read as text
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class _Escaping:
    """A stream that writes lines and blanks as they are and other control characters as printable does."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        safe = TEXT.sub(_escaped, text)
        encoding = self.stream.encoding or "utf-8"  # letters that the terminal lacks are no reason to stop
        self.stream.write(safe.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def beneath(stream: TextIO) -> TextIO:
    """The stream that codes of our own are written to, such as pictures."""
    return stream.stream if isinstance(stream, _Escaping) else stream


@contextmanager
def escaped_output() -> Iterator[None]:
    """Inside, nothing that is written to stdout, stderr or our own log reaches the terminal as a code."""
    out, err, make = sys.stdout, sys.stderr, logging.getLogRecordFactory()

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made = make(*args, **kwargs)
        if made.name.partition(".")[0] == "cores":
            made.msg, made.args = printable(made.getMessage()), ()
        return made

    logging.setLogRecordFactory(record)
    sys.stdout, sys.stderr = _Escaping(out), _Escaping(err)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err
        logging.setLogRecordFactory(make)
