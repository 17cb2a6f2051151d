"""How far the demo's figures move with the arithmetic and the draws: `tiny-own` by threads and by seed.

python benchmarks/demo_range.py --out runs/demo-range [--threads 1 2] [--seed 0 1]

Every thread count is run with the first seed, every further seed with the first thread count. A run that is there is
not made again: after an interruption the same command goes on.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

OLD, NEW = "scenes|test", "ReasonSeg|val"
LIMITS = {OLD: 40, NEW: 100}  # as in examples/demo.py


def run(threads: int, *arguments: str | Path) -> None:
    """One command of ours with so many threads; the benchmark ends where it fails."""
    command = [sys.executable, "-m", "cores", *map(str, arguments)]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": str(threads)})


def figures_of(out: Path, data: Path, threads: int, seed: int) -> dict[str, dict[str, Any]]:
    """Train once and score both worlds: {source: figures of generated answers}."""
    folder = out / f"threads{threads}-seed{seed}"
    model = folder / "model"
    if not model.exists():
        resume = ["--resume"] if (folder / "run" / "recipe.yaml").exists() else []
        run(threads, "train", "tiny-own", "--data", data, "--out", folder / "run", "--seed", str(seed), *resume)
        run(threads, "merge", folder / "run", "--out", model)
    found = {}
    for source, limit in LIMITS.items():
        scored = folder / source.partition("|")[0]
        if not scored.exists():
            options = ["--limit", str(limit), "--answers", "generated", "--no-sanity", "--out", scored]
            run(threads, "eval", model, "--on", source, "--data", data, *options)
        results = json.loads((scored / "results.json").read_text("utf-8"))
        found[source] = results["sources"][source]["generated"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1])
    args = parser.parse_args()
    data = args.out / "own"
    if not (data / "train.jsonl").exists():
        run(1, "scenes", "write", data, "--kinds", "own", "--quiet")
    runs = [(threads, args.seed[0]) for threads in args.threads]
    runs += [(args.threads[0], seed) for seed in args.seed[1:]]
    lines = ["| threads | seed | new kinds: gIoU | refused | old world: gIoU | refused |", "| --- " * 6 + "|"]
    for threads, seed in runs:
        found = figures_of(args.out, data, threads, seed)
        cells = [f"{found[s]['giou']:.3f} | {found[s]['answers']['refusal']:.2f}" for s in (NEW, OLD)]
        lines.append(f"| {threads} | {seed} | {' | '.join(cells)} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
