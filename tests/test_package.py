"""What people install: sdist and wheel are built, and the wheel of that sdist answers in an environment of its own."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*command: object, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_answers_where_nothing_else_of_ours_is(tmp_path: Path) -> None:
    source, dist, home = tmp_path / "source", tmp_path / "dist", tmp_path / "venv"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, cwd=source)
    (wheel,) = dist.glob("*.whl")
    assert len(list(dist.glob("*.tar.gz"))) == 1
    package = (source / "src" / "cores").rglob("*")
    kept = {file.relative_to(source / "src").as_posix() for file in package if file.is_file()}
    assert kept - set(ZipFile(wheel).namelist()) == set(), "files that pyproject.toml's package-data does not name"
    assert wheel.stat().st_size < 40e6

    venv.create(home, symlinks=True)
    (places,) = home.glob("lib/python*/site-packages")
    (places / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")  # which are large, and not ours
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        home / "bin" / "python",
        "install",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=tmp_path,
    )
    where = run(home / "bin" / "python", "-c", "import cores; print(cores.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(places)
    shutil.copy(ROOT / "docs" / "images" / "scene.png", tmp_path)
    said = run(home / "bin" / "cores", "predict", "scene.png", "the kettle", "--out", "answer", cwd=tmp_path)
    assert "segmented" in said
    assert (tmp_path / "answer" / "scene.overlay.png").is_file()
