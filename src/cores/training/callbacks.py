"""What happens beside the steps: a log on disk, and an end that is always evaluated and saved."""

import json
import math
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from cores.plain_json import dumps
from cores.training.drawing import Draws
from cores.training.folder import LOG


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

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """After an epoch's last step a line with how often each source was drawn in it; before anything is saved."""
        if (
            state.is_world_process_zero
            and state.epoch
            and (state.epoch % 1 == 0 or state.global_step >= state.max_steps)
        ):
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


class EarlyStopping(TrainerCallback):
    """Ends a run after `patience` evaluations without a better gIoU, as transformers' EarlyStoppingCallback does.

    They are counted in the trainer's own log, which its checkpoints keep: a resumed run goes on counting.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A run that ended early and is resumed with no more patience is at its end."""
        control.should_training_stop |= self._is_due(state)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save and end when the best gIoU is `patience` evaluations old."""
        if self._is_due(state):
            control.should_training_stop = control.should_save = True

    def _is_due(self, state: TrainerState) -> bool:
        scores = [line["eval_giou"] for line in state.log_history if "eval_giou" in line]
        return bool(scores) and len(scores) - 1 - scores.index(max(scores)) >= self.patience
