"""What a run says while it trains: what it starts with, a bar, and its figures in lines."""

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import ProgressCallback, TrainerControl, TrainerState, TrainingArguments

from cores.data.sources.base import Source
from cores.errors import DataError
from cores.training.drawing import Draws
from cores.training.folder import LOG
from cores.training.memory import GB, count

LOOKED_AT = 50  # pictures of a source, for how many questions its pictures have
HIDDEN = (
    "epoch", "seconds", "seconds_for_data", "share_for_data", "images_per_second", "questions_per_second",
    "tokens_per_second", "peak_memory_gb", "total_flos", "grad_norm", "learning_rate", "dropped",
)  # fmt: skip


class Progress(ProgressCallback):
    """transformers' bar, with lines that read like figures.

    `parts`: which parts of the model train; `memory`: estimated for each device, in bytes.
    """

    def __init__(self, run: Path, draws: Draws, parts: Sequence[str], memory: float) -> None:
        super().__init__()
        self.run, self.draws, self.parts, self.memory = run, draws, parts, memory
        self.logged = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Say, in the first process, what trains, on what and for how long."""
        if state.is_world_process_zero:
            for line in self._opening(model, args, state):
                sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
        self.logged = state.global_step
        super().on_train_begin(args, state, control, **kwargs)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move the bar on, and say on it when it stands because the model is evaluated."""
        super().on_step_end(args, state, control)
        if self.training_bar is not None and control.should_evaluate:
            self.training_bar.set_description("evaluating")

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take the word off the bar again."""
        super().on_evaluate(args, state, control)
        if self.training_bar is not None:
            self.training_bar.set_description(None)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Write the trainer's figures as a line above the bar."""
        if self.training_bar is not None:
            self.training_bar.write(figures(logs, state.global_step, state.max_steps, state.global_step - self.logged))
            self.logged = state.global_step

    def _opening(self, model: Any, args: TrainingArguments, state: TrainerState) -> list[str]:
        size = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        numbers = [(count(p), p.requires_grad) for p in model.parameters()]
        training = sum(number for number, trains in numbers if trains)
        total = sum(number for number, _ in numbers)
        where = devices(args.device, args.world_size)
        lines = [
            f"{where}, about {self.memory / GB:.1f} GB a device by estimate (docs/memory.md)",
            f"{training:,} of {total:,} parameters train: {', '.join(self.parts)}",
        ]
        if not model.mllm.packs:
            family = model.config.mllm_config.model_type
            lines.append(f"{family} cannot pack: it reads a picture again for each question, right but slower")
        for family, sources in zip(self.draws.mixture.names, self.draws.mixture.sources, strict=True):
            lines += [f"{family}: {source.name}: {contents(source)}" for source in sources]
        epochs = state.max_steps * size / len(self.draws)
        steps = f"{state.max_steps:,} steps of {size} pictures ({epochs:.3g} epochs)"
        if state.global_step:
            steps += f", from step {state.global_step:,} on"
        return [*lines, f"{steps}; log: {self.run / LOG}"]


def devices(device: torch.device, count: int) -> str:
    """What trains, in words. `count`: processes, one a device."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{count} x {name}" if count > 1 else name


def figures(logs: Mapping[str, float], step: int, steps: int, since: int) -> str:
    """One log of the trainer as a line. `steps`: of the run; `since`: steps since the last log, for seconds a step."""
    shown = [
        f"{name.removesuffix('_loss').removeprefix('eval_')} {value:.4g}"
        for name, value in logs.items()
        if name not in HIDDEN and isinstance(value, float | int)
    ]
    if "learning_rate" in logs:
        shown.append(f"rate {logs['learning_rate']:.2g}")
    if logs.get("grad_norm") is not None:
        shown.append(f"gradient {logs['grad_norm']:.3g}")
    if since > 0 and "seconds" in logs:
        waiting = 100 * logs.get("seconds_for_data", 0.0) / max(logs["seconds"], 1e-9)
        shown.append(f"{logs['seconds'] / since:.3g} s a step, {waiting:.0f} % of it for data")
    if logs.get("dropped"):
        shown.append(f"{logs['dropped']:.0f} conversations did not fit")
    evaluated = "evaluation: " if any(name.startswith("eval_") for name in logs) else ""
    return f"step {step:,}/{steps:,}: {evaluated}{', '.join(shown)}"


def contents(source: Source) -> str:
    """How many pictures a source has, and questions: counted where it is small, else by some of its pictures."""
    count = len(source)
    looked = range(count) if count <= LOOKED_AT else [i * count // LOOKED_AT for i in range(LOOKED_AT)]
    asked = [found for i in looked if (found := _questions(source, i)) is not None]
    if not asked:
        return f"{count:,} pictures"
    if len(asked) == count:
        return f"{count:,} pictures, {sum(asked):,} questions"
    return f"{count:,} pictures, about {round(statistics.mean(asked) * count):,} questions"


def _questions(source: Source, i: int) -> int | None:
    try:
        sample = source[i]
    except DataError:  # what is done about it is the mixture's to say
        return None
    return sum(len(conversation.turns) for conversation in sample.conversations)
