"""CPU minutes and figures of `cores eval` with the model that comes with cores, on its own world.

    python benchmarks/eval.py                           # scenes|test, both modes, with the sanity figures
    python benchmarks/eval.py --splits novel phrasing   # generated answers alone
    python benchmarks/eval.py --pictures 1              # a picture at a time

Each source is a process of its own, by the command as a user gives it. CPU time counts all threads, so that a busy
machine changes it little; it includes the imports, loading the model, and writing the report.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def run(source: str, pictures: int, answers: str, sanity: bool) -> dict[str, float]:
    """Evaluate one source; CPU and wall seconds, and gIoU by mode."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "scores"
        words = ["eval", "--on", source, "--out", str(out), "--answers", answers, "--pictures", str(pictures)]
        words += ["--device", "cpu", "--quiet", *([] if sanity else ["--no-sanity"])]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run([sys.executable, "-m", "cores", *words], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = json.loads((out / "results.json").read_text())["sources"][source]
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    modes = {mode: found[mode]["giou"] for mode in ("generated", "teacher-forced") if mode in found}
    return {"cpu": seconds, "wall": time.monotonic() - start, "images": found["images"], **modes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", nargs="+", default=["test"])
    parser.add_argument("--pictures", type=int, default=8)
    args = parser.parse_args()
    print(f"threads: {os.environ.get('OMP_NUM_THREADS', 'all')}, pictures together: {args.pictures}")  # noqa: T201
    for split in args.splits:
        whole = split == "test"
        found = run(f"scenes|{split}", args.pictures, "both" if whole else "generated", whole)
        figures = ", ".join(f"{mode} {found[mode]:.3f}" for mode in ("generated", "teacher-forced") if mode in found)
        print(  # noqa: T201
            f"scenes|{split}: {found['images']:.0f} pictures, gIoU {figures}; "
            f"{found['cpu'] / 60:.2f} CPU minutes, {found['wall'] / 60:.1f} minutes",
            flush=True,
        )


if __name__ == "__main__":
    main()
