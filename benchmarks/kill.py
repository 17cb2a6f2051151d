"""Is a run that was killed again and again the run that was never killed? One run is, and the two are compared.

    python benchmarks/kill.py                    # 20 kills of one process
    python benchmarks/kill.py --ranks 2          # through torchrun; one of the two ranks is killed each time

The kills are SIGKILLs, spread over the run, at a random moment of each kind in turn: while the run starts or goes on
again, in a step, in an evaluation, in the middle of writing a checkpoint, and between the renames that put it in its
place. To be sure of the moment the process is frozen (SIGSTOP) every so often, its folder is looked at, and it is
killed there or let go on. LoRA with dropout, two accumulated batches a step, two workers, an evaluation every 4 steps.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from same_run import compared, differences

from cores.checkpoints.find import checkpoints_of
from cores.checkpoints.runs.best import WRITING

ERRORS = subprocess.DEVNULL
MOMENTS = ("starting", "step", "evaluation", "writing", "renames")
SLICE = {"starting": 0.2, "step": 0.02, "evaluation": 0.02, "writing": 0.001, "renames": 0.0001}  # s between two looks
STEPS, EVERY, SAVED = 40, 4, 2
RUN = ["tiny", "model.train=[lora,embeddings,head,projection,refiner,mask_decoder]", "lora.dropout=0.1"]
RUN += ["data.questions_per_image=2", "evaluation.limit=2", "trainer.per_device_train_batch_size=1"]
SETTINGS = ["trainer.gradient_accumulation_steps=2", "trainer.dataloader_num_workers=2", "trainer.logging_steps=1"]
SETTINGS += ["trainer.report_to=none", f"trainer.eval_steps={EVERY}", f"trainer.save_steps={SAVED}"]


@dataclass
class Life:
    """A run from a start to its end or kill. `pid`: of the process that keeps its folder; `end`: gives its code."""

    pid: Callable[[], int]
    victims: Callable[[], list[int]]
    end: Callable[[], int]


def alone(args: list[str]) -> Life:
    """One process, forked from one that has everything imported."""
    process = multiprocessing.get_context("forkserver").Process(target=_train, args=(args,))
    process.start()
    assert process.pid is not None
    pid = process.pid

    def end() -> int:
        process.join()
        assert process.exitcode is not None
        return process.exitcode

    return Life(lambda: pid, lambda: [pid], end)


def _train(args: list[str]) -> None:
    from cores.cli import main

    multiprocessing.set_start_method("fork", force=True)  # as usual: of workers
    sys.exit(main(args))


def torchrun(args: list[str], ranks: int) -> Life:
    """So many processes under torchrun; any of them is a victim."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    process = subprocess.Popen([*command, "-m", "cores", *args], stderr=ERRORS)

    def victims() -> list[int]:
        """The processes by rank, once all of them are there."""
        while process.poll() is None:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            found = {rank: int(child) for child in children if (rank := _rank(child)) is not None}
            if len(found) == ranks:
                return [found[rank] for rank in sorted(found)]
            time.sleep(0.01)
        raise SystemExit(f"torchrun ended with {process.returncode} before its processes were there")

    return Life(lambda: victims()[0], victims, process.wait)


def _rank(process: str) -> int | None:
    try:
        values = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    ranks = [int(value[5:]) for value in values if value.startswith(b"RANK=")]
    return ranks[0] if ranks else None


class Watch:
    """What a run's folder shows of the moment that its process is in. Made before a life begins."""

    def __init__(self, run: Path, steps: int) -> None:
        self.run, self.steps, self.log = run, steps, run / "log.jsonl"
        saved = checkpoints_of(run)
        self.first = int(saved[-1].name.rpartition("-")[2]) if saved else 0
        self.before = self._file()

    def look(self) -> tuple[str, int]:
        """The moment, and the last step that was logged."""
        lines = self._lines()
        step = max((line["step"] for line in lines if "loss" in line), default=0)
        if self._file() == self.before or step <= self.first:
            return "starting", self.first
        if (self.run / WRITING).exists():
            return ("renames" if (self.run / f"checkpoint-{step}").exists() else "writing"), step
        due = step % EVERY == 0 or step == self.steps
        evaluated = any(line["step"] == step and "eval_giou" in line for line in lines)
        return ("evaluation" if due and not evaluated else "step"), step

    def _file(self) -> int | None:
        return self.log.stat().st_ino if self.log.exists() else None

    def _lines(self) -> list[dict]:  # type: ignore[type-arg]
        lines = self.log.read_text("utf-8").splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]


def kill(life: Life, watch: Watch, moment: str, after: int, chance: random.Random) -> str:
    """Kill a life in a moment of this kind, at the earliest after this step; what was done. Raises when it ended."""
    pid, passed, was = life.pid(), False, ""
    while True:
        time.sleep(SLICE[moment] * (chance.random() if was else 1))
        _freeze(pid)
        now, step = watch.look()
        late = step >= after or moment == "starting"
        if late and now == moment and (passed or chance.random() < 0.3):
            ranks = life.victims()
            rank = chance.randrange(len(ranks))
            os.kill(ranks[rank], signal.SIGKILL)
            os.kill(pid, signal.SIGCONT)
            return f"{moment} after step {step}" + (f", rank {rank}" if len(ranks) > 1 else "")
        os.kill(pid, signal.SIGCONT)
        passed |= late and was == moment != now  # it was missed: the next one is not
        was = now


def _freeze(pid: int) -> None:
    """Stop a process, and wait until it stands. Raises ProcessLookupError when it has ended."""
    os.kill(pid, signal.SIGSTOP)
    while (state := Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]) not in "Tt":
        if state in "ZX":
            raise ProcessLookupError(f"process {pid} has ended")
        time.sleep(0.00002)


def killed_run(run: Path, args: list[str], steps: int, kills: int, ranks: int, chance: random.Random) -> list[str]:
    """Train into `run`, killed so often; what was done each time. Raises RuntimeError when it ends otherwise."""
    start = alone if ranks == 1 else lambda args: torchrun(args, ranks)
    kinds = [MOMENTS[n % len(MOMENTS)] for n in range(kills)]
    chance.shuffle(kinds)
    done = []
    for number, moment in enumerate(kinds):
        watch = Watch(run, steps)
        life = start([*args, *_resume(run)])
        after = min(round(steps * (number + chance.random()) / kills), steps - EVERY)
        try:
            done.append(kill(life, watch, moment, after, chance))
        except (ProcessLookupError, FileNotFoundError):
            raise RuntimeError(f"the run ended before kill {number + 1} ({moment}): take more --steps") from None
        sys.stdout.write(f"kill {number + 1:2}: {done[-1]}\n")
        sys.stdout.flush()
        if life.end() == 0:
            raise RuntimeError(f"kill {number + 1}: the run ended all the same")
    if code := start([*args, *_resume(run)]).end():
        raise RuntimeError(f"the last life ended with {code}")
    return done


def _resume(run: Path) -> list[str]:
    """A run that was killed before it wrote its recipe begins again."""
    return ["--resume"] if (run / "recipe.yaml").exists() else []


def compare(folder: Path, recipe: list[str], steps: int, kills: int, ranks: int = 1, seed: int = 0) -> list[str]:
    """A run that is never killed and one that is, in `folder`; what tells them apart."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["cores.training.run", "cores.evaluation.scorer"])
    train = ["train", *recipe, *SETTINGS, f"trainer.max_steps={steps}", "--device", "cpu", "--quiet"]
    first = [*train, "--out", str(folder / "whole")]
    if code := (alone(first) if ranks == 1 else torchrun(first, ranks)).end():
        raise RuntimeError(f"the run that is never killed ended with {code}")
    killed_run(folder / "killed", [*train, "--out", str(folder / "killed")], steps, kills, ranks, random.Random(seed))
    return differences(folder / "killed", folder / "whole")


def main() -> int:
    """Exit code 1 when the runs differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.stdout.write(f"{datetime.now(UTC):%Y-%m-%d}: python {' '.join(sys.argv)}\n")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = compare(Path(folder), RUN, args.steps, args.kills, args.ranks, args.seed)
        files = compared(Path(folder) / "whole")
    said = found or [f"the run that was never killed, bit for bit: {files} files"]
    sys.stdout.write("\n".join([*said, f"{time.monotonic() - began:.0f} s", ""]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
