"""`cores scenes write | pretrain | ship | extend | words`: the synthetic world as files, and tiny models of it."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from cores.cli.signals import undisturbed
from cores.errors import UserError
from cores.prompts.styles import STYLE_NAMES

STAGES = ("tower", "segmenter", "llava")
ABOUT = "The model that comes with cores. It knows drawn scenes of a few kinds of things, not photographs."
DEFAULTS = {"train": 800, "val": 50}  # scenes a split when no split is named: enough to fine-tune on


def main(argv: list[str]) -> int:
    """Run `cores scenes`. Gives the exit code.

    Raises UserError for flags that cannot be used and what is there already, CheckpointError and CheckFailed for
    models that cannot be shipped.
    """
    parser = argparse.ArgumentParser(prog="cores scenes", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    write = verbs.add_parser("write", help="write scenes in ReasonSeg's on-disk format and as a manifest")
    write.add_argument("dir", type=Path, help="folder to write into; it becomes a data directory (--data DIR)")
    write.add_argument("--split", choices=("train", "val", "test", "novel", "phrasing"), help="default: train and val")
    write.add_argument("--n", type=int, help="number of scenes (default: 800 for train, 50 for others)")
    write.add_argument("--seed", type=int, default=0, help="other seeds give other scenes of the same split")
    write.add_argument("--kinds", choices=("learned", "own"), default="learned", help="own: kinds never learned")
    write.add_argument("--size", type=int, default=128, help="side of the pictures in pixels")
    write.add_argument("--overwrite", action="store_true")
    write.add_argument("--quiet", action="store_true")
    pretrain = verbs.add_parser("pretrain", help="train the tiny base models from scratch (hours on two cores)")
    pretrain.add_argument("--out", type=Path, required=True, help="folder of states; a stopped run resumes")
    pretrain.add_argument("--stage", choices=STAGES, action="append", help="default: all, in order")
    pretrain.add_argument("--scenes", type=int, default=60_000, help="scenes drawn ahead (80 kB each)")
    pretrain.add_argument("--steps", type=int, help="optimiser steps of a stage (default: what the shipped ones had)")
    pretrain.add_argument(
        "--styles",
        nargs="+",
        choices=STYLE_NAMES,
        default=["paper"],
        help="forms of answers that the language model reads in turn (default: paper)",
    )
    ship = verbs.add_parser("ship", help="make the models that come with cores of a run and the bases it began with")
    ship.add_argument("run", type=Path, help="run folder of `cores train tiny`")
    ship.add_argument("bases", type=Path, help="the bases folder that `cores scenes pretrain` wrote")
    ship.add_argument("--out", type=Path, required=True, help="folder to write cores-tiny and bases-tiny into")
    ship.add_argument("--overwrite", action="store_true")
    extend = verbs.add_parser("extend", help="give the models that come with cores rows for a longer vocabulary")
    extend.add_argument("--out", type=Path, required=True, help="folder to write cores-tiny and bases-tiny into")
    extend.add_argument("--overwrite", action="store_true")
    words = verbs.add_parser(
        "words", help="teach the model that comes with cores to say boxes in words (docs/words.md)"
    )
    words.add_argument(
        "--out", type=Path, required=True, help="folder of the state and the model; a stopped run resumes"
    )
    words.add_argument("--steps", type=int, help="optimiser steps (default: 500, seven minutes of one core)")
    args = parser.parse_args(argv)
    verb = {"write": _write, "pretrain": _pretrain, "ship": _ship, "extend": _extend, "words": _words}[args.verb]
    return verb(args)


def _write(args: argparse.Namespace) -> int:
    from cores.scenes.source import open_scenes
    from cores.scenes.write import write_scenes

    if args.n is not None and args.n < 1:
        raise UserError(f"--n {args.n}: write at least one scene")
    if args.size < 32:
        raise UserError(f"--size {args.size}: parts cannot be told apart below 32 pixels")
    splits = [args.split] if args.split else list(DEFAULTS)
    there = [split for split in splits if (args.dir / f"{split}.jsonl").exists()]
    if there and not args.overwrite:
        raise UserError(f"{args.dir} already holds {', '.join(there)}: take another folder or add --overwrite")
    new = [folder for folder in (args.dir, *args.dir.parents) if not folder.exists()]
    args.dir.mkdir(parents=True, exist_ok=True)
    try:
        for split in splits:
            scenes = open_scenes(split, args.n or DEFAULTS.get(split, 50), args.seed, args.kinds, args.size)
            # Written beside and moved at the end: an interrupted run leaves nothing that looks whole.
            with tempfile.TemporaryDirectory(dir=args.dir, prefix=".writing-") as part:
                counts = write_scenes(scenes, Path(part), progress=not args.quiet)
                with undisturbed():
                    _move(Path(part), args.dir, split)
            if not args.quiet:
                counted = ", ".join(f"{number} {name}" for name, number in counts.items())
                sys.stdout.write(f"{args.dir}: {split}: {counted}\n")
    finally:
        for folder in new:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
    return 0


def _move(part: Path, home: Path, split: str) -> None:
    """Move a split that has been written to its place, over what is there."""
    (home / "scenes").mkdir(exist_ok=True)
    for picture in (part / "scenes").iterdir():
        picture.replace(home / "scenes" / picture.name)
    pairs = home / "reason_seg" / "ReasonSeg" / split
    if pairs.exists():
        shutil.rmtree(pairs)
    pairs.parent.mkdir(parents=True, exist_ok=True)
    (part / "reason_seg" / "ReasonSeg" / split).rename(pairs)
    (part / f"{split}.jsonl").replace(home / f"{split}.jsonl")


def _pretrain(args: argparse.Namespace) -> int:
    import logging

    from cores.scenes.pretrain.stages import run_stages

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    run_stages(args.out, args.stage or STAGES, args.scenes, args.steps, args.styles)
    return 0


def _words(args: argparse.Namespace) -> int:
    import logging

    from cores.scenes.pretrain.words import STEPS, teach

    if args.steps is not None and args.steps < 1:
        raise UserError(f"--steps {args.steps}: take at least one step")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    folder = teach(args.out, steps=args.steps or STEPS)
    sys.stdout.write(f"the model is in {folder}: cores eval words:{folder}+shipped --on 'scenes|test' --out scored\n")
    return 0


def _ship(args: argparse.Namespace) -> int:
    import torch

    from cores.checkpoints.load import load_model
    from cores.checkpoints.runs.bases import write_difference
    from cores.checkpoints.runs.merging import merge

    model = args.out / "cores-tiny"
    merged = merge(args.run, model, dtype=torch.float16, replace=args.overwrite, about=ABOUT)
    write_difference(args.bases, load_model(model, torch.float16), args.out / "bases-tiny")
    sys.stdout.write(f"masks after rounding: IoU {merged.iou:.4f}\n{_sizes(args.out)}")
    return 0


def _extend(args: argparse.Namespace) -> int:
    from cores.scenes.pretrain.extend import extend_shipped

    new = extend_shipped(args.out, args.overwrite)
    sys.stdout.write(f"{len(new)} new tokens\n{_sizes(args.out)}")
    return 0


def _sizes(out: Path) -> str:
    from cores.checkpoints.runs.bases import DIFFERENCE

    files = (out / "cores-tiny" / "model.safetensors", out / "bases-tiny" / DIFFERENCE)
    return "".join(f"{file}: {file.stat().st_size / 1e6:.1f} MB\n" for file in files)
