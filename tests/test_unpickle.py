"""The refer sets' pickles: Python 2's plain values are read, everything that could run is refused by its name."""

import os
import pickle

import pytest
from py2_pickle import pickled

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
