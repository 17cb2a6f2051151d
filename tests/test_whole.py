"""Files and folders appear whole or not at all, and what a killed program left is cleared up."""

import os
import stat
import subprocess
import sys

import pytest

from cores.errors import UserError
from cores.whole import whole_file, whole_files, whole_folder

# Writes a folder over an old one and is killed at the named point.
KILLED = """
import os, signal, sys
from pathlib import Path
from cores import whole

def die(*_): os.kill(os.getpid(), signal.SIGKILL)

folder = Path(sys.argv[1])
rename = Path.rename
if sys.argv[2] == "between":
    Path.rename = lambda self, to: rename(self, to) if self == folder else die()
with whole.whole_folder(folder, replace=True) as part:
    (part / "file").write_text("new")
    if sys.argv[2] == "writing":
        die()
"""


@pytest.mark.parametrize("point", ["writing", "between"])
def test_a_killed_program_leaves_the_old_folder_and_the_next_clears_up(tmp_path, point):
    folder = tmp_path / "out"
    with whole_folder(folder) as part:
        (part / "file").write_text("old")
    died = subprocess.run([sys.executable, "-c", KILLED, str(folder), point])
    assert died.returncode == -9
    assert any(entry.name.startswith(".out.") for entry in tmp_path.iterdir())
    with pytest.raises(UserError, match="exists already"), whole_folder(folder):
        pass
    assert (folder / "file").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_files_of_programs_that_were_killed_go_with_the_next(tmp_path):
    running, mine = os.getppid(), os.getpid()  # in a container a program may have the number of the one before it
    for number in (2**22 + 1, mine, running):
        (tmp_path / f".part-{number}").mkdir()
    (tmp_path / ".part-9x").mkdir()
    with whole_files(tmp_path) as part:
        (part / "a").write_text("whole")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [f".part-{running}", ".part-9x", "a"]


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path):
    path = tmp_path / "a.json"
    with whole_file(path) as part:
        part.write_text("one")

    def fail() -> None:
        with whole_file(path) as part:
            part.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_files_of_a_folder_may_be_read_by_others(tmp_path):
    usual = os.umask(0)
    os.umask(usual)
    with whole_folder(tmp_path / "out") as part:
        (part / "mine").touch(mode=0o600)
    assert stat.S_IMODE((tmp_path / "out" / "mine").stat().st_mode) == 0o666 & ~usual
