"""JSON read in its encodings, and long lists of it item by item."""

import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest

from cores.data.formats.json_files import read_items, read_json, short, take, texts
from cores.data.formats.names import as_asked, is_blank
from cores.data.formats.picture_headers import read_header
from cores.data.index import cached
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
    ("name", "said"),
    [
        ("pipe", "is a pipe, a regular file was expected"),
        ("socket", "is a socket, a regular file was expected"),
        ("folder", "is a folder, a (file|picture) was expected"),
        ("loop", "cannot be read: Too many levels of symbolic links"),
        ("no\0name", "cannot be read: embedded null byte"),
    ],
)
def test_what_is_no_regular_file_is_refused_in_the_same_words(tmp_path, monkeypatch, name, said):
    """By everything that opens a file of data, without waiting for one who writes into a pipe."""
    monkeypatch.chdir(tmp_path)  # a socket's name must be short
    os.mkfifo("pipe")
    os.mkdir("folder")
    os.symlink("loop", "loop")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket")
    readers = [read_json, lambda path: next(read_items(path)), read_header]
    if name in ("pipe", "socket"):
        readers.append(lambda path: cached("x", [path], write=lambda part: None))
    for read in readers:
        with pytest.raises(DataError, match=f"{name}: {said}"):
            read(Path(name))


def test_encodings(tmp_path):
    path = tmp_path / "a.json"
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text('"naïve – café"', encoding)
        assert read_json(path) == read_json(path, "cp1252") == "naïve – café"
    path.write_text('"naïve – café"', "cp1252")
    assert read_json(path, "cp1252") == "naïve – café"
    path.write_bytes(b'"\x81"')
    with pytest.raises(DataError, match=r"a\.json: is neither UTF-8 nor cp1252"):
        read_json(path, "cp1252")


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("cp1252", "is no UTF-8 text"),
        ("gbk", "is no UTF-8 text"),
        ("shift_jis", "is no UTF-8 text"),
        *((name, "is UTF-16 or UTF-32 text") for name in ("utf-16", "utf-16-le", "utf-16-be", "utf-32")),
    ],
)
def test_another_encoding_is_never_guessed(tmp_path, encoding, said):
    """Chinese read as western letters would be asked for without a word."""
    text = '"naïve"' if encoding == "cp1252" else '"カップ"' if encoding == "shift_jis" else '"杯子"'
    (tmp_path / "a.json").write_text(text, encoding)
    with pytest.raises(DataError, match=rf"a\.json: {said}.*save it as UTF-8"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("text", ["", " \t\n", "\u00a0\u3000", "\u200b\ufeff", "\x00"])
def test_what_shows_nothing_is_blank(text):
    assert is_blank(text)
    assert not is_blank(f"{text}\u676f")
    with pytest.raises(DataError, match="here: is blank"):
        as_asked(text, "here")
    with pytest.raises(DataError, match="here: one of its texts is empty"):
        texts(["cup", text], "here")


def test_what_is_found_is_said_in_few_words():
    """Of a value as large as the file, no more is made than is said."""
    many = [1] * 10_000_000
    for value in (many, {"a": [many] * 1000}, "x" * 50_000_000, 10**4000, 10**5000, [[[[[[[1]]]]]]]):
        assert len(short(value)) <= 60
    assert short([1, "a", None]) == "[1, 'a', None]"
    with pytest.raises(DataError) as error:
        take({f"k{n}": 1 for n in range(100_000)}, "m", str, "f")
    assert len(str(error.value)) < 400


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
