"""A training run: from a recipe to a folder of checkpoints, and on from where it stopped."""

import math
import shutil
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, TrainingArguments
from transformers.integrations import TensorBoardCallback

from cores.checkpoints.find import checkpoints_of
from cores.checkpoints.runs.best import WRITING, mend, step_of
from cores.checkpoints.runs.origin import Base
from cores.data.inspect.texts import texts_of
from cores.data.sources.base import FileSource
from cores.errors import UserError
from cores.modeling.model import CoresModel
from cores.processing.processor import CoresProcessor
from cores.processing.unknown_words import find_unknown_words
from cores.recipe import Recipe, ReinforcementSection
from cores.trainer_section import FSDP2
from cores.training.arguments import training_arguments
from cores.training.callbacks import EarlyStopping, LastStep, LogFile
from cores.training.drawing import Collate, Draws, OpenSource, draws_of
from cores.training.folder import RECIPE, clear, taken
from cores.training.freed_memory import give_back_large_tensors
from cores.training.interruption import Interruption, workers_ended
from cores.training.kept import Caches, open_caches
from cores.training.memory import training_memory
from cores.training.outline import positions
from cores.training.progress import Progress
from cores.training.ranks import together
from cores.training.reinforcement.collate import PolicyCollate
from cores.training.reinforcement.trainer import PolicyTrainer
from cores.training.resuming import check_batch, check_length, check_same
from cores.training.sharding import shard
from cores.training.start import start
from cores.training.trainable import choose_parts
from cores.training.trainer import CoresTrainer, Evaluate, said_as
from cores.training.watching import Board, Draw, Pictures
from cores.training.zero3 import is_zero3, loaded_whole, partition
from cores.whole import is_full

LOST = ("Connection closed by peer", "Connection reset by peer", "remote process exited")  # gloo's words, and NCCL's


def train(
    recipe: Recipe,
    run: Path,
    open_source: OpenSource,
    *,
    evaluate: Evaluate | None = None,
    draw: Draw | None = None,
    resume: bool = False,
    replace: bool = False,
    moved: Collection[str] = (),
    device: str | None = None,
    quiet: bool = False,
) -> CoresTrainer:
    """Train by a recipe; `run` gets recipe.yaml, log.jsonl, `checkpoint-N` and, with an evaluation, `best`.

    Args:
        open_source: gives a source by name, such as `cores.data.sources.open_source`.
        evaluate: scores a model, for which checkpoint is the best; None: nothing does.
        draw: draws what a model points at, for RUN/pictures at every evaluation.
        resume: go on from the run's last checkpoint; the result is that of a run that never stopped. A finished run
            goes on when the recipe says more steps.
        replace: a run that is there is removed once this one can start.
        moved: roles of the base (such as `bases`) whose path may differ from the run's; the weights may not.
        device: cpu or cuda; None takes CUDA where there is one.
        quiet: say nothing, neither what the run starts with nor how it goes.

    Returns: the trainer, whose `model` is trained. Raises RecipeError, CheckpointError and DataError for what cannot
    be used, before anything trains; later, DataError for images that cannot be used (`data.on_bad`), CheckFailed for a
    loss or gradient that is no number; UserError when another process trains into `run`, when the disk is full, and
    when a process that loads data or another rank was killed; KeyboardInterrupt or SystemExit when it was told to
    stop (see `Interruption`), after it has saved.
    """
    run = run.absolute()
    with together():
        arguments = training_arguments(recipe, run, device=device, evaluates=evaluate is not None, quiet=quiet)
    if arguments.device.type == "cpu":
        give_back_large_tensors()
    if not arguments.should_save:
        return _train(recipe, run, open_source, arguments, evaluate, draw, resume, replace, moved, quiet)
    with taken(run, resume=resume, replace=replace):
        return _train(recipe, run, open_source, arguments, evaluate, draw, resume, replace, moved, quiet)


def _train(
    recipe: Recipe,
    run: Path,
    open_source: OpenSource,
    arguments: TrainingArguments,
    evaluate: Evaluate | None,
    draw: Draw | None,
    resume: bool,
    replace: bool,
    moved: Collection[str],
    quiet: bool,
) -> CoresTrainer:
    with together():
        seed = arguments.seed if arguments.data_seed is None else arguments.data_seed
        draws = draws_of(recipe, open_source, seed, _step(arguments))
        found = checkpoints_of(run)[-1:] if resume else []
        said = _check_resume(recipe, run, found, moved, arguments, draws) if resume else []
        fsdp2, zero3 = recipe.trainer.get("fsdp") == FSDP2, is_zero3(arguments)
        with loaded_whole(arguments):
            empty = (fsdp2 or zero3) and arguments.process_index > 0  # the first rank sends its weights
            base, model, processor = start(recipe, arguments.seed, empty)
            draws.read_for(processor, recipe.data.pixels)
            torch.manual_seed(arguments.seed)
            choose_parts(model, recipe.model.train, recipe.lora)
        said += _unknown_words(processor, draws) if arguments.should_save else []
        for checkpoint in found:
            Base.load(checkpoint).check(base.fingerprints)
    with together():
        caches = open_caches(recipe, model, processor, arguments)
        if fsdp2:
            shard(model, arguments.device)
        elif zero3:
            partition(model, arguments)
        log, interruption = LogFile(run, draws), Interruption()
        callbacks: list[TrainerCallback] = [log, LastStep(evaluate is not None), interruption]
        if recipe.evaluation.patience is not None:
            callbacks.append(EarlyStopping(recipe.evaluation.patience))
        pictures = None
        if evaluate is not None and draw is not None:
            pictures = Pictures(run, draw)
            evaluate = pictures.drawn_by(evaluate)
            callbacks.append(pictures)
        with said_as("trainer"):
            trainer = _trainer(
                recipe.reinforcement,
                draws.mixture.seed,
                model=model,
                args=arguments,
                base=base,
                processor=processor,
                draws=draws,
                evaluate=interruption.cut(evaluate, at_once=not (fsdp2 or zero3)) if evaluate is not None else None,
                stopped=lambda: bool(interruption.asked),
                caches=caches,
                data_collator=_collate(recipe, processor, draws.mixture.seed, caches, model),
                callbacks=callbacks,
            )
    trainer.remove_callback(PrinterCallback)  # --quiet is quiet
    if trainer.pop_callback(TensorBoardCallback) is not None:
        trainer.add_callback(Board(run, pictures))
    if trainer.pop_callback(ProgressCallback) is not None:
        memory = training_memory(model, recipe, positions(processor), arguments.world_size)
        trainer.add_callback(Progress(run, draws, recipe.model.train, sum(memory.values())))
    if arguments.should_save:
        if resume:
            mend(run, checkpoints_of(run))
            log.go_on_after(step_of(found[0]) or 0 if found else 0)
        elif replace:
            clear(run)
        (run / RECIPE).write_text(recipe.to_yaml(), encoding="utf-8")
        if not quiet:
            sys.stderr.write("".join(f"{line}\n" for line in said))
    try:
        with interruption.listening(), workers_ended():
            trainer.train(resume_from_checkpoint=str(found[0]) if found else None)
    except Exception as error:
        if (accident := _accident(error)) is not None:
            raise UserError(f"{run}: {accident}, then go on with --resume: its checkpoints are whole") from error
        raise
    finally:
        if arguments.should_save:
            shutil.rmtree(run / WRITING, ignore_errors=True)
    interruption.end()
    return trainer


def _trainer(section: ReinforcementSection, seed: int, **kwargs: Any) -> CoresTrainer:
    """Whoever trains: by given answers, or by rewards of drawn ones."""
    return PolicyTrainer(section=section, seed=seed, **kwargs) if section.samples else CoresTrainer(**kwargs)


def _collate(recipe: Recipe, processor: CoresProcessor, seed: int, caches: Caches, model: CoresModel) -> Collate:
    section = recipe.reinforcement
    if section.samples:
        return PolicyCollate(processor, seed, model.loss_mask_size, section.supervised)
    return Collate(processor, seed, caches, model.loss_mask_size)


def _accident(error: Exception) -> str | None:
    """What befell a run from outside, and what to do about it; None for anything else."""
    if is_full(error):
        return "the disk is full: free some space"
    text = str(error)
    if "DataLoader worker" in text and "killed by signal" in text or "exited unexpectedly" in text:
        return (
            "a process that loads data was killed, as systems do when memory ends: set a smaller "
            "trainer.dataloader_num_workers, which may change"
        )
    if any(words in text for words in LOST):
        return "another process of this run has ended: see what it said"
    return None


def _check_resume(
    recipe: Recipe,
    run: Path,
    found: list[Path],
    moved: Collection[str],
    arguments: TrainingArguments,
    draws: Draws,
) -> list[str]:
    """What to say about a run that goes on; raises RecipeError when it cannot, with these settings."""
    began = check_same(recipe, run, moved)
    per_epoch = math.ceil(len(draws) / _step(arguments))
    said = [check_length(began, recipe, run, per_epoch)]
    said += [check_batch(began, recipe, checkpoint, arguments.world_size) for checkpoint in found]
    return [f"{run}: {line}" for line in said if line]


def _step(arguments: TrainingArguments) -> int:
    """How many pictures an optimiser's step has, over all processes."""
    size: int = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    return size


def _unknown_words(processor: CoresProcessor, draws: Draws) -> list[str]:
    """One line about the words that training would meet and the tokenizer does not know, if there are any."""
    sources = (source for family in draws.mixture.sources for source in family if isinstance(source, FileSource))
    unknown = find_unknown_words(processor.tokenizer, (text for source in sources for text in texts_of(source)))
    return [f"warning: {unknown}"] if unknown else []
