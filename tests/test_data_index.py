"""The index: built once, rebuilt when the content changes, found again wherever the files lie."""

import os
import pickle
import subprocess
import sys
import time

import pytest
from data_files import say, write_records

from cores.cache import cache_folder
from cores.data.formats.json_files import read_json
from cores.data.index import Row, open_index
from cores.data.sources import open_source
from cores.errors import DataError, UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CORES_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "index"


class Builder:
    """Builds rows of a file's lines, and counts how often."""

    def __init__(self, path):
        self.path, self.calls = path, 0

    def __call__(self):
        self.calls += 1
        return [Row(f"{line}.jpg", "train" if n % 3 else "val", {"n": n}) for n, line in enumerate(self.lines())]

    def lines(self):
        return self.path.read_text().split()


def old(path, seconds=60):
    """Make a file's time lie behind us: times of files that may still change are not trusted."""
    then = time.time() - seconds
    os.utime(path, (then, then))


@pytest.fixture
def builder(tmp_path):
    (tmp_path / "a.txt").write_text("one two three four")
    old(tmp_path / "a.txt")
    return Builder(tmp_path / "a.txt")


def opened(builder):
    return open_index("test", [builder.path], builder)


def test_rows_splits_and_other_processes(builder):
    index = opened(builder)
    assert len(index) == 4
    assert index[2] == Row("three.jpg", "train", {"n": 2})
    assert (index.splits(), index.image(3), index.split(3)) == (["train", "val"], "four.jpg", "val")
    assert index.where(lambda split: split == "val").tolist() == [0, 3]
    sent = pickle.dumps(index)
    assert len(sent) < 1000  # a path, not a table
    assert pickle.loads(sent)[1] == index[1]


def test_it_is_built_once_and_again_when_the_content_changes(builder):
    opened(builder)
    opened(builder)
    assert builder.calls == 1
    old(builder.path, 30)  # touched, the same content
    opened(builder)
    assert builder.calls == 1
    builder.path.write_text("one two thre3 four")  # as long as before
    old(builder.path, 30)
    assert opened(builder).image(2) == "thre3.jpg"
    assert builder.calls == 2


def test_a_change_within_the_clocks_tick_is_seen(builder):
    now = time.time()
    os.utime(builder.path, (now, now))
    opened(builder)
    builder.path.write_text("one two thre3 four")
    os.utime(builder.path, (now, now))
    assert opened(builder).image(2) == "thre3.jpg"


def test_another_content_of_the_same_size_and_time_is_seen(builder):
    """`cp -p`, `rsync -t` and unpacked archives bring the time along."""
    opened(builder)
    before = builder.path.stat()
    builder.path.write_text("one two thre3 four")
    os.utime(builder.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (builder.path.stat().st_size, builder.path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert opened(builder).image(2) == "thre3.jpg"
    other = builder.path.with_name("other.txt")
    other.write_text("one two thr44 four")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(builder.path)
    assert opened(builder).image(2) == "thr44.jpg"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink(path, path)])
def test_what_is_no_file_is_named(tmp_path, make):
    """A pipe would be waited for; a folder and a link to itself end nothing but their source."""
    write_records(tmp_path, say("q", "a"))
    path = tmp_path / "llava_dataset" / "llava_instruct_150k.json"
    path.unlink()
    make(path)
    with pytest.raises(DataError, match=r"llava_instruct_150k\.json"):
        open_source("llava_instruct_150k", tmp_path)
    with pytest.raises(DataError, match=r"llava_instruct_150k\.json"):
        read_json(path)


def test_the_same_content_elsewhere_is_the_same_index(builder, tmp_path):
    first = opened(builder)
    (tmp_path / "moved.txt").write_text(builder.path.read_text())
    moved = Builder(tmp_path / "moved.txt")
    assert opened(moved).path == first.path
    assert moved.calls == 0


def test_a_damaged_index_is_made_anew(builder, caplog):
    path = opened(builder).path
    path.write_bytes(path.read_bytes()[:100])
    assert opened(builder)[0].record == {"n": 0}
    assert builder.calls == 2
    assert "is damaged and is made anew" in caplog.text


def test_a_build_that_fails_leaves_nothing(builder, cache):
    def fails():
        yield Row("a", "b", {})
        raise DataError("no")

    with pytest.raises(DataError, match="no"):
        open_index("test", [builder.path], fails)
    assert not list(cache.glob("*.arrow")) + list(cache.glob("*part*"))
    assert len(opened(builder)) == 4


def test_an_index_of_nothing(builder):
    builder.path.write_text("")
    assert len(opened(builder)) == 0


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CORES_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot be written .*: set CORES_CACHE"):
        cache_folder("index")


def test_a_source_sees_a_new_file(tmp_path):
    write_records(tmp_path, say("q", "a"))
    assert len(open_source("llava_instruct_150k", tmp_path)) == 1
    write_records(tmp_path, say("q", "a"), say("q", "b"))
    assert len(open_source("llava_instruct_150k", tmp_path)) == 2


def test_several_processes_build_one(builder, tmp_path, cache):
    code = (
        "import sys, time; from pathlib import Path; from cores.data.index import open_index, Row\n"
        "def build():\n"
        "    open(sys.argv[2], 'a').write('x'); time.sleep(0.3); return [Row('a', 'b', None)]\n"
        "assert len(open_index('many', [Path(sys.argv[1])], build)) == 1"
    )
    command = [sys.executable, "-c", code, str(builder.path), str(tmp_path / "built")]
    for process in [subprocess.Popen(command) for _ in range(3)]:
        assert process.wait() == 0
    assert (tmp_path / "built").read_text() == "x"


def test_the_data_room_works_without_torch(tmp_path):
    write_records(tmp_path, say("q", "a"))
    code = (
        "import sys; from pathlib import Path; from cores.data.sources import open_source\n"
        "import cores.data.mixture, cores.data.inspect.doctor, cores.data.inspect.dump, cores.data.fetch.download\n"
        "source = open_source('llava_instruct_150k', Path(sys.argv[1])); source[0]\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
