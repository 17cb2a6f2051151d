"""May a run go on with these settings? What it began with is in its recipe, what it ran on in its checkpoints."""

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

from cores.errors import RecipeError
from cores.recipe import Recipe, load_recipe
from cores.training.folder import RECIPE

LENGTH = ("max_steps", "num_train_epochs")
BATCH = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}  # with transformers' defaults
# What changes nothing that is learned.
FREE = ("dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_pin_memory", "report_to")
BY_LENGTH = "the learning rate follows its schedule over the new length from here on"
# Schedules that do not look at the last step: such a run is the one that was longer from its beginning.
OF_ANY_LENGTH = ("constant", "constant_with_warmup", "inverse_sqrt")


def check_same(recipe: Recipe, run: Path, moved: Collection[str] = ()) -> Recipe:
    """The recipe that the run began with. `moved`: roles of a base that may stand elsewhere than it did.

    Raises RecipeError when there is no run, when another setting has changed than its length, how its batch is cut and
    what changes nothing that is learned, and when it saves no optimiser.
    """
    file = run / RECIPE
    if not file.is_file():
        raise RecipeError(f"{run}: there is no run to resume: it holds no {RECIPE}")
    began = load_recipe(file)
    then, now = began.to_dict(), recipe.to_dict()
    free = {("model", role) for role in moved} | {("trainer", key) for key in (*LENGTH, *BATCH, *FREE)}
    free |= {("evaluation", "pictures"), ("evaluation", "patience")}
    changed = [
        f"{section}.{key}: {then[section].get(key)} then, {now[section].get(key)} now"
        for section in now
        for key in {**then[section], **now[section]}
        if then[section].get(key) != now[section].get(key) and (section, key) not in free
    ]
    if changed:
        raise RecipeError(
            f"{run} began with other settings ({'; '.join(changed)}): resume with `cores train {file} --out {run} "
            "--resume`, or begin a new run from its checkpoint with --model"
        )
    if recipe.trainer.get("save_only_model"):
        raise RecipeError(f"{run}: trainer.save_only_model leaves nothing to resume from: no optimiser was saved")
    return began


def check_batch(began: Recipe, recipe: Recipe, checkpoint: Path, world: int) -> str | None:
    """What to say about another number of processes or another cut of the batch; None when nothing has changed.

    `world`: processes now. Raises RecipeError when a step would see another number of pictures than before, and when
    DeepSpeed would run on another number of processes.
    """
    processes = len(list(checkpoint.glob("rng_state_*.pth"))) or 1
    then, now = _cut(began.trainer, processes), _cut(recipe.trainer, world)
    if then == now:
        return None
    if math.prod(then) != math.prod(now):
        raise RecipeError(
            f"{checkpoint.parent}: a step had {math.prod(then)} pictures ({_words(then)}), now it has "
            f"{math.prod(now)} ({_words(now)}): set trainer.per_device_train_batch_size and "
            "trainer.gradient_accumulation_steps so that their product with the number of processes is the same"
        )
    if recipe.trainer.get("deepspeed") and processes != world:
        raise RecipeError(
            f"{checkpoint.parent}: DeepSpeed's state is of {processes} processes, there are {world}: start {processes}"
        )
    same = f"a step has {math.prod(now)} pictures as before, as {_words(now)} in place of {_words(then)}"
    return f"{same}: dropout and rounding differ"


def check_length(began: Recipe, recipe: Recipe, run: Path, steps_per_epoch: int) -> str | None:
    """What to say about another length, in optimiser steps; None when it is the same.

    Raises RecipeError when it is shorter.
    """
    then, now = (planned_steps(one.trainer, steps_per_epoch) for one in (began, recipe))
    if now < then:
        raise RecipeError(f"{run}: was to have {then} steps, now {now}: a run goes on for as long or longer")
    if now == then:
        return None
    name = recipe.trainer.get("lr_scheduler_type", "linear")
    rate = f"{name} does not depend on it" if name in OF_ANY_LENGTH else BY_LENGTH
    return f"goes on to {now} steps in place of {then}: {rate}"


def planned_steps(trainer: dict[str, Any], steps_per_epoch: int) -> int:
    """How many optimiser steps a run has, as transformers counts."""
    steps = trainer.get("max_steps", -1)
    return int(steps if steps > 0 else math.ceil(trainer.get("num_train_epochs", 3.0) * steps_per_epoch))


def _cut(trainer: dict[str, Any], processes: int) -> tuple[int, ...]:
    return (processes, *(int(trainer.get(key, default)) for key, default in BATCH.items()))


def _words(cut: tuple[int, ...]) -> str:
    return "{} processes x {} pictures x {} times".format(*cut)
