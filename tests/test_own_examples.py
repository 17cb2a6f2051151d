"""The examples of labelling and learning run as they stand, with fewer pictures and steps."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(tmp_path: Path, *words: str) -> str:
    script, *arguments = words
    command = [sys.executable, EXAMPLES / script, tmp_path / "out", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_predict_correct_and_learn(tmp_path: Path) -> None:
    said = run(tmp_path, "correct_and_learn.py", "--pictures", "4", "--steps", "2")
    assert "labels corrected\n" in said
    assert "mean IoU on scenes never seen: " in said


@pytest.mark.slow
def test_finetune_on_labelme_files(tmp_path: Path) -> None:
    run(tmp_path, "finetune_on_20_labelme.py", "--steps", "2")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["answer", "labels", "model", "run"]
    assert len(list((tmp_path / "out" / "labels").glob("*.json"))) == 20
    assert any((tmp_path / "out" / "answer").glob("*.overlay.png"))
