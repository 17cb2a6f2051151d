"""The examples, run as their first lines say, on the model that comes with cores."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
SCENE = ROOT / "docs" / "images" / "scene.png"


def example(name: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)


@pytest.mark.slow
def test_the_readme_is_right_about_the_first_answer() -> None:
    """Its lines of Python, and what it says that the model says."""
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (said,) = re.findall(r'found\.answer +# (".+")$', code, re.MULTILINE)
    command = [sys.executable, "-c", f"{code}\nassert found.answer == {said}, found.answer"]
    subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=True)


@pytest.mark.slow
def test_own_samples_are_scored(tmp_path: Path) -> None:
    done = example("evaluate.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines[:2]] == ["generated", "teacher-forced"]
    assert all(float(line.split("gIoU ")[1][:5]) > 0.5 for line in lines[:2])
    assert len(lines) == 5


@pytest.mark.slow
def test_the_pictures_of_the_method_are_what_the_program_draws(tmp_path: Path) -> None:
    done = example("method.py", str(tmp_path), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {file.name for file in tmp_path.iterdir()} == {"scene.png", "chain.png", "guidance.png"}
    assert (tmp_path / "scene.png").read_bytes() == SCENE.read_bytes()
    done = example("answers.py", "answer.png", folder=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_client_needs_nothing_of_ours(tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    command = [sys.executable, "-m", "cores", "serve", "--port", "0", "--no-page"]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[2]
            done = example("serve_client.py", address, str(SCENE), "the kettle", folder=tmp_path)
            refused = example("serve_client.py", address, str(ROOT / "LICENSE"), "the kettle", folder=tmp_path)
        finally:
            server.terminate()
    assert server.returncode == 0
    assert done.returncode == 0, done.stderr
    assert "segmented, 1 targets" in done.stdout
    assert {file.name for file in tmp_path.iterdir()} == {"scene.1.location.png", "scene.1.target.png"}
    assert refused.returncode == 1
    assert refused.stderr.startswith("422: ")


@pytest.mark.slow
def test_rows_of_a_bulk_run_are_read(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    done = example("bulk.py", str(tmp_path / "bulk"), "3", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    *_, counts, largest = done.stdout.splitlines()
    assert counts.startswith("9 rows: ")
    assert "segmented" in counts
    assert largest.startswith("largest: 'the ")
