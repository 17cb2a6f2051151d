"""The loop that all stages of pretraining share: a rate that rises and falls, a state to go on from."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cores.whole import whole_file

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When a stage learns how fast, in optimiser steps.

    `steps` of the whole stage; `peak` of the learning rate, after `warmup` steps; `fall`: the share of the steps in
    which it falls to 0; `every` so many steps the stage is measured and saved.
    """

    steps: int
    peak: float
    warmup: int
    fall: float
    every: int

    def rate(self, number: int) -> float:
        """The learning rate of a step, counted from 0."""
        rising, falling = (number + 1) / self.warmup, (self.steps - number) / (self.fall * self.steps)
        return self.peak * min(1.0, rising) * min(1.0, falling)


def run(
    state: Path,
    modules: Mapping[str, nn.Module],
    weights: Iterable[nn.Parameter],
    schedule: Schedule,
    loss_of: Callable[[int], Tensor],
    measure: Callable[[], dict[str, float]],
) -> None:
    """Train `weights` with AdamW and write `state`: the modules by name, the optimiser, the step.

    A state that is there is gone on from. `loss_of` gives the scalar loss of a step's number, which alone decides its
    batch, so that a stopped run draws what an uninterrupted one would have drawn. `measure` gives figures for the log.
    """
    weights = list(weights)
    optimiser = torch.optim.AdamW(weights, lr=schedule.peak, betas=(0.9, 0.98), weight_decay=0.02)
    first = 0
    if state.exists():
        kept = torch.load(state, weights_only=True)
        for name, module in modules.items():
            module.load_state_dict(kept[name])
        optimiser.load_state_dict(kept["optimiser"])
        first = kept["step"]
    started = time.monotonic()
    for number in range(first, schedule.steps):
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(number)
        loss = loss_of(number)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        if (number + 1) % schedule.every == 0 or number + 1 == schedule.steps:
            found = {name: round(value, 3) for name, value in measure().items()}
            seconds = time.monotonic() - started
            log.info("%s step %d loss %.3f %s %.0f s", state.stem, number + 1, loss.item(), found, seconds)
            kept = {name: module.state_dict() for name, module in modules.items()}
            with whole_file(state) as part:  # a run that is stopped while it saves keeps the state before
                torch.save(kept | {"optimiser": optimiser.state_dict(), "step": number + 1}, part)
