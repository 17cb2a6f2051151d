"""Training in one plain loop, to be read in a sitting: what `cores train` does, without what keeps a run safe.

    python examples/train_loop.py tiny runs/plain trainer.max_steps=20
    accelerate launch examples/train_loop.py cores-7b runs/plain data.dir=dataset trainer.deepspeed=null

The losses are those of `cores train` with the same recipe (tests/test_train_loop.py). Left out: resuming, checkpoints
on the way, evaluation, the log, errors that name their samples. OUT is a checkpoint: `cores merge OUT --out MODEL`.
"""

import math
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch.utils.data import DataLoader
from transformers import get_scheduler

from cores.checkpoints.runs.learned import write_learned
from cores.data.sources import open_source
from cores.loss_keys import COUNTED
from cores.recipe import Recipe, load_recipe
from cores.training.drawing import Collate, InOrder, OpenSource, draws_of
from cores.training.dry_run import defaults, groups
from cores.training.ranks import end_at_once, leave
from cores.training.resuming import planned_steps
from cores.training.start import start
from cores.training.trainable import choose_parts


def train(recipe: Recipe, out: Path, open_source: OpenSource, cpu: bool = False) -> list[float]:
    """Train by a recipe; `out` gets what was learned. Gives the loss of every step."""
    t = defaults() | recipe.trainer  # a setting that the recipe does not say is transformers' own
    precision = "bf16" if t["bf16"] else "fp16" if t["fp16"] else "no"
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)  # the mask decoder has outputs no loss reads
    accelerator = Accelerator(cpu=cpu, mixed_precision=precision, kwargs_handlers=[unused])
    rows, micro = t["per_device_train_batch_size"], t["gradient_accumulation_steps"]
    step_size = rows * micro * accelerator.num_processes

    # Data: sample i of epoch e is the same on any number of devices.
    seed = t["seed"] if t["data_seed"] is None else t["data_seed"]
    draws = draws_of(recipe, open_source, seed, step_size)

    # Model: everything is frozen but the parts that the recipe names, which are fp32.
    base, model, processor = start(recipe, t["seed"])
    draws.read_for(processor, recipe.data.pixels)
    torch.manual_seed(t["seed"])
    choose_parts(model, recipe.model.train, recipe.lora)
    model.train()
    if t.get("gradient_checkpointing") or t.get("activation_checkpointing"):
        model.gradient_checkpointing_enable({"use_reentrant": False})

    order = InOrder(len(draws))
    collate = Collate(processor, seed, mask_size=model.loss_mask_size)
    loader = DataLoader(draws, batch_size=rows, sampler=order, collate_fn=collate)

    # Optimiser: biases and norms do not decay.
    decay = {True: t["weight_decay"], False: 0.0}
    optimizer = torch.optim.AdamW(
        [
            {"params": [model.get_parameter(name) for name in names], "weight_decay": decay[decays]}
            for decays, names in groups(model).items()
        ],
        lr=t["learning_rate"],
        betas=(t["adam_beta1"], t["adam_beta2"]),
        eps=t["adam_epsilon"],
        fused=t["optim"] == "adamw_torch_fused",
    )
    steps = planned_steps(recipe.trainer, len(draws) // step_size)
    warmup = t["warmup_steps"] if t["warmup_steps"] >= 1 else math.ceil(steps * t["warmup_steps"])
    schedule = get_scheduler(t["lr_scheduler_type"], optimizer, int(warmup), steps)
    whole = model.config.loss_normalization == "batch"
    wrapped, optimizer, loader = accelerator.prepare(model, optimizer, loader)

    losses = []
    for batches in islice(by_step(loader, order, micro), steps):
        # Each loss is a mean over the whole step: what it counts is added up before anything is divided.
        own = torch.tensor([sum(b["counts"][name] for b in batches) for name in COUNTED], device=accelerator.device)
        total = dict(zip(COUNTED, accelerator.reduce(own, "sum").unbind(), strict=True))
        step_loss = torch.zeros((), device=accelerator.device)
        for number, batch in enumerate(batches, 1):
            inputs = {name: value for name, value in batch.items() if name not in ("named", "questions", "dropped")}
            inputs |= {"counts": total} if whole else {}
            with accelerator.autocast():
                loss = wrapped(**inputs)["loss"]
            loss = loss * accelerator.num_processes if whole else loss / micro  # gradients are averaged over processes
            if number < micro:
                with accelerator.no_sync(wrapped):
                    accelerator.backward(loss)
            else:
                accelerator.backward(loss)  # the one that sends gradients round
            step_loss += loss.detach()
        if t["max_grad_norm"]:
            accelerator.clip_grad_norm_(wrapped.parameters(), t["max_grad_norm"])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(accelerator.reduce(step_loss, "mean").item())  # the one wait for the device in a step
        accelerator.print(f"step {len(losses)}/{steps}: loss {losses[-1]:.4f}")

    if accelerator.is_main_process:
        out.mkdir(parents=True, exist_ok=True)
        write_learned(model, out)
        model.config.save_pretrained(out)
        processor.save_pretrained(out)
        base.write(out)
    return losses


def by_step(loader: Any, order: InOrder, micro: int) -> Iterator[list[Any]]:
    """The micro-batches of every optimiser step, epoch after epoch without end."""
    epoch = 0
    while True:
        order.set_epoch(epoch)
        batches = iter(loader)
        while found := list(islice(batches, micro)):
            yield found
        epoch += 1


if __name__ == "__main__":
    name, folder, *settings = sys.argv[1:]
    train(load_recipe(name, settings), Path(folder), open_source)
    leave()
    end_at_once(0)  # a thread of the process group can abort an interpreter that is being taken apart
