"""What training frees goes back to the system: measured in a process of its own, for the setting lasts."""

import subprocess
import sys

import pytest

CODE = """
import sys
import torch
from cores.training.freed_memory import give_back_large_tensors

if sys.argv[1] == "given back" and not give_back_large_tensors():
    sys.exit(3)
torch.ones(30 * 2**18)  # 30 MiB: freed at once, after which glibc keeps pieces of up to so much
kept, small = [], []
for number in range(20):
    kept.append(torch.ones(20 * 2**18))
    small.append(torch.ones(2**15))  # what lies between
del kept
with open("/proc/self/statm") as file:
    print(int(file.read().split()[1]) * 4096 // 2**20)
"""


def resident(way: str) -> int:
    done = subprocess.run([sys.executable, "-c", CODE, way], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip("the C library is not glibc")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_large_tensors_do_not_stay_with_the_process() -> None:
    assert resident("given back") < resident("as it is") - 200
