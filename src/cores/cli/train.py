"""`cores train RECIPE --out RUN`; on several devices `torchrun --nproc-per-node N -m cores train RECIPE --out RUN`."""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cores.cli.options import model_options
from cores.errors import UserError
from cores.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from cores.data.sample import Sample
    from cores.data.sources.base import Source
    from cores.evaluation.metrics import MaskMetrics
    from cores.modeling.model import CoresModel
    from cores.processing.processor import CoresProcessor


def main(argv: list[str]) -> int:
    """Run `cores train`. Gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="cores train",
        description="Train a model by a recipe.",
        epilog="--out gets recipe.yaml, log.jsonl, checkpoint-N and best. Ctrl-C finishes and saves the step at hand; "
        "--resume goes on from there as if nothing had happened.",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a name from `cores recipes ls`, or a file")
    parser.add_argument("settings", nargs="*", metavar="section.key=value", help="settings to put over the recipe")
    parser.add_argument("--model", help="checkpoint to go on from: model folder, run folder or hub id")
    parser.add_argument("--data", type=Path, help="the data directory; scenes need none")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    model_options(parser)
    parser.set_defaults(seed=None)
    args = parser.parse_intermixed_args(argv)
    recipe = load_recipe(args.recipe, [*args.settings, *_settings(args)])
    main_process = os.environ.get("RANK", "0") == "0"
    if main_process:  # the others would find what this one makes
        _check_run(args.out, recipe.model.start, args.resume, args.overwrite)

    from cores.data.sources import open_source
    from cores.training.run import train

    directory = Path(recipe.data.dir) if recipe.data.dir else None
    scored = [open_source(name, directory, evaluation=True) for name in recipe.evaluation.sources]
    quiet = args.quiet or not main_process
    trainer = train(
        recipe,
        args.out,
        open_source,
        evaluate=Scorer(recipe, scored, quiet) if scored else None,
        resume=args.resume,
        device=args.device,
        quiet=quiet,
    )
    if main_process:
        best = trainer.state.best_metric
        found = "" if best is None else f", best gIoU {best:.3f} in {args.out / 'best'}"
        sys.stdout.write(
            f"{args.out}: {trainer.state.global_step} steps{found}\n"
            f"next: cores merge {args.out} --out {args.out}-merged\n"
        )
    trainer.end()
    return 0


class Scorer:
    """Scores a model during training, on one rank's share of the evaluation's pictures."""

    def __init__(self, recipe: Recipe, sources: "list[Source]", quiet: bool) -> None:
        self.mode, self.sources, self.quiet = recipe.evaluation.answers, sources, quiet
        self.limit = recipe.evaluation.limit
        self.seed = int(recipe.trainer.get("seed", 0))

    def __call__(self, model: "CoresModel", processor: "CoresProcessor", rank: int, world: int) -> "MaskMetrics":
        from cores.evaluation.evaluator import evaluate

        share = Share(self.sources, self.limit, rank, world)
        result = evaluate(model, processor, share, (self.mode,), seed=self.seed, progress=not self.quiet, sanity=False)
        return result.scores[self.mode].masks


class Share:
    """Every `world`-th picture of some sources, from the `rank`-th on; at most `limit` of each source."""

    def __init__(self, sources: "list[Source]", limit: int | None, rank: int, world: int) -> None:
        every = [(source, i) for source in sources for i in range(min(len(source), limit or len(source)))]
        self.pictures = every[rank::world]

    def __len__(self) -> int:
        return len(self.pictures)

    def __iter__(self) -> "Iterator[Sample]":
        return (source[i] for source, i in self.pictures)


def _settings(args: argparse.Namespace) -> list[str]:
    """What flags say, as settings of the recipe."""
    found = []
    if args.model is not None:
        found += [f"model.start={args.model!r}", "model.bases=null", "model.mllm=null", "model.segmenter=null"]
    if args.data is not None:
        found.append(f"data.dir={str(args.data.resolve())!r}")
    if args.seed is not None:
        found.append(f"trainer.seed={args.seed}")
    if args.dtype is not None:
        found += [f"model.dtype={args.dtype}", f"trainer.bf16={str(args.dtype == 'bfloat16').lower()}"]
    return found


def _check_run(run: Path, base: str | None, resume: bool, overwrite: bool) -> None:
    """Refuse to mix two runs in one folder; with `overwrite`, make room."""
    is_run = (run / "recipe.yaml").is_file()
    if resume and overwrite:
        raise UserError("--resume goes on with a run and --overwrite begins anew: take one")
    if resume and not is_run:
        raise UserError(f"--out {run}: there is no run to resume: it holds no recipe.yaml")
    if resume or not run.exists():
        return
    if not overwrite:
        raise UserError(f"--out {run}: exists already: take another, --resume to go on, or --overwrite to begin anew")
    if not is_run:
        raise UserError(
            f"--out {run}: is not the folder of a run (no recipe.yaml), so it is not replaced: take another"
        )
    if base is not None and Path(base).resolve().is_relative_to(run.resolve()):
        raise UserError(
            f"--out {run}: holds the checkpoint to start from ({base}), so it is not replaced: take another"
        )
    shutil.rmtree(run)
