"""Does `torchrun -m cores train` always end? Starts it again and again, two processes each, and counts.

python benchmarks/torchrun_ends.py [--starts 20] [--timeout 120] [--out benchmarks/torchrun_ends.txt]
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

TRAIN = ["train", "tiny", "trainer.max_steps=1", "trainer.per_device_train_batch_size=1", "evaluation.sources=[]"]
TRAIN += ["--device", "cpu", "--quiet"]


def start(folder: Path, timeout: float, port: int) -> str:
    """One start; `ended`, `hung` or `failed`, with the seconds it took. What hangs says where, on stderr."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    command += ["-m", "cores", *TRAIN, "--out", str(folder / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment, start_new_session=True)
    try:
        word = "ended" if process.wait(timeout) == 0 else "failed"
    except subprocess.TimeoutExpired:
        word = "hung"
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGABRT)  # its stack
        time.sleep(2)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return f"{word} after {time.monotonic() - began:.1f} s"


def main() -> int:
    """Exit code 1 when one start did not end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--timeout", type=float, default=120)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    lines = [f"{datetime.now(UTC):%Y-%m-%d}: python {' '.join(sys.argv)}"]
    for number in range(1, args.starts + 1):
        with tempfile.TemporaryDirectory() as folder:
            lines.append(f"{number:2} {start(Path(folder), args.timeout, 29600 + number)}")
            sys.stdout.write(lines[-1] + "\n")
            sys.stdout.flush()
    ended = sum(" ended after" in line for line in lines)
    lines.append(f"{ended} of {args.starts} ended")
    sys.stdout.write(lines[-1] + "\n")
    if args.out is not None:
        args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0 if ended == args.starts else 1


if __name__ == "__main__":
    sys.exit(main())
