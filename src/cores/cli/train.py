"""`cores train RECIPE --out RUN`; on several devices `torchrun --nproc-per-node N -m cores train RECIPE --out RUN`."""

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from cores.cli.options import base_option, model_options, places_of, taken_folder
from cores.errors import DataError, UserError
from cores.recipe import Recipe, load_recipe, read_recipe
from cores.recipe_listing import listing
from cores.training.folder import taken
from cores.training.ranks import is_first, leave, together

if TYPE_CHECKING:
    from cores.data.sources.base import Source


def main(argv: list[str]) -> int:
    """Run `cores train`. Gives the exit code.

    Raises RecipeError for a recipe or setting, UserError for flags that do not go together and a run that is there,
    and what `cores.training.run.train` raises.
    """
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
    parser.add_argument("--out", type=Path, help="folder of the run")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="say what would train, on what, for how long and in how much memory, and end; --out gets the first batch",
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print the recipe with where each value was said, and end"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    base_option(parser, "with --resume: ")
    model_options(parser)
    parser.set_defaults(seed=None)
    args = parser.parse_intermixed_args(argv)
    if args.resume and args.overwrite:
        raise UserError("--resume goes on with a run and --overwrite begins anew: take one")
    if args.base and not args.resume:
        raise UserError(
            "--base says where a run's base is now, for --resume; a new run's base is model.* in the recipe"
        )
    places = places_of(args.base)
    settings = [*args.settings, *_settings(args, places)]
    if args.print_config:
        sys.stdout.write(listing(*read_recipe(args.recipe, settings)))
        return 0
    if args.dry_run:
        if args.resume:
            raise UserError("--dry-run is of a new run, --resume goes on with one: take one")
        return _dry_run(load_recipe(args.recipe, settings), args.out, args.overwrite)
    if args.out is None:
        raise UserError("--out RUN: say where the run's folder is to be")
    try:
        with together():
            recipe = load_recipe(args.recipe, settings)
            _check_start(args.out, recipe.model.start, args.overwrite)
        held = taken(args.out, resume=args.resume, replace=args.overwrite) if is_first() else nullcontext()
        with held:
            return _run(recipe, args, places)
    finally:
        leave()


def _run(recipe: Recipe, args: argparse.Namespace, places: dict[str, str]) -> int:
    """Everything that needs torch."""
    from cores.data.sources import open_source
    from cores.evaluation.gallery import Gallery
    from cores.evaluation.scorer import Scorer
    from cores.training.run import train

    with together():
        scored = _evaluation_sources(recipe)
    quiet = args.quiet or not is_first()
    asked, seed, think = recipe.evaluation, int(recipe.trainer.get("seed", 0)), recipe.reinforcement.think
    trainer = train(
        recipe,
        args.out,
        open_source,
        evaluate=Scorer(scored, asked.limit, asked.answers, seed, think) if scored else None,
        draw=Gallery(scored, asked.pictures, asked.answers, seed, think) if asked.pictures else None,
        resume=args.resume,
        replace=args.overwrite,
        moved=places,
        device=args.device,
        quiet=quiet,
    )
    if is_first():
        best = trainer.state.best_metric
        found = "" if best is None else f", best gIoU {best:.3f} in {args.out / 'best'}"
        sys.stdout.write(
            f"{args.out}: {trainer.state.global_step} steps{found}\n"
            f"next: cores merge {args.out} --out {args.out}-merged\n"
        )
    trainer.end()
    return 0


def _dry_run(recipe: Recipe, out: Path | None, overwrite: bool) -> int:
    """Everything that can be said of a run before it, and its first batch into `out`."""
    from cores.data.sources import open_source
    from cores.training.dry_run import dry_run

    with nullcontext() if out is None else taken_folder(out, overwrite) as folder:
        found = dry_run(recipe, open_source)
        sys.stdout.write("".join(f"{line}\n" for line in found.lines))
        if found.picture is not None:
            more = len(found.batch) - 1
            kept = "--out DIR keeps all of it, and draws it" if folder is None else f"in {folder}, with batch.png"
            sys.stdout.write(f"first batch, {more} more pictures ({kept}):\n{found.batch[0]}\n")
        if found.picture is not None and folder is not None:
            (folder / "batch.txt").write_text("\n".join(found.batch) + "\n", encoding="utf-8")
            found.picture.save(folder / "batch.png")
    return 0


def _evaluation_sources(recipe: Recipe) -> "list[Source]":
    """What says which checkpoint is the best. Raises DataError that names the recipe's key, and what goes without."""
    from cores.data.sources import open_source

    directory = Path(recipe.data.dir) if recipe.data.dir else None
    try:
        return [open_source(name, directory, evaluation=True) for name in recipe.evaluation.sources]
    except DataError as error:
        raise DataError(f"evaluation.sources: {error}; evaluation.sources=[] trains without") from None


def _settings(args: argparse.Namespace, places: dict[str, str]) -> list[str]:
    """What flags say, as settings of the recipe."""
    found = []
    if args.model is not None:
        found += [f"model.start={args.model!r}", "model.bases=null", "model.mllm=null", "model.segmenter=null"]
    found += [f"model.{role}={path!r}" for role, path in places.items()]
    if args.data is not None:
        found.append(f"data.dir={str(args.data.resolve())!r}")
    if args.seed is not None:
        found.append(f"trainer.seed={args.seed}")
    if args.dtype is not None:
        found += [f"model.dtype={args.dtype}", f"trainer.bf16={str(args.dtype == 'bfloat16').lower()}"]
    return found


def _check_start(run: Path, base: str | None, overwrite: bool) -> None:
    """Refuse to replace the run that the new one starts from."""
    if overwrite and base is not None and Path(base).resolve().is_relative_to(run.resolve()):
        raise UserError(
            f"--out {run}: holds the checkpoint to start from ({base}), so it is not replaced: take another"
        )
