"""What happens beside the steps: a log on disk, an end that is always saved, and Ctrl-C that loses nothing."""

import json
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from cores.plain_json import dumps
from cores.training.drawing import Draws
from cores.training.folder import LOG

LAUNCHED = "TORCHELASTIC_RUN_ID"  # torchrun passes a Ctrl-C on that its processes had already; it kills after 30 s


class LogFile(TrainerCallback):
    """One line of JSON in RUN/log.jsonl for every log of the trainer, and for every epoch what was drawn in it."""

    def __init__(self, run: Path, draws: Draws) -> None:
        self.file, self.draws = run / LOG, draws

    def go_on_after(self, step: int) -> None:
        """Forget what a stopped run logged after the checkpoint that it goes on from, and a line it was killed in."""
        if self.file.exists():
            lines = self.file.read_text("utf-8", errors="replace").splitlines()
            kept = [line + "\n" for line in lines if (of := _step(line)) is not None and of <= step]
            part = self.file.with_name(f".{self.file.name}.part")
            part.write_text("".join(kept), encoding="utf-8")
            part.replace(self.file)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        """A line with the step and the trainer's figures, from the first process alone."""
        if state.is_world_process_zero:
            self._write({"step": state.global_step, **logs})

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A line with how often each source was drawn in the epoch."""
        if state.is_world_process_zero and state.epoch:
            epoch = math.ceil(state.epoch) - 1
            drawn = self.draws.mixture.statistics(epoch, range(round((state.epoch - epoch) * len(self.draws))))
            self._write({"step": state.global_step, "epoch": state.epoch, "drawn": drawn})

    def _write(self, line: dict[str, Any]) -> None:
        with self.file.open("a", encoding="utf-8") as file:
            file.write(dumps(line) + "\n")


def _step(line: str) -> int | None:
    """The step that a line of the log is about; None for what is no whole line."""
    try:
        found = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError):
        return None
    return found if isinstance(found, int) else None


class LastStep(TrainerCallback):
    """The last step is evaluated and saved, whatever the strategies say."""

    def __init__(self, evaluates: bool) -> None:
        self.evaluates = evaluates

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """At the run's last step ask for a checkpoint and, where something evaluates, an evaluation."""
        if state.global_step >= state.max_steps:
            control.should_save = True
            control.should_evaluate = self.evaluates

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for neither a second time."""
        if state.global_step >= state.max_steps:  # done at the step's end
            control.should_save = control.should_evaluate = False


class Interruption(TrainerCallback):
    """The first Ctrl-C (or SIGTERM) ends and saves the step at hand; a second one stops at once."""

    def __init__(self) -> None:
        self.asked = False
        self.stopped = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, signals are taken. They come to the main thread only: elsewhere nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self._take) for number in signals]
        try:
            yield
        finally:
            for number, handler in zip(signals, before, strict=True):
                signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            if LAUNCHED not in os.environ:
                raise KeyboardInterrupt
            return
        self.asked = True
        sys.stderr.write("\ninterrupted: this step is finished and saved first; once more stops at once\n")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save and stop when any process was asked to, all of them after the same step."""
        asked = self.asked
        if distributed.is_initialized() and distributed.get_world_size() > 1:  # all stop after the same step
            flag = torch.tensor(float(asked), device=args.device)
            distributed.all_reduce(flag, op=distributed.ReduceOp.MAX)
            asked = bool(flag.item())
        if asked:
            self.stopped = True
            control.should_training_stop = control.should_save = True
            control.should_evaluate = False  # a resumed run begins with it

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Nothing is due at the end of an epoch that was cut short."""
        if self.stopped:  # the epoch has not ended, only our part of it
            control.should_save = control.should_evaluate = False
