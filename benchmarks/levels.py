"""One level against two: LISA's form and CoReS from the same bases, with the same steps and data, over several seeds.

python benchmarks/levels.py --out work/levels --steps 300 --seeds 0 1 2

Runs that are there already are kept, so that a stopped benchmark goes on. Prints a table for benchmarks/levels.md.
"""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

RECIPES = ("tiny-lisa", "tiny")
SPLITS = ("scenes|test", "scenes|novel")


def cores(*words: str | Path) -> None:
    """One command; the benchmark ends where it fails."""
    subprocess.run([sys.executable, "-m", "cores", *map(str, words)], check=True)


def score(recipe: str, seed: int, steps: int, limit: int, out: Path, bases: str) -> dict[str, float]:
    """Train one model and measure it: gIoU of generated answers by split."""
    run, scored = out / f"{recipe}-{seed}", out / f"{recipe}-{seed}-scored"
    if not (scored / "results.json").exists():
        again = ["--resume"] if run.exists() else []
        settings = [f"trainer.max_steps={steps}", f"trainer.seed={seed}", f"model.bases={bases}"]
        cores("train", recipe, "--out", run, *again, *settings, "trainer.eval_strategy=no", "evaluation.sources=[]")
        cores("eval", run, "--on", *SPLITS, "--limit", str(limit), "--answers", "generated", "--out", scored)
    sources = json.loads((scored / "results.json").read_text("utf-8"))["sources"]
    return {split: sources[split]["generated"]["giou"] for split in SPLITS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--limit", type=int, default=200, help="scenes of each split")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--bases", default="shipped")
    args = parser.parse_args()
    found = {
        recipe: [score(recipe, seed, args.steps, args.limit, args.out, args.bases) for seed in args.seeds]
        for recipe in RECIPES
    }
    lines = ["| split | one level | two levels | difference | its standard error |", "| --- | --- | --- | --- | --- |"]
    for split in SPLITS:
        one, two = ([scores[split] for scores in found[recipe]] for recipe in RECIPES)
        gaps = [b - a for a, b in zip(one, two, strict=True)]
        error = stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else math.nan
        lines.append(f"| {split} | {mean(one):.3f} | {mean(two):.3f} | {mean(gaps):+.3f} | {error:.3f} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
