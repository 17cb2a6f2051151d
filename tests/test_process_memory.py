"""A process's peak memory is its own."""

import subprocess
import sys

import numpy as np

from cores.process_memory import peak_memory

CHILD = "from cores.process_memory import peak_memory; print(peak_memory())"


def test_the_peak_is_kept_and_is_not_that_of_the_process_that_started_it() -> None:
    """400 MB, held and let go: this process had them once, and a small one that it starts never."""
    before = peak_memory()
    held = np.ones(400_000_000, dtype=np.uint8)
    assert held.all()
    del held
    assert peak_memory() >= max(before, 400_000_000)
    held = np.ones(400_000_000, dtype=np.uint8)  # while it is there, and not only after it
    child = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    assert 1_000_000 < int(child.stdout) < 100_000_000
    assert held.all()
