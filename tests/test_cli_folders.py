"""Result folders: taken when a command starts, their files whole or not there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cores.cli.options import check_out, taken_folder
from cores.errors import UserError
from cores.whole import whole_files


def files(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_folder_is_taken_at_once_and_its_files_come_whole(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    with taken_folder(out, overwrite=False) as taken:
        assert out.is_dir()
        with pytest.raises(UserError, match="exists already"), taken_folder(out, overwrite=False):
            pass  # another command that wants it, too
        with whole_files(taken) as part:
            (part / "x").write_text("new")
            assert not (out / "x").exists()
        assert (out / "x").exists(), "there before the command has ended"
    assert files(tmp_path) == {"a/b/x": "new"}
    assert out.stat().st_mode & 0o777 == 0o777 & ~os.umask(os.umask(0o022))  # as mkdir would have made it


def test_numbered_folders_are_the_next_that_is_not_there(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        with taken_folder(tmp_path / "out", overwrite=False, numbered=True) as taken:
            (taken / "x").write_text("new")
            names.append(taken.name)
    with taken_folder(tmp_path / "out", overwrite=False, numbered=True) as taken:
        assert taken.name == "out-4"
    assert names == ["out", "out-2", "out-3"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names, "nothing written, nothing left"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("boom")])
def test_an_interruption_leaves_nothing_half_behind(tmp_path: Path, error: BaseException) -> None:
    def write(done: int) -> None:
        with taken_folder(tmp_path / "a" / "b", overwrite=False) as out:
            for number in range(done + 1):
                with whole_files(out) as part:
                    (part / f"{number}").write_text("half")
                    if number == done:
                        raise error

    with pytest.raises(type(error)):
        write(0)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(type(error)):
        write(2)
    assert files(tmp_path) == {"a/b/0": "half", "a/b/1": "half"}, "what was finished before stays"


FULL = """
import resource, sys
from pathlib import Path
from cores.cli.options import taken_folder
from cores.whole import whole_files
from cores.errors import UserError
from cores.whole import whole_files
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # files cannot grow beyond this, as if the disk ended there
try:
    with taken_folder(Path(sys.argv[1]), True) as out, whole_files(out) as folder:
        (folder / "a").write_text("fits")
        (folder / "x").write_text("does not fit " * 1000)
except UserError as error:
    sys.exit(str(error))
"""


def test_a_full_disk_is_one_clear_line_and_leaves_the_old_folder_as_it_was(tmp_path: Path) -> None:
    """In a process of its own: the limit would cut off the tests' own output too."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "x").write_text("old")
    found = subprocess.run([sys.executable, "-c", FULL, str(out)], capture_output=True, text=True)
    assert "disk is full: free some space" in found.stderr
    assert files(tmp_path) == {"out/x": "old"}


def test_overwriting_replaces_its_own_files_and_keeps_others(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "x").write_text("old")
    (out / "diary").write_text("mine")
    with pytest.raises(UserError, match="add --overwrite"):
        check_out(out, overwrite=False)
    check_out(out, overwrite=True)
    with taken_folder(out, overwrite=True), whole_files(out) as folder:
        (folder / "x").write_text("new")
    assert files(tmp_path) == {"out/x": "new", "out/diary": "mine"}


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match="is a file, expected a folder"):
        check_out(tmp_path / "out", overwrite=True)
    below = tmp_path / "out" / "below"
    with pytest.raises(UserError, match="cannot be written"), taken_folder(below, overwrite=False):
        pass
