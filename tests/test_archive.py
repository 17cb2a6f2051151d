"""What is released: the source archive holds what a checkout holds, and the wheel what the package holds."""

import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

from cores import __version__

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the repository, as a clone has them: building leaves files of its own beside them."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone, so nothing says which files belong to it")
    folder = tmp_path_factory.mktemp("checkout")
    for name in files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def built(checkout: Path) -> Path:
    """The folder of the archive and of the wheel that is built from the archive."""
    out = checkout.parent / "built"
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(checkout)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out


def files() -> list[str]:
    """The names of all files that git knows and that are there."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]


def test_the_source_archive_is_the_checkout(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        held = {member.name.partition("/")[2] for member in opened.getmembers() if member.isfile()}
    made = {name for name in held if name in ("PKG-INFO", "setup.cfg") or ".egg-info/" in name}
    assert held - made == set(files())


def test_the_wheel_is_the_package(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        held = {name for name in opened.namelist() if ".dist-info/" not in name}
        (about,) = (name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        facts = message_from_string(opened.read(about).decode())
    assert held == {name.removeprefix("src/") for name in files() if name.startswith("src/")}
    assert facts["Version"] == __version__
    assert {"serve", "ray", "tables"} <= set(facts.get_all("Provides-Extra", []))
