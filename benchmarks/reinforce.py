"""What learning from rewards is worth on scenes: before, after GRPO, after supervised steps of the same wall time.

    OMP_NUM_THREADS=1 python benchmarks/reinforce.py WORK [--steps 40] [--seeds 0 1 2] [--pictures 200]

WORK gets, for every seed, a run of `cores train tiny-grpo` and one from the same start that is shown the answers
instead, of as many steps as fit into the same time, and all their scores. A figure is the mean over the seeds with the
standard deviation. A difference is a seed's, paired with the start picture by picture, with its 95 % interval
(bootstrap). What is there already is not done again.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cores.evaluation.compare import compare

SOURCES = ("scenes|test", "scenes|novel", "scenes|phrasing")
SUPERVISED = ["reinforcement.samples=0", "losses.text=1", "evaluation.answers=teacher-forced"]
ALONE = ["trainer.eval_strategy=no", "evaluation.sources=[]"]
PROBE = 6  # steps that say how long a supervised one takes; the first is not counted


def cores(*words: str | Path) -> None:
    """One command of ours, shown before it runs; all ends where it fails."""
    said = [str(word) for word in words]
    sys.stdout.write(f"$ cores {' '.join(said)}\n")
    sys.stdout.flush()
    subprocess.run([sys.executable, "-m", "cores", *said], check=True)


def train(run: Path, seed: int, steps: int, *settings: str) -> list[dict[str, Any]]:
    """Train, or go on, without an evaluation meanwhile; the lines of its log that have a loss."""
    if not (run / f"checkpoint-{steps}").exists():
        again = ["--resume"] if run.exists() else []
        own = [f"trainer.seed={seed}", f"trainer.max_steps={steps}", "trainer.save_steps=10", *ALONE]
        cores("train", "tiny-grpo", "--out", run, "--quiet", *again, *own, *settings)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    return [line for line in lines if "loss" in line]


def score(folder: Path, model: list[str | Path], pictures: int) -> dict[str, Any]:
    """Figures of generated answers by source."""
    if not (folder / "results.json").exists():
        how = ["--answers", "generated", "--limit", str(pictures), "--no-sanity", "--overwrite", "--quiet"]
        cores("eval", *model, "--on", *SOURCES, *how, "--out", folder)
    found: dict[str, Any] = json.loads((folder / "results.json").read_text("utf-8"))["sources"]
    return {source: found[source]["generated"] for source in SOURCES}


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    mean = statistics.mean(values)
    return f"{mean:.3f}" if len(values) == 1 else f"{mean:.3f} ± {statistics.stdev(values):.3f}"


def cells(scores: list[dict[str, Any]], source: str) -> list[str]:
    """gIoU, absent things refused, present ones refused, answers in the right form; over the seeds."""
    found = [spread([one[source]["giou"] for one in scores])]
    for key in ("refusal", "false_refusal", "right_form"):
        values = [one[source]["answers"][key] for one in scores]
        found.append("none asked" if None in values else spread(values))
    return found


def difference(start: Path, scored: Path) -> Iterator[list[str]]:
    """gIoU of a run less the start's, with its interval, a source each."""
    for found in compare(start, scored):
        before, after, (low, high) = found.figures["giou",]
        yield [named(found.source), f"{after - before:+.4f}", f"{low:+.4f} to {high:+.4f}"]


def named(source: str) -> str:
    """A split's name: the whole one has what parts a table's cells."""
    return source.removeprefix("scenes|")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pictures", type=int, default=200)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    start = args.work / "start-scored"
    scores = {"start": [score(start, [], args.pictures)]}
    curves, differences = [], []
    for seed in args.seeds:
        log = train(args.work / f"grpo-{seed}", seed, args.steps)
        curves.append([str(seed), *(f"{statistics.mean(some):.3f}" for some in in_eights([x["reward"] for x in log]))])
        probe = train(args.work / f"probe-{seed}", seed, PROBE, *SUPERVISED)
        each = statistics.mean(line["seconds"] for line in probe[1:])
        steps = max(1, round(sum(line["seconds"] for line in log) / each))
        train(args.work / f"supervised-{seed}", seed, steps, *SUPERVISED)
        sys.stdout.write(f"seed {seed}: {args.steps} steps of GRPO, {steps} supervised ones in the same time\n")
        for name in ("grpo", "supervised"):
            scored = args.work / f"{name}-{seed}-scored"
            scores.setdefault(name, []).append(score(scored, [args.work / f"{name}-{seed}"], args.pictures))
            differences += [[name, str(seed), *row] for row in difference(start, scored)]
    rows = [[name, named(source), *cells(found, source)] for source in SOURCES for name, found in scores.items()]
    heads = ("", "split", "gIoU", "absent refused", "present refused", "right form")
    sys.stdout.write(table(heads, rows) + "\n\n")
    sys.stdout.write(table(("", "seed", "split", "gIoU less the start's", "95 % interval"), differences) + "\n\n")
    eights = [f"steps {8 * at + 1} to {8 * at + 8}" for at in range(max(map(len, curves)) - 1)]
    sys.stdout.write(table(("mean reward of seed", *eights), curves) + "\n")


def in_eights(values: Sequence[float]) -> list[Sequence[float]]:
    """Eight after eight; a last few that are fewer, too."""
    return [values[at : at + 8] for at in range(0, len(values), 8)]


if __name__ == "__main__":
    main()
