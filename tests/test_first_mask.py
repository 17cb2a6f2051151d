"""From the command to the first overlay: it has to be quick, for everybody who tries it does that first."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from cores.scenes.source import open_scenes

SECONDS = 10  # of one processor: measured 7, of which importing torch and transformers takes 4


@pytest.mark.slow
def test_the_first_overlay_takes_less_than_ten_seconds(tmp_path: Path) -> None:
    """In processor time: a machine that does other things at the same time takes no part in it."""
    scene = open_scenes("test")[0].image
    assert isinstance(scene, Image.Image)
    scene.save(tmp_path / "picture.png")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "cores", "predict", "picture.png", "the chair"]
    subprocess.run(command, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert (tmp_path / "prediction" / "picture.overlay.png").exists()
    assert took < SECONDS, f"{took:.1f} s"
