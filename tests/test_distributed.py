"""Two processes do what one does, on the CPU: DDP, FSDP2, ZeRO-2 and ZeRO-3, by torchrun and accelerate."""

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
from cores.checkpoints.probe import probe, smallest_iou
from cores.checkpoints.runs.merging import merge
from cores.cli import main
from cores.training.arguments import ZERO

STEPS = 10
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


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def torchrun(processes: int = 2) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--master-port=29517"]


def accelerate() -> list[str]:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2"]
    return [*command, "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=29519"]


def launched(folder: Path, run: str, *settings: str, launcher: list[str] | None = None) -> Path:
    """A finished run: of two processes, a picture each a step, where no launcher says otherwise."""
    command = [*(launcher or torchrun()), "-m", "cores", "train", str(folder / "tiny.yaml"), *SETTINGS, *settings]
    command += ["--out", str(folder / run), "--device", "cpu", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / run


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def largest_difference(run: Path, other: Path, name: str = "trained.safetensors") -> float:
    one, two = (load_file(r / f"checkpoint-{STEPS}" / name) for r in (run, other))
    assert one.keys() == two.keys()
    return max(float((one[key].float() - two[key].float()).abs().max()) for key in one)


def needs_deepspeed() -> None:
    if find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed: pip install 'cores[deepspeed]'")
    if shutil.which("g++") is None:
        pytest.skip("DeepSpeed compiles its communication for CPUs, and there is no g++")


@pytest.mark.slow
def test_zero2_in_half_precision_saves_what_it_learned_on(alone):
    """The masters in float32, not the copies in bfloat16 that the model computes with."""
    needs_deepspeed()
    run = launched(alone, "zero2-half", "trainer.deepspeed=zero2", "trainer.bf16=true", "model.dtype=bfloat16")
    for name in ("trained.safetensors", "adapter_model.safetensors"):
        for key, value in load_file(run / f"checkpoint-{STEPS}" / name).items():
            assert value.dtype == torch.float32, key
            rounded = torch.equal(value, value.bfloat16().float())
            assert not (rounded and value.any()), f"{key} is a rounded copy"  # a key's bias stays 0: nothing moves it


# ZeRO-3 leaves small weights whole, and all of the tiny model's are small: the threshold that is 100,000 is 0 here.
EVERY_WEIGHT = {**ZERO, "zero_optimization": {**ZERO["zero_optimization"], "stage": 3}}
EVERY_WEIGHT["zero_optimization"]["stage3_param_persistence_threshold"] = 0
WAYS = {
    "ddp": (),
    "zero2": ("trainer.deepspeed=zero2",),
    "zero3": (f"trainer.deepspeed={json.dumps(EVERY_WEIGHT)}",),
    "fsdp2": ("trainer.fsdp=fsdp2",),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_two_processes_are_one_and_resume_and_merge(alone, way):
    if way.startswith("zero"):
        needs_deepspeed()
    settings = (*WAYS[way], "trainer.save_strategy=steps", f"trainer.save_steps={STEPS // 2}")
    run = launched(alone, way, *settings)
    assert len(losses(run)) == STEPS
    np.testing.assert_allclose(losses(run), losses(alone / "alone"), rtol=1e-4)
    assert largest_difference(run, alone / "alone") < 1e-3
    assert not list(run.rglob("*.py")), "nothing in a checkpoint is to be run"
    merge(run, alone / f"{way}-merged")  # without DeepSpeed's and FSDP2's own files
    (same, processor), (model, _) = load(alone / "alone"), load(alone / f"{way}-merged")
    assert smallest_iou(probe(same, processor), probe(model, processor)) > 0.99

    whole = run.rename(alone / f"{way}-whole")
    shutil.copytree(whole, run, ignore=shutil.ignore_patterns(f"checkpoint-{STEPS}"))
    resumed = launched(alone, way, *settings, "--resume")
    np.testing.assert_allclose(losses(resumed), losses(whole), rtol=1e-5)
    assert largest_difference(resumed, whole) < 1e-4

    if way == "fsdp2":  # on another number of processes, with as many pictures a step
        shutil.rmtree(run / f"checkpoint-{STEPS}")
        one = launched(
            alone, way, *settings, "--resume", "trainer.gradient_accumulation_steps=2", launcher=torchrun(processes=1)
        )
        np.testing.assert_allclose(losses(one), losses(whole), rtol=1e-4)
        assert largest_difference(one, whole) < 1e-3


@pytest.mark.slow
def test_each_process_asks_its_own_pictures_of_a_model_that_is_cut(alone):
    """Three pictures for two processes, one launched by accelerate; what they find is what one process finds."""
    settings = ["evaluation.sources=[scenes|test]", "evaluation.limit=3", "trainer.max_steps=1"]
    settings += ["trainer.eval_on_start=true", "evaluation.pictures=1"]
    launches = {
        "asked": ([sys.executable], ["trainer.gradient_accumulation_steps=2"]),
        "accelerated": (accelerate(), ["trainer.fsdp=fsdp2"]),
    }
    if find_spec("deepspeed") and shutil.which("g++"):
        launches["zero3-asked"] = (torchrun(), [*WAYS["zero3"]])
    found = {}
    for name, (launcher, more) in launches.items():
        run = launched(alone, name, *settings, *more, launcher=launcher)
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        found[name] = [value for line in lines for key, value in line.items() if key.startswith(("eval_", "loss"))]
        assert (run / "pictures" / "step-1.png").exists()
    for name, figures in found.items():
        assert len(figures) > 4, name
        assert figures == pytest.approx(found["asked"], rel=1e-4), name


@pytest.mark.slow
@pytest.mark.parametrize("way", ["fsdp2", "zero3"])
def test_a_model_that_is_cut_keeps_features(alone, way):
    """Cold, with some of them missing, warm: as without. Where one process finds all kept, the other may not."""
    if way == "zero3":
        needs_deepspeed()
    kept = alone / f"{way}-kept"
    settings = [*WAYS[way], f"data.features={kept}", "data.features_of=[segmenter, projector]"]
    counts = []
    for name in ("cold", "some", "warm"):
        run = launched(alone, f"{way}-{name}", *settings)
        np.testing.assert_allclose(losses(run), losses(alone / "alone"), rtol=1e-4)
        assert largest_difference(run, alone / "alone") < 1e-3
        files = sorted(kept.rglob("*.safetensors"))
        counts.append(len(files))
        if name == "cold":
            for number, file in enumerate(files):
                if number % 3 == 0:
                    file.unlink()
    assert len(list(kept.iterdir())) == 2
    assert counts[0] == counts[1] == counts[2] == 2 * 2 * STEPS


@pytest.mark.slow
def test_every_weight_is_cut(alone):
    """In `sharded_model.py`, which says what it looks at."""
    script = Path(__file__).with_name("sharded_model.py")
    command = [*torchrun(), str(script), str(alone / "tiny.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


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


FAILING = """
import os, sys, time
from cores.errors import UserError
from cores.training import ranks
from cores.training.ranks import end_at_once, together

rank, late, patience = int(os.environ["RANK"]), float(sys.argv[1]), float(sys.argv[2])
ranks.PATIENCE = patience
try:
    with together():
        if rank == 0:
            time.sleep(late)
        raise UserError(f"said by {rank}")
except UserError as error:
    print(error, file=sys.stderr, flush=True)
end_at_once(2)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("late", "patience", "said"), [(2, 60, "said by 0"), (60, 1, "said by 1")])
def test_whoever_finds_it_wrong_first_lets_the_first_process_say_it(tmp_path, late, patience, said):
    """The launcher ends all as soon as one is gone. When the first says nothing, another one speaks."""
    script = tmp_path / "failing.py"
    script.write_text(FAILING)
    command = [*torchrun(), str(script), str(late), str(patience)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=100)
    assert done.returncode != 0
    assert [line for line in done.stderr.splitlines() if line.startswith("said by")] == [said]


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
from cores.training.ranks import end_at_once

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
