"""transformers' Trainer with the chain's losses in its log, samples in our order, and evaluations of masks.

Its checkpoints are in `saving`.
"""

import functools
import math
import operator
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Sampler
from transformers import TrainerControl
from transformers.trainer_callback import DefaultFlowCallback

from cores.checkpoints.runs.origin import Base
from cores.errors import RecipeError
from cores.loss_keys import COUNTED, logged
from cores.modeling.model import CoresModel
from cores.modeling.segmenters.base import Features
from cores.processing.batch import Batch
from cores.processing.processor import CoresProcessor
from cores.training import sharding, zero3
from cores.training.drawing import Draws, InOrder
from cores.training.finite import Watch
from cores.training.interruption import ignore_signals
from cores.training.kept import Caches, complete, is_missing
from cores.training.lockstep import Lockstep
from cores.training.saving import Saving
from cores.training.sharding import is_sharded
from cores.training.tally import Tally
from cores.training.zero3 import is_zero3

T = TypeVar("T")


class Score(Protocol):
    """What an evaluation found on one rank's share: adds up, and gives figures by name; the best has most `giou`."""

    def __add__(self, other: Self, /) -> Self: ...
    def compute(self) -> Mapping[str, float]: ...


# A model, its processor, a rank and the number of ranks: the score on this rank's share of the questions; None when it
# was told to stop before it had one.
Evaluate = Callable[[CoresModel, CoresProcessor, int, int], Score | None]


class CoresTrainer(Saving):
    """A Trainer of one run. `base`: what the run started from; `evaluate`: says which checkpoint is the best;
    `stopped`: was the run told to stop (see `Lockstep`); `caches`: where frozen encoders' features are kept.

    Training raises CheckFailed for a loss or a gradient that is no number, and what the draws raise.
    """

    def __init__(
        self,
        *,
        base: Base,
        processor: CoresProcessor,
        draws: Draws,
        evaluate: Evaluate | None,
        stopped: Callable[[], bool] = lambda: False,
        caches: Caches | None = None,
        **kwargs: Any,
    ) -> None:
        self.caches = caches or {}
        self.base, self.processor, self.scorer = base, processor, evaluate
        self.order = InOrder(len(draws))
        self.control: TrainerControl
        self.sharded = is_sharded(kwargs["model"])  # by FSDP2
        super().__init__(train_dataset=draws, eval_dataset=[], **kwargs)
        # The Trainer's own name for a model that is placed and cut already. It is said after its beginning, where it
        # would refuse to save such a model: that is done below.
        self.is_distributed_loading_by_transformers = self.sharded
        self.zero3 = is_zero3(self.args)
        self.lockstep: Lockstep | None = None
        if self.sharded or self.zero3:
            whole = sharding.held if self.sharded else zero3.held
            self.lockstep = Lockstep(list(sharding.units(self.model)), whole, stopped)
        # True: a step's losses are means over all of it (`_get_num_items_in_batch`); False: over each micro-batch
        self.loss_is_scaled_for_ga = self.model.config.loss_normalization == "batch"
        levels = [level["name"] for level in self.model.config.levels]
        names = logged(levels if self.model.config.location_loss else levels[-1:])
        self.tally, self.watch = Tally(names, self.loss_is_scaled_for_ga), Watch()

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        if not self.sharded:  # else it is there already
            super()._move_model_to_device(model, device)

    # Samples

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[Any]:
        return self.order

    def get_train_dataloader(self) -> Any:
        """As the Trainer's, whose workers leave signals to this process."""
        found = super().get_train_dataloader()
        loader = getattr(found, "base_dataloader", found)  # which accelerate has wrapped
        loader.worker_init_fn = partial(ignore_signals, loader.worker_init_fn)
        return found

    def _run_epoch(self, *args: Any, epoch: int, **kwargs: Any) -> None:
        self.control.should_training_stop |= self.state.global_step >= self.state.max_steps
        if self.control.should_training_stop:  # a finished run that was resumed
            return
        self.order.set_epoch(epoch)
        if kwargs["resume_from_checkpoint"] and epoch == kwargs["epochs_trained"]:
            self._go_on_with_log(Path(kwargs["resume_from_checkpoint"]))
        super()._run_epoch(*args, epoch=epoch, **kwargs)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's, once a step; the seconds that it waits for data are added up for the log."""
        started = time.monotonic()
        found = super().get_batch_samples(*args, **kwargs)
        self.tally.waited += time.monotonic() - started
        self.tally.steps += 1
        self.watch = Watch()
        if self.caches:
            self._encode_missing(found[0])
        return found

    def _encode_missing(self, batches: list[Any]) -> None:
        """Give a step's batches the features of all their pictures.

        Before the step begins, since FSDP2 cannot go through a frozen encoder between the forwards of one. Where the
        model is cut all ranks gather the encoder for those that have a picture to encode.
        """

        def work() -> None:
            for batch in batches:
                complete(batch, self.caches, self.model, self._prepare_input, self._one_graph)

        missing = is_missing(batches)
        with self.accelerator.autocast():
            if self.lockstep is not None and self.lockstep.anybody(missing):
                self._each_its_own(work)
            else:
                work()

    @property
    def _one_graph(self) -> bool:
        """Do all ranks have to run the same graph (see `with_stand_in`)?"""
        return self.is_deepspeed_enabled or self.sharded

    # Losses

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> dict[str, Tensor] | None:
        """How many of each of `COUNTED` the whole step has, over its micro-batches and all processes: int64 scalars.

        None where each micro-batch's losses are its own means. Raises the DataError of a batch that could not be made.
        """
        for batch in batch_samples:
            if "error" in batch:
                raise batch["error"]
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
        named, figures = inputs.pop("named"), inputs.pop("figures", {})
        counts = {"questions": inputs.pop("questions"), "dropped": inputs.pop("dropped")}
        counts |= {"images": len(inputs["input_ids"]), "tokens": inputs["counts"]["tokens"]}
        one_graph = self._one_graph
        if "features" in inputs:
            inputs = {**inputs, "features": Features(**inputs["features"])}
        stand_in = one_graph and not len(inputs["image_index"])
        if num_items_in_batch is not None:
            inputs["counts"] = num_items_in_batch
        outputs = model(**(with_stand_in(inputs) if stand_in else inputs))
        loss = outputs["loss"]
        known = {**outputs, **(outputs.get("mask_losses") or {}), **figures}
        if one_graph:  # ZeRO-3 runs a module backward once for each output that is used: the same two on all ranks
            weights = self.model.config
            mask_weight = 0.0 if stand_in else weights.mask_weight
            loss = weights.text_weight * outputs["text_loss"] + mask_weight * outputs["mask_loss"]
        if stand_in:
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
        if "train_runtime" in logs:
            return  # figures since the run was resumed last: none of the run
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
        """Score the model, all ranks a share each; figures by name, such as `eval_giou`, a fraction of 1.

        There are none when a rank was told to stop before it had finished: a resumed run begins with this evaluation.
        """
        assert self.scorer is not None
        ask = partial(self.scorer, self.model, self.processor, self.args.process_index, self.args.world_size)
        with self.accelerator.autocast():
            score = self._each_its_own(ask)
        scores = gather_object([score]) if self.args.world_size > 1 else [score]
        found = [one for one in scores if one is not None]
        metrics = {}
        if len(found) == len(scores):
            figures = functools.reduce(operator.add, found).compute()
            metrics = {f"eval_{name}": float(value) for name, value in figures.items()}
            self.log({name: value for name, value in metrics.items() if math.isfinite(value)})  # nan: nothing to count
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _each_its_own(self, work: Callable[[], T]) -> T:
        """What `work` gives, which each rank does with the model as often as it likes; all ranks call this."""
        if self.lockstep is None:
            return work()
        run = partial(self.lockstep.run, work)
        if self.sharded:
            return sharding.as_forward(self.model, run)
        with zero3.by_hand(self.model, self.model_wrapped):
            return run()

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """The best has the highest gIoU; it is saved when it is found."""
        best = self.state.best_metric
        self.is_best = metrics.get("eval_giou", -math.inf) > (-math.inf if best is None else best)
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

    @contextmanager
    def _defer_fsdp_gradient_reduction(self) -> Iterator[None]:
        """As the Trainer's, which reads a setting that only its own loading leaves in the config."""
        self.model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.model.set_requires_gradient_sync(True)

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
    rank that runs another graph than the others mixes the gradients of different weights, in silence. Under ZeRO-3
    and FSDP2 all ranks wait for each other at every layer.
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
