"""A loss or a gradient that is no number ends the run on all processes before the optimiser's step.

Each micro-batch only leaves a flag on the device; all flags of a step are read at once, when its gradient is known.
"""

import math
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from cores.errors import CheckFailed
from cores.training.ranks import together

NAMED = 32  # samples that an error names; of a larger batch it says how many more there were


class Watch:
    """The losses of one step's micro-batches, and the names of their samples."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.named: list[list[str]] = []

    def add(self, loss: Tensor, named: list[str]) -> None:
        """A micro-batch's loss, a scalar, and what its samples are called."""
        self.losses.append(loss.detach())
        self.named.append(named)

    def check(self, accelerator: Accelerator, step: int, norm: Any = None) -> None:
        """Look at the losses and, where it is known, at the gradient's norm, which is the same on all processes.

        All processes call this. A gradient that is no number is left to the loss scaler of fp16 as long as it has
        room. Raises CheckFailed in the first process, SystemExit in the others.
        """
        losses = torch.stack(self.losses)  # (micro-batches,)
        whole = getattr(norm, "full_tensor", lambda: norm)()
        norm = torch.as_tensor(0.0 if whole is None else whole, dtype=torch.float32, device=losses.device)
        found = accelerator.reduce((~losses.isfinite()).sum().float(), "sum")
        wrong, size = torch.stack([found, norm]).tolist()
        if not wrong and (math.isfinite(size) or is_scaled(accelerator)):
            return
        own = [names for names, loss in zip(self.named, losses.tolist(), strict=True) if not math.isfinite(loss)]
        named = gather_object(sum(own if wrong else self.named, []))
        what = "the loss is no number" if math.isfinite(size) else f"the gradient is {size}"
        origin = "The loss is no number for" if wrong else "The step's samples"
        more = f"; and {len(named) - NAMED} more" if len(named) > NAMED else ""
        with together():
            raise CheckFailed(
                f"step {step}: {what}; the step was not taken. {origin}: {'; '.join(named[:NAMED])}{more}. "
                "Go on from the last checkpoint with --resume, with a smaller trainer.learning_rate or in float32"
            )


def is_scaled(accelerator: Accelerator) -> bool:
    """Does a loss scaler take care of gradients that are no numbers? One that has scaled down below 1 does no more."""
    scaler = accelerator.scaler
    if scaler is None:
        return bool(accelerator.mixed_precision == "fp16")  # DeepSpeed's own, which ends the run itself
    return bool(scaler.get_scale() >= 1)
