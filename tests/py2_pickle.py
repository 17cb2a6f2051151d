"""Pickles as Python 2 wrote them, whose strings are bytes: Python 3 cannot write those itself."""

from typing import Any


def pickled(value: Any, protocol: int) -> bytes:
    """A value of dicts, lists, strings and numbers in protocol 0 or 2. `bytes` become Python 2's str."""
    return (b"\x80\x02" if protocol == 2 else b"") + _body(value, protocol) + b"."


def _body(value: Any, protocol: int) -> bytes:
    if isinstance(value, dict):
        items = b"".join(_body(k, protocol) + _body(v, protocol) for k, v in value.items())
        return b"}(" + items + b"u" if protocol == 2 else b"(d" + _pairs(value)
    if isinstance(value, list):
        items = b"".join(_body(item, protocol) for item in value)
        return b"](" + items + b"e" if protocol == 2 else b"(l" + b"".join(_body(i, 0) + b"a" for i in value)
    if isinstance(value, str):
        data = value.encode("utf-8")
        if protocol == 2:
            return b"X" + len(data).to_bytes(4, "little") + data
        return b"V" + value.encode("raw_unicode_escape") + b"\n"
    if isinstance(value, bytes):
        if protocol == 2:
            return b"U" + len(value).to_bytes(1, "little") + value
        return b"S" + repr(value)[1:].encode("ascii") + b"\n"
    if isinstance(value, int):
        return b"J" + value.to_bytes(4, "little", signed=True) if protocol == 2 else b"I%d\n" % value
    raise TypeError(value)


def _pairs(value: dict[Any, Any]) -> bytes:
    return b"".join(_body(k, 0) + _body(v, 0) + b"s" for k, v in value.items())
