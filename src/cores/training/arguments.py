"""transformers' TrainingArguments of a recipe, and what cores says itself."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import str_to_bool
from torch import distributed
from transformers import TrainingArguments
from transformers.integrations import get_available_reporting_integrations

from cores.errors import RecipeError
from cores.recipe import Recipe
from cores.trainer_section import DEFAULTS, FSDP2, NO_FSDP1
from cores.training.quantizing import check_quantize
from cores.training.zero3 import is_zero3

# `trainer.deepspeed: zero2` or `zero3` is this; a path or a mapping of DeepSpeed's own is taken as it is.
STAGES = {"zero2": 2, "zero3": 3}
ZERO: dict[str, Any] = {
    "zero_optimization": {"contiguous_gradients": True, "overlap_comm": True},
    "bf16": {"enabled": "auto"},
    "fp16": {"enabled": "auto"},
    "gradient_clipping": "auto",
    "gradient_accumulation_steps": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "train_batch_size": "auto",
    "zero_allow_untested_optimizer": True,
}


def training_arguments(
    recipe: Recipe, out: Path, *, device: str | None = None, evaluates: bool = False, quiet: bool = False
) -> TrainingArguments:
    """The arguments of a run; under torchrun this joins the other processes.

    Args: `device`: cpu or cuda, None takes CUDA where there is one; `evaluates`: without it nothing is evaluated,
    whatever the recipe says; `quiet`: no bar.
    Raises RecipeError for values that transformers refuses, and for devices and libraries that are not here.
    """
    cuda = torch.cuda.is_available()
    if device not in (None, "cpu", "cuda"):
        raise RecipeError(f"--device {device}: take cpu or cuda; choose among GPUs with CUDA_VISIBLE_DEVICES=1")
    if device == "cuda" and not cuda:
        raise RecipeError("--device cuda: there is no CUDA device here; `cores env` says what there is")
    use_cpu = device == "cpu" or not cuda
    check_quantize(recipe, use_cpu)
    values: dict[str, Any] = {
        **DEFAULTS,
        **recipe.trainer,
        "output_dir": str(out),
        "use_cpu": use_cpu,
        "disable_tqdm": quiet,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "logging_nan_inf_filter": False,  # would wait for every loss; one that is no number ends the run
    }
    sharded = values.pop("fsdp", None) == FSDP2  # done by `sharding`, before the Trainer gets the model
    values.setdefault("dataloader_pin_memory", not use_cpu)
    if values["dataloader_pin_memory"]:  # a batch is copied while the last step is computed
        values.setdefault("accelerator_config", {"non_blocking": True})
    if not evaluates:
        values |= {"eval_strategy": "no", "eval_on_start": False}
    if use_cpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed, where it is installed, need not look for others
    if values.get("deepspeed"):
        if find_spec("deepspeed") is None:
            raise RecipeError("trainer.deepspeed: DeepSpeed is not installed: pip install 'cores[deepspeed]'")
        if stage := STAGES.get(str(values["deepspeed"])):
            values["deepspeed"] = {**ZERO, "zero_optimization": {**ZERO["zero_optimization"], "stage": stage}}
    try:
        arguments = TrainingArguments(**values)
    except (ValueError, TypeError, LookupError, OSError, ImportError, RuntimeError) as error:
        raise RecipeError(f"trainer: {' '.join(str(error).split())}") from None
    _refuse(arguments, recipe)
    if sharded and not distributed.is_initialized():
        raise RecipeError("trainer.fsdp: is for several processes: start with `torchrun --nproc-per-node N -m cores`")
    arguments._n_gpu = min(arguments.n_gpu, 1)  # one process a GPU (torchrun); DataParallel cannot split our batches
    return arguments


def _refuse(arguments: TrainingArguments, recipe: Recipe) -> None:
    """Raise RecipeError for what would not do what it says, and for libraries that are not here."""
    if arguments.fsdp or str_to_bool(os.environ.get("ACCELERATE_USE_FSDP", "false")):
        raise RecipeError(f"trainer.fsdp: {NO_FSDP1}")
    if is_zero3(arguments) and recipe.model.dtype == "bfloat16" and not arguments.bf16:
        raise RecipeError(
            "trainer.deepspeed: ZeRO-3 wants weights of one dtype: with model.dtype=bfloat16 set trainer.bf16=true"
        )
    here = get_available_reporting_integrations()
    for name in arguments.report_to:
        if name not in here:
            raise RecipeError(
                f"trainer.report_to: {name} is not installed: pip install {name}, or set trainer.report_to=none; "
                "RUN/log.jsonl has every figure anyway"
            )
