"""Annotation files: JSON in UTF-8, long lists of it item by item, and names of things and files."""

import json
import os

import numpy as np
import pytest

from cores.data.formats.json_files import read_items, read_json, take
from cores.data.formats.names import as_asked, is_blank, named_file
from cores.errors import DataError

VALUES = [{"a": [1, 2, {"b": 'é " ] , ['}]}, 12345, -1.5e3, "x", [], None, True]


@pytest.mark.parametrize("block", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 3])
def test_items_are_those_of_the_whole_list(tmp_path, block, indent):
    for values in (VALUES, [], [12345, 6], [[]]):
        text = json.dumps(values, indent=indent, ensure_ascii=False)
        (tmp_path / "a.json").write_text(f"\ufeff \n{text}\n", "utf-8")
        assert list(read_items(tmp_path / "a.json", block)) == values


def test_items_come_before_the_file_is_read(tmp_path):
    (tmp_path / "a.json").write_text("[1, 2, {" + " " * 5000 + "broken")
    items = read_items(tmp_path / "a.json", 16)
    assert (next(items), next(items)) == (1, 2)
    with pytest.raises(DataError, match=r"a\.json: record 2: is no JSON"):
        next(items)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "found '', expected a list"),
        (b'{"a": 1}', "expected a list"),
        (b"[1 2]", "record 1: is no JSON: a comma"),
        (b"[1,]", "record 1: is no JSON"),
        (b"[1", "record 1: is no JSON: a comma"),
        (b"[", "record 0: is no JSON"),
        (b"[" * 100_000, "record 0: is no JSON"),
        (b'["\xe9"]', "is no UTF-8 text"),
    ],
)
def test_a_list_that_is_none_is_named(tmp_path, content, said):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=said):
        list(read_items(tmp_path / "a.json"))


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "cp1252", "gbk", "shift_jis", "utf-16", "utf-16-be", "utf-32"]
)
def test_only_utf_8_is_read_where_nothing_else_is_known_to_come(tmp_path, encoding):
    (tmp_path / "a.json").write_text('"caf\u00e9"' if encoding == "cp1252" else '"\u4eca\u65e5"', encoding)
    if encoding.startswith("utf-8"):
        assert read_json(tmp_path / "a.json") == "\u4eca\u65e5"
        return
    with pytest.raises(DataError, match=r"a\.json: is .*: save it as UTF-8") as error:
        read_json(tmp_path / "a.json")
    assert ("UTF-16" in str(error.value)) == (encoding[:6] in ("utf-16", "utf-32"))


def test_a_fallback_is_named_when_it_fails_too(tmp_path):
    (tmp_path / "a.json").write_bytes(b'"caf\xe9"')
    assert read_json(tmp_path / "a.json", "cp1252") == "caf\u00e9"
    (tmp_path / "a.json").write_bytes(b'"\x81"')
    with pytest.raises(DataError, match=r"a\.json: is no UTF-8 text and no cp1252: save it as UTF-8"):
        read_json(tmp_path / "a.json", "cp1252")


def put_folder(path):
    path.mkdir()


def put_pipe(path):
    os.mkfifo(path)


def put_loop(path):
    path.symlink_to(path)


@pytest.mark.parametrize("put", [put_folder, put_pipe, put_loop])
@pytest.mark.parametrize("read", [read_json, lambda path: next(read_items(path))])
def test_only_regular_files_are_opened(tmp_path, put, read):
    """A pipe would be waited for without end."""
    put(tmp_path / "a.json")
    with pytest.raises(DataError, match=r"a\.json: (cannot be read: |is a pipe, a regular file was expected)"):
        read(tmp_path / "a.json")


@pytest.mark.parametrize("text", ["", " \t\n", "\u00a0\u3000", "\u200b\ufeff", "\x00"])
def test_what_shows_nothing_is_blank(text):
    assert is_blank(text)
    assert not is_blank(f"{text}\u676f")
    with pytest.raises(DataError, match="here: is blank"):
        as_asked(text, "here")


def test_one_thing_has_one_name():
    for label in ("Caf\u00e9 Cup", " cafe\u0301  cup\n", "CAF\u00c9 CUP"):
        assert as_asked(label, "here") == "caf\u00e9 cup"


def test_files_that_windows_named(tmp_path):
    assert named_file(tmp_path, "pics\\a.png") == tmp_path / "pics" / "a.png"
    assert named_file(tmp_path, "./pics/a.png") == tmp_path / "pics" / "a.png"
    (tmp_path / "odd\\name.png").write_bytes(b"")
    assert named_file(tmp_path, "odd\\name.png") == tmp_path / "odd\\name.png"


def test_fields_have_their_type():
    record = {"n": 1, "x": 1.5, "yes": True, "s": "a"}
    assert [take(record, key, kind, "f") for key, kind in (("n", int), ("x", float), ("yes", bool))] == [1, 1.5, True]
    assert take(record, "n", float, "f") == 1
    for key, kind, said in (
        ("yes", int, "f: yes: found True, expected a whole number"),
        ("n", str, "f: n: found 1, expected text"),
        ("m", str, "f: the field 'm' is missing; there are 'n', 'x', 'yes', 's'"),
    ):
        with pytest.raises(DataError, match=said):
            take(record, key, kind, "f")
    with pytest.raises(DataError, match=r"found array\(\[1\]\), expected an object"):
        take(np.array([1]), "a", int, "f")
