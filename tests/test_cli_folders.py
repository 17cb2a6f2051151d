"""A folder that is written whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cores.cli.options import check_out, whole_folder
from cores.errors import UserError


def files(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_was_written_appears_at_the_end_and_at_once(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    with whole_folder(out) as folder:
        (folder / "x").write_text("new")
        assert not out.exists()
    assert files(tmp_path) == {"a/b/x": "new"}
    assert out.stat().st_mode & 0o777 == 0o777 & ~os.umask(os.umask(0o022))  # as mkdir would have made it


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("boom")])
def test_an_interruption_leaves_nothing_behind(tmp_path: Path, error: BaseException) -> None:
    def write() -> None:
        with whole_folder(tmp_path / "a" / "b") as folder:
            (folder / "x").write_text("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert list(tmp_path.iterdir()) == []


FULL = """
import resource, sys
from pathlib import Path
from cores.cli.options import whole_folder
from cores.errors import UserError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # files cannot grow beyond this, as if the disk ended there
try:
    with whole_folder(Path(sys.argv[1])) as folder:
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
    assert "disk is full; nothing was written" in found.stderr
    assert files(tmp_path) == {"out/x": "old"}


def test_overwriting_replaces_its_own_files_and_keeps_others(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "x").write_text("old")
    (out / "diary").write_text("mine")
    with pytest.raises(UserError, match="add --overwrite"):
        check_out(out, overwrite=False)
    check_out(out, overwrite=True)
    with whole_folder(out) as folder:
        (folder / "x").write_text("new")
    assert files(tmp_path) == {"out/x": "new", "out/diary": "mine"}


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match="is a file, expected a folder"):
        check_out(tmp_path / "out", overwrite=True)
    with pytest.raises(UserError, match="cannot be written"), whole_folder(tmp_path / "out" / "below"):
        pass
