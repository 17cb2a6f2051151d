"""docs/tutorial.md, from its first line to its last, as a reader would do it, but for how long it trains."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FEW = ["trainer.max_steps=2", "evaluation.limit=2"]


@pytest.mark.slow
def test_the_tutorial_works(tmp_path: Path) -> None:
    (tmp_path / "docs" / "images").mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "images" / "scene.png", tmp_path / "docs" / "images")
    steps = BLOCK.findall((ROOT / "docs" / "tutorial.md").read_text("utf-8"))
    assert {kind for kind, _ in steps} == {"sh", "python"}
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    program = f'cores() {{ "{sys.executable}" -m cores "$@"; }}\nset -e\n'
    for kind, code in steps:
        code = re.sub(r"^(cores train .*)$", rf"\1 {' '.join(FEW)}", code, flags=re.MULTILINE)
        code = code.replace("--limit 60", "--limit 4")
        command = ["bash", "-c", program + code] if kind == "sh" else [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    for made in ("answer/scene.overlay.png", "sheet.html", "before/report.html", "found/from-python.json"):
        assert (tmp_path / made).exists(), made
