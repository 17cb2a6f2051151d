"""The refer sets' pickles, read without running anything: containers, strings and numbers, and nothing else.

A pickle is a program. Whatever it does beyond plain values begins with looking up a name, and every name is refused.
"""

import pickle
import pickletools
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

from cores.errors import DataError
from cores.regular_files import open_regular

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
CONTAINERS = (dict, list, tuple, set, frozenset)
BY_CODE = {step.code.encode("latin-1"): step for step in pickletools.opcodes}
BY_NAME = {step.name: step for step in pickletools.opcodes}
WIDTHS = {  # how many bytes say how long an argument is
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
# Steps by what they do. At the first look-up the unpickler stops, always.
LOOK_UPS = {"GLOBAL", "INST", "STACK_GLOBAL", "REDUCE", "OBJ", "NEWOBJ", "NEWOBJ_EX", "PERSID", "BINPERSID"}
LOOK_UPS |= {"EXT1", "EXT2", "EXT4"}
PUTS, GETS = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}
TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"}
NUMBERS, SHUFFLES = {"INT", "LONG", "LONG1", "LONG4"}, {"DUP", "POP", "POP_MARK"}
MARK = -1  # on the stack of `_check_tuples`
DIGITS = 100  # bytes of a number
INSIDE = 10_000  # values in a tuple with all that is in it
DEEP = 100  # containers inside of each other
SHARED = 100  # times as many values as bytes, counting those that are held in several places


class Plain(pickle.Unpickler):
    """An unpickler that knows no names. Raises DataError for the first one."""

    def find_class(self, module: str, name: str) -> NoReturn:
        """Raises DataError, whatever the name is."""
        raise DataError(
            f"asks for {module}.{name}: only containers, strings and numbers are read, so this file is refused; "
            "get it from its authors again"
        )

    def persistent_load(self, pid: Any) -> NoReturn:
        """Raises DataError, whatever the object is."""
        raise DataError(f"asks for the outside object {pid!r}: only containers, strings and numbers are read")


def read_pickle(path: Path) -> Any:
    """The value of a pickle of any protocol, Python 2's too, whose strings are read as UTF-8.

    Bytes that are no UTF-8 come as surrogates (`repaired` makes text of them). Raises DataError when the file cannot
    be read, is no pickle, or does more than plain data need.
    """
    try:
        with open_regular(path) as file:
            content = file.read()
        _check_steps(content)
        value = Plain(BytesIO(content), encoding="utf-8", errors="surrogateescape").load()
        _check_size(value, len(content))
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except BROKEN as error:
        raise DataError(f"{path}: is no pickle that can be read ({type(error).__name__}: {error})") from None
    return value


def _check_steps(content: bytes) -> None:
    """Look at the steps of a pickle before any is taken.

    Raises DataError for those that cost more than a file of its size can mean, ValueError when it is cut off.
    """
    tuples = False
    for name, argument in _steps(content):
        if name in LOOK_UPS:
            break  # the unpickler goes no further, and says which name it was
        if name in PUTS and _number(name, argument) > len(content):
            raise DataError(f"notes a value under a number beyond its {len(content)} bytes: it is refused")
        if name in NUMBERS and len(argument) > DIGITS:
            raise DataError(f"holds a number of {len(argument)} bytes: it is refused")
        if name in SHUFFLES:
            raise DataError(f"takes the step {name}, which no program that writes data takes: it is refused")
        tuples |= name in TUPLES
    if tuples:
        _check_tuples(content)


def _check_tuples(content: bytes) -> None:
    """Tuples may be keys, and Python's hash of one walks through all that is in it: so that has to be bounded first.

    The stack is followed with the number of values inside a tuple in a tuple's place, and 1 in that of all others.
    """
    stack: list[int] = []
    notes: dict[int, int] = {}
    for name, argument in _steps(content):
        if name in LOOK_UPS:
            break
        if name == "MARK":
            stack.append(MARK)
        elif name in PUTS or name == "MEMOIZE":
            key = len(notes) if name == "MEMOIZE" else _number(name, argument)
            notes[key] = stack[-1]
        elif name in GETS:
            stack.append(notes.get(_number(name, argument), 1))
        else:
            step = BY_NAME[name]
            before = step.stack_before
            taken: list[int] = []
            if pickletools.markobject in before:
                at = len(stack) - 1 - stack[::-1].index(MARK)
                taken = stack[at + 1 :]
                del stack[at:]
                before = before[: before.index(pickletools.markobject)]
            if before:
                taken += stack[-len(before) :]
                del stack[-len(before) :]
            count = 1 + sum(taken) if name in TUPLES else 1
            if count > INSIDE:
                raise DataError(f"holds a tuple of more than {INSIDE} values: it is refused")
            stack += [count] * len(step.stack_after)


def _steps(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The names of a pickle's steps and their arguments, up to its end. Raises ValueError when it is cut off.

    `pickletools.genops` would do, but for Python 2's strings that are not ASCII, which it refuses.
    """
    at, name = 0, ""
    while name != "STOP":
        step = BY_CODE.get(content[at : at + 1])
        if step is None:
            raise ValueError(f"no step begins at byte {at}")
        name, at = step.name, at + 1
        size = 0 if step.arg is None else step.arg.n
        if size in WIDTHS:
            at, size = at + WIDTHS[size], int.from_bytes(content[at : at + WIDTHS[size]], "little")
        if size == pickletools.UP_TO_NEWLINE:
            size = content.find(b"\n", at) + 1 - at
        if size < 0 or at + size > len(content):
            raise ValueError(f"it is cut off at byte {at}")
        yield name, content[at : at + size]
        at += size if name not in LOOK_UPS else len(content)  # two lines; nobody reads on


def _number(name: str, argument: bytes) -> int:
    return int(argument) if name in ("PUT", "GET") else int.from_bytes(argument, "little")


def _check_size(value: Any, size: int) -> None:
    """Raises DataError when a value is far larger than its file, counted with all that it holds in several places,
    and when it lies deeper than data do, or in itself.
    """
    limit, depth = max(SHARED * size, INSIDE), 0
    counts: dict[int, int] = {}  # of the values in a container; 0 while they are looked through
    stack = [(value, False)]
    while stack:
        here, seen = stack.pop()
        inner = [*here.keys(), *here.values()] if isinstance(here, dict) else here
        inside = [one for one in inner if isinstance(one, CONTAINERS)] if isinstance(here, CONTAINERS) else []
        if seen:
            depth -= 1
            counts[id(here)] = 1 + len(inner) + sum(counts[id(one)] for one in inside)
            if counts[id(here)] > limit:
                raise DataError(f"holds more than {limit} values in {size} bytes: it is refused")
        elif isinstance(here, CONTAINERS) and not counts.get(id(here)):
            depth += 1
            if id(here) in counts or depth > DEEP:
                raise DataError(f"holds values inside of themselves, or {DEEP} deep: it is refused")
            counts[id(here)] = 0
            stack += [(here, True), *((one, False) for one in inside)]


def repaired(text: str) -> str:
    """Text of a Python 2 string that was cp1252: where `read_pickle` left surrogates; other text stays as it is."""
    if text.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in text):
        return text
    return text.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
