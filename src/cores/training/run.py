"""A training run: from a recipe to a folder of checkpoints, and on from where it stopped."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import PrinterCallback

from cores.checkpoints.find import checkpoints_of
from cores.checkpoints.runs.origin import Base
from cores.data.inspect.texts import texts_of
from cores.data.mixture import Mixture
from cores.data.sources.base import FileSource, Source
from cores.errors import RecipeError
from cores.processing.pixels import open_picture
from cores.processing.processor import CoresProcessor
from cores.processing.unknown_words import find_unknown_words
from cores.recipe import Recipe, load_recipe
from cores.training.arguments import training_arguments
from cores.training.callbacks import Interruption, LastStep, LogFile
from cores.training.drawing import Collate, Draws
from cores.training.start import start
from cores.training.trainable import choose_parts
from cores.training.trainer import WRITING, CoresTrainer, Evaluate

log = logging.getLogger(__name__)
RECIPE = "recipe.yaml"

# A source by name, in a data directory or none.
OpenSource = Callable[[str, Path | None], Source]


def train(
    recipe: Recipe,
    run: Path,
    open_source: OpenSource,
    *,
    evaluate: Evaluate | None = None,
    resume: bool = False,
    device: str | None = None,
    quiet: bool = False,
) -> CoresTrainer:
    """Train by a recipe; `run` gets recipe.yaml, log.jsonl, `checkpoint-N` and, with an evaluation, `best`.

    Args:
        open_source: gives a source by name, such as `cores.data.sources.open_source`.
        evaluate: scores a model, for which checkpoint is the best; None: nothing does.
        resume: go on from the run's last checkpoint; the result is that of a run that never stopped.
        device: cpu or cuda; None takes CUDA where there is one.

    Returns: the trainer, whose `model` is trained. Raises RecipeError, CheckpointError and DataError for what cannot
    be used, before anything trains; KeyboardInterrupt when it was stopped, after it has saved.
    """
    arguments = training_arguments(recipe, run, device=device, evaluates=evaluate is not None, quiet=quiet)
    if resume:
        _check_same(recipe, run)
    directory = Path(recipe.data.dir) if recipe.data.dir else None
    families = {
        family: [open_source(name, directory) for name in names] for family, names in recipe.data.sources.items()
    }
    base, model, processor = start(recipe, arguments.seed)
    if arguments.should_save:
        _say_unknown_words(processor, [source for sources in families.values() for source in sources])
    found = checkpoints_of(run)[-1:] if resume else []
    for checkpoint in found:
        Base.load(checkpoint).check(base.fingerprints)
    torch.manual_seed(arguments.seed)
    choose_parts(model, recipe.model.train, recipe.lora)

    seed = arguments.seed if arguments.data_seed is None else arguments.data_seed
    step = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    length = recipe.data.steps_per_epoch and recipe.data.steps_per_epoch * step
    mixture = Mixture(
        families,
        recipe.data.rates,
        questions=recipe.data.questions_per_image,
        seed=seed,
        explain=recipe.data.explain,
        on_bad=recipe.data.on_bad,
        open_picture=open_picture,
    )
    draws = Draws(mixture, length)
    interruption = Interruption()
    trainer = CoresTrainer(
        model=model,
        args=arguments,
        base=base,
        processor=processor,
        draws=draws,
        evaluate=evaluate,
        data_collator=Collate(processor, seed),
        callbacks=[LogFile(run, draws), LastStep(evaluate is not None), interruption],
    )
    trainer.remove_callback(PrinterCallback)  # --quiet is quiet
    if arguments.should_save:
        run.mkdir(parents=True, exist_ok=True)
        (run / RECIPE).write_text(recipe.to_yaml(), encoding="utf-8")
    try:
        with interruption.listening():
            trainer.train(resume_from_checkpoint=str(found[0]) if found else None)
    finally:
        if arguments.should_save:
            shutil.rmtree(run / WRITING, ignore_errors=True)
    if interruption.stopped:
        raise KeyboardInterrupt
    return trainer


def _say_unknown_words(processor: CoresProcessor, sources: list[Source]) -> None:
    """One line about the words that training would meet and the tokenizer does not know, if there are any."""
    texts = (text for source in sources if isinstance(source, FileSource) for text in texts_of(source))
    unknown = find_unknown_words(processor.tokenizer, texts)
    if unknown:
        log.warning("%s", unknown)


def _check_same(recipe: Recipe, run: Path) -> None:
    """Raise RecipeError when a run would go on with other settings than it began with."""
    file = run / RECIPE
    if not file.is_file():
        raise RecipeError(f"{run}: there is no run to resume: it holds no {RECIPE}")
    then, now = load_recipe(file).to_dict(), recipe.to_dict()
    changed = [
        f"{section}.{key}: {then[section].get(key)} then, {now[section].get(key)} now"
        for section in now
        for key in {**then[section], **now[section]}
        if then[section].get(key) != now[section].get(key)
    ]
    if changed:
        raise RecipeError(
            f"{run} began with other settings ({'; '.join(changed)}): resume with `cores train {file} --out {run} "
            "--resume`, or begin a new run from its checkpoint with --model"
        )
