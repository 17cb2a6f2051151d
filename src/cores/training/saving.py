"""Checkpoints of a Trainer: written whole or not at all, read again on any way of splitting the work.

They hold what was learned (see `checkpoints.runs.learned`), what it was learned on (`base.json`), and the optimiser's
and generators' states.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer
from transformers.trainer import SCHEDULER_NAME, TRAINER_STATE_NAME

from cores.checkpoints.find import checkpoints_of
from cores.checkpoints.runs.best import BEST, WRITING, name_best
from cores.checkpoints.runs.learned import masters, read_learned, write_learned
from cores.checkpoints.runs.origin import Base
from cores.plain_json import dumps
from cores.processing.processor import CoresProcessor
from cores.training.sharding import gather, read_state, write_state
from cores.training.tally import Tally
from cores.whole import open_to_others


class Saving(Trainer):
    """The part of our Trainer that writes and reads checkpoints.

    `sharded`: is the model cut by FSDP2; `is_best`: the next checkpoint is the best so far; `saved_step`: of the last
    one; `writing`: the folder that it is written into.
    """

    base: Base
    processor: CoresProcessor
    tally: Tally
    sharded: bool
    is_best: bool = False
    writing: Path | None = None
    saved_step: int | None = None
    masters: dict[str, Tensor] | None = None  # in fp32, while DeepSpeed trains rounded copies; whole, under FSDP2

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.writing or self.args.output_dir)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Everything goes into a folder of its own first; it becomes `checkpoint-N` when all ranks are done.

        A step that is saved already (at its own end, before its epoch's end is evaluated) only gets its state anew.
        """
        run, name = Path(self.args.output_dir), f"checkpoint-{self.state.global_step}"
        if self.saved_step != self.state.global_step:
            self._write_checkpoint(model, trial, run, name)
            self.saved_step = self.state.global_step
        elif self.args.should_save:
            (run / WRITING).mkdir(exist_ok=True)
            self.state.save_to_json(str(run / WRITING / TRAINER_STATE_NAME))
            (run / WRITING / TRAINER_STATE_NAME).replace(run / name / TRAINER_STATE_NAME)
        if self.args.should_save:
            if self.is_best:
                name_best(run, run / name)
            self._remove_old(run)
            shutil.rmtree(run / WRITING)
        self.is_best = False
        self.accelerator.wait_for_everyone()

    def _write_checkpoint(self, model: nn.Module, trial: Any, run: Path, name: str) -> None:
        if self.is_deepspeed_enabled:
            self.masters = masters(self.model)
        elif self.sharded:
            self.masters = gather(self.model)
        self.writing = run / WRITING
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.writing = self.masters = None
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            for script in (run / WRITING / name).glob("*.py"):
                script.unlink()  # DeepSpeed's, to be run on trust: `cores merge` and `load` need none
            open_to_others(run / WRITING / name)
            (run / WRITING / name).rename(run / name)

    def _remove_old(self, run: Path) -> None:
        """Keep the last so many checkpoints, and the best. One that goes is out of sight before it is taken apart."""
        if self.args.save_total_limit:
            best = (run / BEST).resolve()
            for old in checkpoints_of(run)[: -self.args.save_total_limit]:
                if old.resolve() != best:
                    old.rename(run / WRITING / old.name)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            write_learned(self.model, folder, self.masters)
            self.model.config.save_pretrained(folder)
            self.processor.save_pretrained(folder)
            self.base.write(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if not self.sharded:  # else read with the optimiser's state, each rank its pieces
            read_learned(self.model, Path(resume_from_checkpoint))

    # DeepSpeed and FSDP2 write and read folders beside our files: what is frozen stays out of them.

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_deepspeed_enabled:
            self.model_wrapped.save_checkpoint(output_dir, exclude_frozen_parameters=True)
        elif self.sharded:
            write_state(self.model, self.optimizer.optimizer, Path(output_dir))
        else:
            super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save and (self.is_deepspeed_enabled or self.sharded):
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.sharded and checkpoint is not None:
            read_state(self.model, self.optimizer.optimizer, Path(checkpoint))
            self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))
        else:
            super()._load_optimizer_and_scheduler(checkpoint)

    # A checkpoint between two logs keeps what has been added up: a resumed run logs the means of whole intervals.

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if self.tally.steps:
            sums = {"since": self._globalstep_last_logged, "loss": float(self._tr_loss), **self.tally.state()}
            self._sums_file(Path(output_dir)).write_text(dumps(sums), encoding="utf-8")

    def _go_on_with_log(self, checkpoint: Path) -> None:
        file = self._sums_file(checkpoint)
        sums = json.loads(file.read_text("utf-8")) if file.exists() else {}
        if sums.get("since") == max((line["step"] for line in self.state.log_history if "loss" in line), default=0):
            self._globalstep_last_logged = sums["since"]
            self._tr_loss.fill_(sums["loss"])
            self.tally.go_on(sums, self.args.device)

    def _sums_file(self, checkpoint: Path) -> Path:
        return checkpoint / f"log_sums_{self.args.process_index}.json"
