"""What a log says of the steps since the last one: means of the losses, how fast it goes, what it waits for.

Losses stay on the device and everything else is a plain number, so that nothing waits before a line is written.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from cores import process_memory

GB = 1e9
COUNTS = ("images", "questions", "tokens")  # of these the log says how many a second


class Tally:
    """Sums of this process since the last log. `names`: of the losses; `waited`: seconds for data, add to it.

    `steps`: of the optimiser that were begun, add to it; `shared`: does a step's loss add up over its micro-batches
    and processes (`loss_normalization: batch`), or is it their mean?
    """

    def __init__(self, names: Sequence[str], shared: bool) -> None:
        self.names, self.shared = list(names), shared
        self._begin()

    def _begin(self) -> None:
        self.losses: Tensor | None = None
        self.steps, self.waited, self.since = 0, 0.0, time.monotonic()
        self.counts = dict.fromkeys(("batches", *COUNTS, "dropped"), 0)

    def add(self, losses: Mapping[str, Any], counts: Mapping[str, int], device: torch.device) -> None:
        """A micro-batch. `losses`: scalars by name, those it lacks count as 0; `counts`: images, questions, ..."""
        found = [losses.get(name) for name in self.names]
        nothing = torch.zeros((), device=device)
        own = torch.stack([nothing if loss is None else loss.detach().float() for loss in found])
        self.losses = own if self.losses is None else self.losses + own
        for name, number in counts.items():
            self.counts[name] += number
        self.counts["batches"] += 1

    def take(self, accelerator: Accelerator) -> dict[str, float]:
        """The log's figures over all processes, which all call this; the sums begin anew."""
        assert self.losses is not None
        seconds = time.monotonic() - self.since
        plain = torch.tensor([*self.counts.values(), self.waited, 1.0], device=self.losses.device)
        *sums, waited, processes = accelerator.reduce(torch.cat([self.losses, plain]), "sum").tolist()
        peak = accelerator.gather(torch.tensor([peak_memory(self.losses.device)], device=self.losses.device))
        losses = sums[: len(self.names)]
        counts = dict(zip(self.counts, sums[len(self.names) :], strict=True))
        parts = self.steps if self.shared else counts["batches"]
        waited /= processes
        found = {name: loss / parts for name, loss in zip(self.names, losses, strict=True)}
        found |= {"dropped": counts["dropped"], "seconds": seconds, "seconds_for_data": waited}
        found |= {f"{name}_per_second": counts[name] / seconds for name in COUNTS}
        found |= {"share_for_data": waited / seconds, "peak_memory_gb": float(peak.max()) / GB}
        self._begin()
        return found

    def state(self) -> dict[str, Any]:
        """The sums as plain values, for a checkpoint between two logs."""
        losses = None if self.losses is None else self.losses.tolist()
        seconds = time.monotonic() - self.since
        return {
            "losses": losses,
            "counts": self.counts,
            "steps": self.steps,
            "waited": self.waited,
            "seconds": seconds,
        }

    def go_on(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Begin with the sums of a checkpoint."""
        self.losses = None if state["losses"] is None else torch.tensor(state["losses"], device=device)
        self.counts, self.steps, self.waited = dict(state["counts"]), state["steps"], state["waited"]
        self.since = time.monotonic() - state["seconds"]


def peak_memory(device: torch.device) -> int:
    """Most bytes that this process has held at once: on a GPU of tensors there, else of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return process_memory.peak_memory()
