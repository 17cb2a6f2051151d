"""Downloads from a server that breaks off and lies: resumed, checked, unpacked into place and nowhere else."""

import hashlib
import io
import json
import os
import stat
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from cores.cli import main
from cores.data.fetch.catalog import Entry, RemoteFile, entries, read_catalog
from cores.data.fetch.download import download
from cores.data.fetch.unpack import unpack
from cores.data.inspect.doctor import USUAL
from cores.errors import DataError

CONTENT = bytes(range(256)) * 4000  # a megabyte


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT; how badly is said by the path."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        how = self.path.strip("/").partition("/")[0]
        server.asked.append(self.headers.get("Range"))
        turn = sum(1 for path in server.paths if path == self.path)
        server.paths.append(self.path)
        content = server.files.get(self.path, CONTENT)
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        if how == "busy" and turn < 2:
            return self.send_error(503)
        if how == "gone":
            return self.send_error(404)
        if how == "page":
            content, start = b"<!DOCTYPE html><p>agree to our terms</p>", 0
        if how == "other":  # another file each time, as its tag says
            content = bytes([turn]) * len(CONTENT)
            if self.headers.get("If-Range") != f'"{turn}"':
                start = 0
        if how == "deaf":
            start = 0
        if start >= len(content):
            return self.send_error(416)
        body = content[start:]
        if how == "elsewhere" and start and turn < 3:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes 5-{len(content) - 1}/{len(content)}")
        elif start:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if how == "other":
            self.send_header("ETag", f'"{turn}"')
        if how == "nonsense":
            self.send_header("Content-Length", "many")
        elif how != "endless":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        breaks = {"breaks": 300_000, "deaf": 300_000 if turn < 2 else None, "elsewhere": 300_000, "other": 300_000}
        if how == "other" and turn == 2:
            breaks["other"] = None
        self.wfile.write(body[: breaks.get(how)])


@pytest.fixture
def server():
    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.asked, served.paths, served.files = [], [], {}
    served.at = f"http://127.0.0.1:{served.server_address[1]}"
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    served.shutdown()
    thread.join()
    served.server_close()


def get(server, home, path, into="a/file.bin", **known):
    entry = Entry("x", "x", "x", (RemoteFile(f"{server.at}/{path}", into, **known),))
    return download(entry, home, progress=False, pause=0.001)


@pytest.mark.parametrize("how", ["good", "breaks", "deaf", "elsewhere", "busy", "endless"])
def test_whatever_the_server_does_the_file_is_whole(server, tmp_path, how):
    md5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    assert get(server, tmp_path, f"{how}/file", md5=md5, size=len(CONTENT)) == 1
    assert (tmp_path / "a" / "file.bin").read_bytes() == CONTENT
    if how == "breaks":
        assert server.asked == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]
    assert get(server, tmp_path, f"{how}/file", md5=md5) == 0  # done: not asked again


def test_a_file_that_changes_underway_is_fetched_from_its_beginning(server, tmp_path):
    assert get(server, tmp_path, "other/file") == 1
    assert (tmp_path / "a" / "file.bin").read_bytes() == bytes([2]) * len(CONTENT)


def test_an_interrupted_download_goes_on_later(server, tmp_path):
    parts = tmp_path / ".downloads"
    parts.mkdir()
    (parts / "file.part").write_bytes(CONTENT[:500_000])
    get(server, tmp_path, "good/file", sha256=hashlib.sha256(CONTENT).hexdigest())
    assert server.asked == ["bytes=500000-"]


def test_a_part_that_is_too_long_is_thrown_away(server, tmp_path):
    (tmp_path / ".downloads").mkdir()
    (tmp_path / ".downloads" / "file.part").write_bytes(CONTENT + b"more")
    get(server, tmp_path, "good/file", size=len(CONTENT))
    assert (tmp_path / "a" / "file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("path", "known", "said"),
    [
        ("good/f", {"md5": "0" * 32}, "its md5 is .*, expected 0000"),
        ("good/f", {"sha256": "0" * 64}, "its sha256 is"),
        ("good/f", {"size": 7}, "is 1024000 bytes long, expected 7"),
        ("page/f", {}, "is a web page, not the file"),
        ("gone/f", {}, "the server says 404"),
        ("nonsense/f", {}, "the server says that it is 'many' bytes long"),
    ],
)
def test_lies_are_found_out_and_nothing_is_left(server, tmp_path, path, known, said):
    with pytest.raises(DataError, match=said):
        get(server, tmp_path, path, **known)
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / ".downloads" / "f").exists()


def test_nobody_there_and_no_address(server, tmp_path):
    gone = RemoteFile("http://127.0.0.1:9/x", "x")
    with pytest.raises(DataError, match="8 tries in a row: what is there is kept"):
        download(Entry("x", "x", "x", (gone,)), tmp_path, progress=False, pause=0)
    local = RemoteFile("file:///etc/passwd", "x")
    with pytest.raises(DataError, match="is no http or https address"):
        download(Entry("x", "x", "x", (local,)), tmp_path, progress=False, pause=0)


def archive(kind, members):
    """Members: name -> bytes, or None for a link to /etc."""
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as made:
            for name, content in members.items():
                info = zipfile.ZipInfo(name)
                if content is None:
                    info.external_attr = (stat.S_IFLNK | 0o777) << 16
                made.writestr(info, b"/etc" if content is None else content)
        return file.getvalue()
    with tarfile.open(fileobj=file, mode="w:gz" if kind == "tar.gz" else "w") as made:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc"
            else:
                info.size = len(content)
            made.addfile(info, io.BytesIO(content or b""))
    return file.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_archives_go_into_their_places(server, tmp_path, kind):
    members = {"Set/images/a.jpg": b"a", "Set/images/sub/b.jpg": b"b", "Set/readme": b"c", "Set/labels/a.png": b"d"}
    server.files[f"/good/set.{kind}"] = archive(kind, members)
    into = {"Set/images/": "mine/images/", "Set/labels/": "mine/labels/"}
    get(server, tmp_path, f"good/set.{kind}", into)
    found = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*.*g")}
    assert found == {"mine/images/a.jpg": b"a", "mine/images/sub/b.jpg": b"b", "mine/labels/a.png": b"d"}
    assert not (tmp_path / ".downloads" / f"set.{kind}").exists()


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ["../evil", "Set/../../evil", "/tmp/evil-of-cores", "link", "C:\\evil", "..\\evil"])
def test_an_archive_that_writes_elsewhere_is_refused_whole(server, tmp_path, kind, name):
    home = tmp_path / "home"
    server.files["/good/f"] = archive(kind, {"Set/a.jpg": b"a", name: None if name == "link" else b"x"})
    with pytest.raises(DataError, match="refused"):
        get(server, home, "good/f", {"": "mine/"})
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"f"}
    assert not os.path.exists("/tmp/evil-of-cores")


def test_a_link_that_is_there_already_leads_nowhere(server, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "mine").symlink_to(tmp_path / "outside")
    server.files["/good/f"] = archive("zip", {"a.jpg": b"a"})
    with pytest.raises(DataError, match=r"outside of .*: refused"):
        get(server, tmp_path / "home", "good/f", {"": "mine/"})
    with pytest.raises(DataError, match=r"outside of .*: refused"):
        get(server, tmp_path / "home", "good/g", "mine/g")
    assert not list((tmp_path / "outside").iterdir())


def test_what_is_no_archive_or_another_one_is_named(server, tmp_path):
    server.files["/good/f"] = archive("zip", {"a.jpg": b"a"})
    with pytest.raises(DataError, match="nothing in it begins with Set/"):
        get(server, tmp_path, "good/f", {"Set/": "mine/"})
    server.files["/good/g"] = b"PK\x03\x04 no archive"
    with pytest.raises(DataError, match="is damaged or no archive"):
        get(server, tmp_path, "good/g", {"": "mine/"})


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_an_archive_with_a_changed_byte_is_not_unpacked(tmp_path, kind):
    """What is compressed says at its very end whether it was whole: so nothing is written before the end is read."""
    file = io.BytesIO()
    content = np.random.default_rng(0).integers(256, size=5000, dtype=np.uint8).tobytes()
    with tarfile.open(fileobj=file, mode=f"w:{kind}") as made:
        for name in ("a", "b"):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    whole = file.getvalue()
    path, home = tmp_path / "f", tmp_path / "home"
    home.mkdir()
    path.write_bytes(whole)
    assert unpack(path, home, {"": "kept/"}, lambda size: None) == 2
    for at in (len(whole) // 3, len(whole) // 2, len(whole) - 6):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(DataError, match="f: is damaged or no archive that can be read"):
            unpack(path, home, {"": "mine/"}, lambda size: None)
    assert {place.name for place in home.iterdir()} == {"kept"}


def test_a_tar_whose_second_header_is_damaged_does_not_end_there(tmp_path):
    whole = bytearray(archive("tar", {"a": b"a", "b": b"b"}))
    whole[1024 + 148] ^= 1  # its checksum
    (tmp_path / "f").write_bytes(whole)
    with pytest.raises(DataError, match="a member has a damaged header"):
        unpack(tmp_path / "f", tmp_path, {"": "mine/"}, lambda size: None)


def test_a_header_as_long_as_a_disk_is_not_read(tmp_path):
    """A name of a gigabyte, which compresses to a few bytes."""
    info = tarfile.TarInfo("a")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    (tmp_path / "f").write_bytes(info.tobuf() + bytes(4096))
    with pytest.raises(DataError, match="a header says that it is 1073741824 bytes long"):
        unpack(tmp_path / "f", tmp_path, {"": "mine/"}, lambda size: None)


FILE = {"url": "http://x/f", "into": "f"}
ENTRY = {"title": "T", "license": "L", "files": [FILE]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], r"c\.json: found \[\], expected an object"),
        ({"mine": 7}, "mine: found 7, expected an object"),
        ({"mine": ENTRY | {"files": {}}}, "mine: files: found {}, expected a list"),
        ({"mine": ENTRY | {"files": [7]}}, "mine: files: 0: found 7, expected an object"),
        ({"mine": ENTRY | {"title": None}}, "mine: title: found None, expected text"),
        ({"mine": ENTRY | {"colour": 1}}, "mine: there is no field colour"),
        ({"mine": ENTRY | {"files": [FILE | {"url": 7}]}}, "url: found 7, expected text"),
        ({"mine": ENTRY | {"files": [FILE | {"url": "http://x/.."}]}}, "which names no file"),
        ({"mine": ENTRY | {"files": [FILE | {"into": 7}]}}, "into: found 7, expected a path"),
        ({"mine": ENTRY | {"files": [FILE | {"into": {"a": 7}}]}}, "into: a: found 7, expected text"),
        ({"mine": ENTRY | {"files": [FILE | {"size": "big"}]}}, "size: found 'big', expected a whole number"),
        ({"mine": ENTRY | {"files": [FILE | {"gigabytes": "big"}]}}, "gigabytes: found 'big', expected a number"),
    ],
)
def test_a_wrong_catalogue_is_named(tmp_path, content, said):
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=said):
        read_catalog(tmp_path / "c.json")


@pytest.mark.parametrize("done", ["7", "{", "[7]", "[" * 9999])
def test_a_damaged_note_of_what_is_done_only_costs_time(server, tmp_path, done):
    (tmp_path / ".downloads").mkdir()
    (tmp_path / ".downloads" / "done.json").write_text(done)
    assert get(server, tmp_path, "good/file") == 1


@pytest.mark.parametrize(
    "url", ["http://[::1/f", "http://x:port/f", "http://" + "a" * 70 + "\u00fc/f", "http://x/a b\n"]
)
def test_an_address_that_is_none_is_told_at_once(tmp_path, url):
    with pytest.raises(DataError, match="cannot be fetched"):
        download(Entry("x", "x", "x", (RemoteFile(url, "x"),)), tmp_path, progress=False, pause=99)


def test_the_catalogue_leads_to_where_the_readers_look():
    catalog = read_catalog()
    assert {entry.name for entry in entries(list(catalog), catalog)} == set(catalog)
    places = [
        place
        for e in catalog.values()
        for f in e.files
        for place in ([f.into] if isinstance(f.into, str) else f.into.values())
    ]
    for entry in catalog.values():
        assert entry.license
        assert entry.files or entry.by_hand
    for name, mark in USUAL.items():
        head = name.partition("|")[0]
        assert head in catalog
        by_hand = catalog[head].by_hand
        assert by_hand or any(mark.startswith(place.rstrip("/")) for place in places), name
    with pytest.raises(DataError, match="did you mean mapillary"):
        entries(["mapilary"], catalog)


def test_the_command(server, tmp_path, capsys):
    entry = {
        "title": "T",
        "license": "L",
        "by_hand": "Put it into DIR/x.",
        "files": [{"url": f"{server.at}/good/f", "into": "f"}],
    }
    (tmp_path / "c.json").write_text(json.dumps({"about": "", "mine": entry}))
    command = [
        "data",
        "download",
        "mine",
        "--to",
        str(tmp_path / "d"),
        "--catalog",
        str(tmp_path / "c.json"),
        "--quiet",
    ]
    assert main(command) == 0
    assert (tmp_path / "d" / "f").read_bytes() == CONTENT
    assert f"Put it into {tmp_path / 'd'}/x." in capsys.readouterr().out
    assert main(["data", "download", "nothing", "--to", str(tmp_path)]) == 2
    assert main(["data", "download"]) == 0
    assert "by hand  Mapillary" in capsys.readouterr().out
