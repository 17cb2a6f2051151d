"""examples/first_steps.ipynb: kept without outputs, and every cell of it runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "examples" / "first_steps.ipynb"


def test_it_is_kept_without_outputs() -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


@pytest.mark.slow
def test_every_cell_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", str(NOTEBOOK)]
    settings = ["--ExecutePreprocessor.kernel_name=python3", "--ExecutePreprocessor.timeout=300"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *settings, "--output-dir", str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    cells = json.loads((tmp_path / NOTEBOOK.name).read_text("utf-8"))["cells"]
    pictures = [out for cell in cells for out in cell.get("outputs", ()) if "image/png" in out.get("data", {})]
    assert len(pictures) >= 5
    said = "".join(text for cell in cells for out in cell.get("outputs", ()) for text in out.get("text", ()))
    assert "segmented | Sure, it appears on" in said
    assert "absent |" in said
