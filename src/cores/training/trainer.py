"""transformers' Trainer with the chain's losses in its log, samples in our order, and checkpoints of ours.

Checkpoints hold what was learned (see `checkpoints.runs.learned`), what it was learned on (`base.json`), and the
optimiser's and generators' states; each is written whole or not at all.
"""

import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Sampler
from transformers import Trainer, TrainerControl
from transformers.trainer import SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_callback import DefaultFlowCallback

from cores.checkpoints.find import checkpoints_of
from cores.checkpoints.runs.best import BEST, WRITING, name_best
from cores.checkpoints.runs.learned import masters, read_learned, write_learned
from cores.checkpoints.runs.origin import Base
from cores.errors import RecipeError
from cores.loss_keys import COUNTED, logged
from cores.modeling.model import CoresModel
from cores.modeling.segmenters.base import Features
from cores.processing.batch import Batch
from cores.processing.processor import CoresProcessor
from cores.training.drawing import Draws, InOrder
from cores.training.feature_cache import FeatureCache
from cores.training.finite import Watch
from cores.training.tally import Tally
from cores.whole import open_to_others


class Score(Protocol):
    """What an evaluation found on one rank's share: adds up, and gives figures by name; the best has most `giou`."""

    def __add__(self, other: Self, /) -> Self: ...
    def compute(self) -> Mapping[str, float]: ...


# A model, its processor, a rank and the number of ranks: the score on this rank's share of the questions.
Evaluate = Callable[[CoresModel, CoresProcessor, int, int], Score]


class CoresTrainer(Trainer):
    """A Trainer of one run. `base`: what the run started from; `evaluate`: says which checkpoint is the best; `cache`:
    where the frozen segmenter's features are kept.

    Training raises CheckFailed for a loss or a gradient that is no number, and what the draws raise.
    """

    def __init__(
        self,
        *,
        base: Base,
        processor: CoresProcessor,
        draws: Draws,
        evaluate: Evaluate | None,
        cache: FeatureCache | None = None,
        **kwargs: Any,
    ) -> None:
        self.cache = cache
        self.base, self.processor, self.scorer = base, processor, evaluate
        self.order = InOrder(len(draws))
        self.is_best = False
        self.writing: Path | None = None
        self.saved_step: int | None = None
        self.masters: dict[str, Tensor] | None = None  # in fp32, while DeepSpeed trains rounded copies of them
        self.control: TrainerControl
        super().__init__(train_dataset=draws, eval_dataset=[], **kwargs)
        # True: a step's losses are means over all of it (`_get_num_items_in_batch`); False: over each micro-batch
        self.loss_is_scaled_for_ga = self.model.config.loss_normalization == "batch"
        levels = [level["name"] for level in self.model.config.levels]
        names = logged(levels if self.model.config.location_loss else levels[-1:])
        self.tally, self.watch = Tally(names, self.loss_is_scaled_for_ga), Watch()

    # Samples

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[Any]:
        return self.order

    def _run_epoch(self, *args: Any, epoch: int, **kwargs: Any) -> None:
        if self.state.global_step >= self.state.max_steps:  # a finished run that was resumed
            self.control.should_training_stop = True
            return
        self.order.set_epoch(epoch)
        super()._run_epoch(*args, epoch=epoch, **kwargs)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's, once a step; the seconds that it waits for data are added up for the log."""
        started = time.monotonic()
        found = super().get_batch_samples(*args, **kwargs)
        self.tally.waited += time.monotonic() - started
        self.tally.steps += 1
        self.watch = Watch()
        return found

    # Losses

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> dict[str, Tensor] | None:
        """How many of each of `COUNTED` the whole step has, over its micro-batches and all processes: int64 scalars.

        None where each micro-batch's losses are its own means.
        """
        if not self.loss_is_scaled_for_ga:
            return None
        own = torch.tensor(
            [sum(batch["counts"][name] for batch in batch_samples) for name in COUNTED],
            pin_memory=device.type == "cuda",  # so that the copy waits for nothing
        )
        whole = self.accelerator.reduce(own.to(device, non_blocking=True), "sum")
        return dict(zip(COUNTED, whole.unbind(), strict=True))

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of a micro-batch, a scalar; its parts are added up for the log. A stand-in's mask loss is nothing.

        `num_items_in_batch`: from `_get_num_items_in_batch`. Then the loss is this micro-batch's part of the step's,
        times the number of processes, because the gradients' mean is taken over these.
        """
        named = inputs.pop("named")
        counts = {"questions": inputs.pop("questions"), "dropped": inputs.pop("dropped")}
        counts |= {"images": len(inputs["input_ids"]), "tokens": inputs["counts"]["tokens"]}
        missing = inputs.pop("feature_keys", [])
        if "features" in inputs:
            inputs = {**inputs, "features": Features(**inputs["features"])}
        stand_in = self.is_deepspeed_enabled and not len(inputs["image_index"])
        if num_items_in_batch is not None:
            inputs["counts"] = num_items_in_batch
        outputs = model(**(with_stand_in(inputs) if stand_in else inputs))
        if self.cache is not None and missing and outputs.features is not None:
            self.cache.write(missing, outputs.features)
        loss = outputs["loss"]
        known = {**outputs, **(outputs.get("mask_losses") or {})}
        if stand_in:
            loss = self.model.config.text_weight * outputs["text_loss"] + 0.0 * outputs["mask_loss"]
            known = {"text_loss": outputs["text_loss"]}
        self.tally.add(known, counts, loss.device)
        self.watch.add(loss, named)
        if self.is_deepspeed_enabled and self.accelerator.sync_gradients:  # it takes its step before it says the norm
            self.watch.check(self.accelerator, self.state.global_step + 1)
        if num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the Trainer's, with the figures of `Tally`."""
        if "train_runtime" in logs and self.state.global_step == self._initial_global_step:
            return  # nothing was trained
        if "loss" in logs and self.tally.steps:
            logs |= self.tally.take(self.accelerator)
        super().log(logs, start_time)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """As the Trainer's. Raises CheckFailed, before the step, for a loss or gradient that is no number."""
        found = super()._get_grad_norm(model, grad_norm)
        self.watch.check(self.accelerator, self.state.global_step + 1, found)
        return found

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the Trainer's formula knows nothing of segmenters."""
        return 0

    # Evaluation

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score the model, all ranks a share each; figures by name, such as `eval_giou`, a fraction of 1."""
        assert self.scorer is not None
        with self.accelerator.autocast():
            score = self.scorer(self.model, self.processor, self.args.process_index, self.args.world_size)
        total, *others = gather_object([score]) if self.args.world_size > 1 else [score]
        for other in others:
            total = total + other
        metrics = {f"eval_{name}": float(value) for name, value in total.compute().items()}
        self.log({name: value for name, value in metrics.items() if math.isfinite(value)})  # nan: nothing to count
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """The best has the highest gIoU; it is saved when it is found."""
        best = self.state.best_metric
        self.is_best = metrics["eval_giou"] > (float("-inf") if best is None else best)
        if self.is_best:
            self.state.best_metric = metrics["eval_giou"]
            self.control.should_save = True
        return self.is_best

    def _owes_evaluation(self) -> bool:
        """Was the run stopped after a step that is to be evaluated, before it was?"""
        if self.scorer is None or self.state.global_step == 0:
            return False
        flow, asked = DefaultFlowCallback(), TrainerControl()
        flow.on_step_end(self.args, self.state, asked)
        if float(self.state.epoch or 0.5).is_integer():
            flow.on_epoch_end(self.args, self.state, asked)
        if not (asked.should_evaluate or self.state.global_step >= self.state.max_steps):
            return False
        evaluated = {line["step"] for line in self.state.log_history if any(key.startswith("eval_") for key in line)}
        return self.state.global_step not in evaluated

    # Checkpoints

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
        read_learned(self.model, Path(resume_from_checkpoint))

    # DeepSpeed writes and reads its own folder beside ours: what is frozen stays out of it.

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_deepspeed_enabled:
            self.model_wrapped.save_checkpoint(output_dir, exclude_frozen_parameters=True)
            if self.args.should_save:
                torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)
        else:
            super()._save_optimizer_and_scheduler(output_dir)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's. Raises RecipeError for what `trainer.optim` says and cannot be had."""
        with said_as("trainer.optim"):
            return super().create_optimizer(*args, **kwargs)

    def create_scheduler(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's. Raises RecipeError for what `trainer.lr_scheduler_type` says and cannot be had."""
        with said_as("trainer.lr_scheduler_type"):
            return super().create_scheduler(*args, **kwargs)

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: Any) -> Any:
        if not (self.is_deepspeed_enabled and resume_from_checkpoint):
            prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        else:
            prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
            self.model_wrapped.load_checkpoint(resume_from_checkpoint, load_module_strict=False)
            self._load_optimizer_and_scheduler(resume_from_checkpoint)
        if resume_from_checkpoint:
            self._set_rates()
            self.saved_step = self.state.global_step
            if self._owes_evaluation():
                self._determine_best_metric(self.evaluate(), None)
                self._save_checkpoint(prepared[0], None)
        return prepared

    def _set_rates(self) -> None:
        """Rates by the schedule as it is now: a run that goes on for longer has another than its checkpoint's."""
        schedule = self.lr_scheduler
        if isinstance(schedule, LambdaLR):
            groups = zip(schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True)
            for group, rate, share in groups:
                group["lr"] = rate * share(schedule.last_epoch)
            schedule._last_lr = [group["lr"] for group in schedule.optimizer.param_groups]


@contextmanager
def said_as(key: str) -> Iterator[None]:
    """Inside, transformers takes an argument. Raises RecipeError, beginning with `key`, for what it says about it."""
    try:
        yield
    except (TypeError, ValueError, LookupError, ImportError, RuntimeError) as error:
        raise RecipeError(f"{key}: {' '.join(str(error).split())}") from None


def with_stand_in(batch: Batch) -> Batch:
    """A batch without masks with an empty one, at the first token, so that all ranks run the same graph.

    ZeRO-2 puts gradients into its buckets in the order in which they come, and adds the buckets of all ranks up: a
    rank that runs another graph than the others mixes the gradients of different weights, in silence.
    """
    positions, size = batch["token_positions"], batch["sizes"][0]
    return {
        **batch,
        "token_positions": positions.new_zeros((positions.shape[0], 1)),
        "image_index": batch["image_index"].new_zeros(1),
        "truth": [torch.zeros(size, dtype=torch.bool, device=positions.device)],
        "location_truth": [None],
        "rows": [0],
    }
