"""Two processes do what one does: `torchrun -m cores train`, with DDP and with DeepSpeed's ZeRO-2, on the CPU."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_run import tiny_recipe

from cores.checkpoints.load import load
from cores.cli import main

STEPS = 20
SETTINGS = [
    "data.sources={scenes: [scenes|train]}",
    f"trainer.max_steps={STEPS}",
    "trainer.per_device_train_batch_size=1",
    "trainer.warmup_steps=5",
    "data.questions_per_image=1",  # so that one process often has no mask where the other has
    "lora.dropout=0",  # each process draws its own: the one thing that cannot be the same
]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with bases, a recipe and the run of one process: two pictures a step, one after the other."""
    folder = tmp_path_factory.mktemp("alone")
    tiny_recipe(folder)
    args = ["train", str(folder / "tiny.yaml"), *SETTINGS, "trainer.gradient_accumulation_steps=2"]
    assert main([*args, "--out", str(folder / "alone"), "--device", "cpu", "--quiet"]) == 0
    return folder


def torchrun(folder: Path, run: str, *settings: str) -> Path:
    """The run of two processes, a picture each a step."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29517"]
    command += ["-m", "cores", "train", str(folder / "tiny.yaml"), *SETTINGS, *settings]
    command += ["--out", str(folder / run), "--device", "cpu", "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / run


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def largest_difference(run: Path, other: Path, name: str = "trained.safetensors") -> float:
    one, two = (load_file(r / f"checkpoint-{STEPS}" / name) for r in (run, other))
    assert one.keys() == two.keys()
    return max(float((one[key].float() - two[key].float()).abs().max()) for key in one)


@pytest.mark.slow
def test_ddp_is_one_process(alone):
    run = torchrun(alone, "ddp")
    assert len(losses(run)) == STEPS
    np.testing.assert_allclose(losses(run), losses(alone / "alone"), rtol=1e-4)
    assert largest_difference(run, alone / "alone") < 1e-3


def needs_deepspeed() -> None:
    if find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed: pip install 'cores[deepspeed]'")
    if shutil.which("g++") is None:
        pytest.skip("DeepSpeed compiles its communication for CPUs, and there is no g++")


@pytest.mark.slow
def test_zero2_in_half_precision_saves_what_it_learned_on(alone):
    """The masters in float32, not the copies in bfloat16 that the model computes with."""
    needs_deepspeed()
    run = torchrun(alone, "zero2-half", "trainer.deepspeed=zero2", "trainer.bf16=true", "model.dtype=bfloat16")
    for name in ("trained.safetensors", "adapter_model.safetensors"):
        for key, value in load_file(run / f"checkpoint-{STEPS}" / name).items():
            assert value.dtype == torch.float32, key
            assert not torch.equal(value, value.bfloat16().float()), f"{key} is a rounded copy"


@pytest.mark.slow
def test_zero2_is_one_process_and_resumes(alone):
    needs_deepspeed()
    settings = ("trainer.deepspeed=zero2", "trainer.save_strategy=steps", f"trainer.save_steps={STEPS // 2}")
    run = torchrun(alone, "zero2", *settings)
    np.testing.assert_allclose(losses(run), losses(alone / "alone"), rtol=1e-4)
    assert largest_difference(run, alone / "alone") < 1e-3
    assert not list(run.rglob("*.py")), "nothing in a checkpoint is to be run"
    model, _ = load(run)  # without DeepSpeed's own files
    assert model.num_parameters() > 0

    whole = run.rename(alone / "zero2-whole")
    shutil.copytree(whole, run, ignore=shutil.ignore_patterns(f"checkpoint-{STEPS}"))
    resumed = torchrun(alone, "zero2", *settings, "--resume")
    np.testing.assert_allclose(losses(resumed), losses(whole), rtol=1e-5)
    assert largest_difference(resumed, whole) < 1e-4


@pytest.mark.slow
def test_what_all_processes_find_wrong_is_said_once(alone):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29518"]
    command += ["-m", "cores", "train", str(alone / "tiny.yaml"), "evaluation.sources=[ReasonSeg|val]"]
    command += ["--out", str(alone / "wrong"), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if "cores: " in line]
    assert len(said) == 1
    assert "evaluation.sources: ReasonSeg|val: lies in a data directory" in said[0]
    assert not (alone / "wrong").exists()


def test_one_of_several_processes_is_not_taken_apart():
    """Its threads may still want Python's lock then, which ends in an abort; all else is as in any other process."""
    code = (
        "import atexit, sys, threading, time\n"
        "class Held:\n    def __del__(self):\n        print('taken apart', flush=True)\n"
        "held = Held()\n"
        "atexit.register(print, 'registered')\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('waited for'))).start()\n"
        "sys.argv = ['cores', 'nonsense']\n"
        "from cores.__main__ import program\n"
        "sys.exit(program())"
    )
    alone = {name: value for name, value in os.environ.items() if name != "WORLD_SIZE"}
    for environment, last in ((alone, ["taken apart"]), ({**alone, "WORLD_SIZE": "2"}, [])):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert done.returncode == 2
        assert done.stdout.splitlines() == ["waited for", "registered", *last]
        assert done.stderr.startswith("cores: there is no verb nonsense")


ENDING = """
import atexit, os, sys, time
import torch
from torch import distributed
from cores.__main__ import end_at_once

def busy():  # Python's lock is not let go until the interpreter is taken apart
    sys.setswitchinterval(1000)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        pass

store, first = sys.argv[1], bool(os.fork())
distributed.init_process_group("gloo", store=distributed.FileStore(store, 2), rank=int(not first), world_size=2)
group = distributed.new_group([0, 1])
distributed.barrier()
if first:
    sys.modules["held"] = group  # as DeepSpeed holds its own
    distributed.all_reduce(torch.ones(8), group=group, async_op=True)  # its thread lets go of the tensor at its end
    atexit.register(busy)
    if "taken apart" not in sys.argv:
        end_at_once(0)
else:
    time.sleep(0.5)
    distributed.all_reduce(torch.ones(8), group=group)
    os._exit(0)
"""


def test_a_thread_of_a_group_cannot_abort_the_end(tmp_path):
    """Without `end_at_once` (the argument `taken apart`) this ends by SIGABRT, after all the work."""
    command = [sys.executable, "-c", ENDING, str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
