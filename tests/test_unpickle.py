"""The refer sets' pickles: Python 2's plain values are read, everything that could run is refused by its name."""

import os
import pickle
import time
import tracemalloc

import pytest
from py2_pickle import pickled

from cores.data.formats.json_files import short
from cores.data.formats.unpickle import read_pickle, repaired
from cores.errors import DataError

VALUE = [{b"sent": b"the caf\xc3\xa9", b"ids": [1, -2], b"raw": "é"}, {}]


@pytest.mark.parametrize("protocol", [0, 2])
def test_python_2s_values_are_read(tmp_path, protocol):
    (tmp_path / "refs(unc).p").write_bytes(pickled(VALUE, protocol))
    assert read_pickle(tmp_path / "refs(unc).p") == [{"sent": "the café", "ids": [1, -2], "raw": "é"}, {}]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_of_python_3_is_read(tmp_path, protocol):
    value = {"a": [1, 2.5, None, True, ("x", 1 << 80)]}
    (tmp_path / "refs").write_bytes(pickle.dumps(value, protocol))
    assert read_pickle(tmp_path / "refs") == value


def test_cp1252_is_mended(tmp_path):
    (tmp_path / "refs").write_bytes(pickled([b"na\xefve \x96"], 2))
    (text,) = read_pickle(tmp_path / "refs")
    assert repaired(text) == "naïve –"
    assert repaired("plain") == "plain"
    assert repaired("café") == "café"


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_an_attack_does_nothing_and_is_named(tmp_path, protocol):
    (tmp_path / "refs").write_bytes(pickle.dumps([Attack(tmp_path / "hacked")], protocol))
    pickle.loads((tmp_path / "refs").read_bytes())
    (tmp_path / "hacked").unlink()  # the attack works on whoever reads pickles in the usual way
    with pytest.raises(DataError, match=rf"refs: asks for {os.system.__module__}\.system"):
        read_pickle(tmp_path / "refs")
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"cbuiltins\neval\n(S'1'\ntR.", r"builtins\.eval"),
        (b"(i__main__\nThing\n.", r"__main__\.Thing"),
        (b"c__builtin__\nset\n((ltR.", "set"),
        (pickle.dumps(print), r"builtins\.print"),
        (b"Pname\n.", "asks for the outside object"),
        (b"\x80\x02\x82\x01.", "is no pickle that can be read"),
        (b"", "is no pickle"),
        (b"(lp0\nI1", "is no pickle"),
        (b"\x80\x02U\xff", "is no pickle"),
        (b"\xff\xfe", "is no pickle"),
        (b"\x80\x02}U\x01aK\x01K\x02.", ""),
    ],
)
def test_whatever_else_is_refused(tmp_path, content, said):
    (tmp_path / "refs").write_bytes(content)
    if not said:
        assert read_pickle(tmp_path / "refs") == 2  # what stands last: still a plain value
        return
    with pytest.raises(DataError, match=said) as error:
        read_pickle(tmp_path / "refs")
    assert "refs" in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        read_pickle(tmp_path / "refs")


def nested(steps, start=b")", count=200_000):
    return b"\x80\x02" + start + steps * count


LAUGHS = b"]" + b"".join(b"q%c(h%ch%cl" % (n, n, n) for n in range(60))  # each list holds the one before twice
LATE = (
    b"("
    + b"".join(b"]q%c" % n for n in range(60))
    + b"".join(b"h%c(h%ch%ce" % (n, n - 1, n - 1) for n in range(59, 0, -1))
)
BOMBS = {
    "a memo number of 4 GB": (b"\x80\x02]r\xff\xff\xff\x7f.", "beyond its 9 bytes"),
    "the same in letters": (b"(lp2000000000\n.", "beyond its 15 bytes"),
    "a text longer than the file": (b"\x80\x04\x8d" + b"\xff" * 7 + b"\x00.", "is no pickle"),
    "a number of 2,000 bytes": (
        b"\x80\x02\x8b" + (2000).to_bytes(4, "little") + b"\x7f" * 2000 + b".",
        "number of 2000",
    ),
    "a number of 5,000 digits": (b"L" + b"9" * 5000 + b"L\n.", "holds a number of"),
    "lists that double": (b"\x80\x02" + LAUGHS + b".", "holds more than"),
    "lists that double afterwards": (b"\x80\x02" + LATE + b"l.", "holds more than"),
    "tuples that double, as a key": (
        b"\x80\x02}" + b")" + b"".join(b"q%c(h%ch%ct" % (n, n, n) for n in range(60)) + b"K\x01s.",
        "tuple of more than 10000 values",
    ),
    "tuples as deep as the stack, as a key": (nested(b"\x85", b"})") + b"K\x01s.", "tuple of more than 10000 values"),
    "the same with values between": (nested(b"K\x01\x86", b"})") + b"K\x01s.", "tuple of more than 10000 values"),
    "lists as deep as the stack": (b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", "100 deep"),
    "a list in itself": (b"\x80\x02]q\x00h\x00a.", "inside of themselves"),
    "a step nobody writes": (b"\x80\x02]20.", "takes the step DUP"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_at_once(tmp_path, name):
    content, said = BOMBS[name]
    (tmp_path / "refs").write_bytes(content)
    tracemalloc.start()
    began = time.monotonic()
    try:
        with pytest.raises(DataError, match=said) as error:
            read_pickle(tmp_path / "refs")
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < 20
    assert len(str(error.value)) < 500


def test_what_is_shared_as_programs_share_it_is_read(tmp_path):
    text, point = "the lid", (1, 2)
    value = [{"words": [text] * 50, "at": point, "again": point, text: [point] * 9} for _ in range(100)]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "refs").write_bytes(pickle.dumps(value, protocol))
        assert read_pickle(tmp_path / "refs") == value


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "refs")
    with pytest.raises(DataError, match="is a pipe"):
        read_pickle(tmp_path / "refs")


def test_what_was_found_is_said_in_short():
    deep, wide = [], [0]
    for _ in range(60):
        deep, wide = [deep], [wide, wide]
    for value in (deep, wide, 1 << 100_000, "x" * 10**6, b"x" * 10**6, {"a": wide}, list(range(10**6))):
        assert len(short(value)) <= 60
    assert short([1, "a", None, {"b": 2.5}]) == "[1, 'a', None, {'b': 2.5}]"
