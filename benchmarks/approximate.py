"""What approximate settings cost: gIoU after the same short training with and without each.

python benchmarks/approximate.py --out work/approximate

The recipe is `tiny`, on scenes written as large JPEGs. Runs that are there already are kept, so that a stopped
benchmark goes on. Prints a table for benchmarks/speed.md.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean

from PIL import Image

LEVERS = {  # the first is what the others are compared with
    "exact, low": "data.pixels=exact losses.resolution=low",
    "close, low": "data.pixels=close losses.resolution=low",
    "draft, low": "data.pixels=draft losses.resolution=low",
    "exact, original": "data.pixels=exact losses.resolution=original",
}


def cores(*words: str | Path) -> None:
    """One command; the benchmark ends where it fails."""
    subprocess.run([sys.executable, "-m", "cores", *map(str, words)], check=True)


def write_jpegs(folder: Path, scenes: int, size: int) -> Path:
    """Scenes of training as JPEGs of this side, as a camera would make them, and their manifest."""
    manifest = folder / "jpegs.jsonl"
    if not manifest.exists():
        cores("scenes", "write", folder, "--split", "train", "--n", str(scenes), "--size", str(size), "--overwrite")
        for picture in (folder / "scenes").glob("*.png"):
            with Image.open(picture) as image:
                image.convert("RGB").save(picture.with_suffix(".jpg"), quality=90)
        manifest.write_text((folder / "train.jsonl").read_text("utf-8").replace(".png", ".jpg"), "utf-8")
    return manifest.absolute()


def score(name: str, manifest: Path, seed: int, args: argparse.Namespace) -> float:
    """Train one model and measure it: gIoU of scenes|test, answers given."""
    run = args.out / f"{name.replace(', ', '-')}-{seed}"
    scored = run.with_name(f"{run.name}-scored")
    if not (scored / "results.json").exists():
        again = ["--resume"] if run.exists() else []
        settings = [f"data.sources={{scenes: ['manifest:{manifest}']}}", "data.questions_per_image=4"]
        settings += [f"trainer.max_steps={args.steps}", f"trainer.seed={seed}", "trainer.eval_strategy=no"]
        settings += ["evaluation.sources=[]", f"trainer.per_device_train_batch_size={args.batch}"]
        settings += ["trainer.warmup_steps=10"]
        cores("train", "tiny", "--out", run, *again, *settings, *LEVERS[name].split())
        on = ["--on", "scenes|test", "--limit", str(args.limit), "--answers", "teacher-forced"]
        cores("eval", run, *on, "--out", scored)
    results = json.loads((scored / "results.json").read_text("utf-8"))
    return float(results["sources"]["scenes|test"]["teacher-forced"]["giou"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch", type=int, default=4, help="pictures a step")
    parser.add_argument("--scenes", type=int, default=300, help="that are trained on")
    parser.add_argument("--size", type=int, default=512, help="their side in pixels")
    parser.add_argument("--limit", type=int, default=100, help="scenes that are measured on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--levers", nargs="+", choices=LEVERS, default=list(LEVERS))
    args = parser.parse_args()
    manifest = write_jpegs(args.out / "data", args.scenes, args.size)
    found: dict[str, list[float]] = {name: [] for name in args.levers}
    for seed in args.seeds:
        for name in args.levers:
            found[name].append(score(name, manifest, seed, args))
    first = next(iter(found.values()))
    sys.stdout.write("| pixels, loss | gIoU | difference |\n| --- | ---: | ---: |\n")
    for name, scores in found.items():
        gaps = [b - a for a, b in zip(first, scores, strict=True)]
        sys.stdout.write(f"| {name} | {', '.join(f'{one:.4f}' for one in scores)} | {mean(gaps):+.4f} |\n")


if __name__ == "__main__":
    main()
