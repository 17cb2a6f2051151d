"""A recipe's `trainer`: transformers' TrainingArguments, typed by the installed library's source, and bounded.

No torch: importing the library would load it, so names, types and values of enumerations are read off its files.
"""

import ast
import math
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args

from cores.typed_yaml import describe, fits, nearest

# TrainingArguments that cores sets itself, and what to use in their place.
OWNED = {
    "output_dir": "--out",
    "resume_from_checkpoint": "--resume",
    "use_cpu": "--device cpu",
    "disable_tqdm": "--quiet",
    "load_best_model_at_end": "nothing: the best checkpoint is kept in best/",
    "metric_for_best_model": "nothing: the best is by gIoU",
    "greater_is_better": "nothing: the best is by gIoU",
    "train_sampling_strategy": "data.rates",
    "ignore_data_skip": "nothing: a resumed run goes on with the sample that comes next",
    "auto_find_batch_size": "per_device_train_batch_size",
    "remove_unused_columns": "nothing: there are no columns",
    "label_names": "nothing: batches are the processor's",
    "logging_nan_inf_filter": "nothing: a loss that is no number ends the run",
}
FSDP2 = "fsdp2"
NO_FSDP1 = f"only FSDP2 is taken, not FSDP1 nor settings of its own: say trainer.fsdp={FSDP2}"
# Optimisers that work on each number by itself, or on pieces of tensors as on whole ones.
FSDP2_OPTIMISERS = ("adamw_torch", "adamw_torch_fused", "sgd", "adagrad", "rmsprop")
# What cores sets where a recipe says nothing.
DEFAULTS = {
    "report_to": "tensorboard" if find_spec("tensorboard") else "none",
    "save_total_limit": 2,
    "ddp_find_unused_parameters": True,  # a mask decoder has outputs that no loss reads
}
FILES = ("training_args.py", "trainer_utils.py", "debug_utils.py")
PLAIN = {"int": int, "float": float, "str": str, "bool": bool, "dict": dict[str, Any], "Any": Any}

AT_LEAST_0, AT_LEAST_1, ABOVE_0 = "at least 0", "at least 1", "more than 0"
SHARE, SEED = "at least 0 and below 1", "at least 0 and below 2^32"
HOLDS = {
    AT_LEAST_0: lambda value: value >= 0,
    AT_LEAST_1: lambda value: value >= 1,
    ABOVE_0: lambda value: value > 0,
    SHARE: lambda value: 0 <= value < 1,
    SEED: lambda value: 0 <= value < 2**32,
}
BOUNDS = {
    **dict.fromkeys(
        ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "ddp_timeout",
         "save_total_limit", "torch_empty_cache_steps", "eval_accumulation_steps", "dataloader_prefetch_factor",
         "ddp_bucket_cap_mb"), AT_LEAST_1),
    **dict.fromkeys(
        ("learning_rate", "num_train_epochs", "adam_epsilon", "logging_steps", "eval_steps", "save_steps"), ABOVE_0),
    **dict.fromkeys(
        ("weight_decay", "warmup_steps", "max_grad_norm", "dataloader_num_workers", "eval_delay",
         "neftune_noise_alpha"), AT_LEAST_0),
    **dict.fromkeys(("seed", "data_seed"), SEED),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "label_smoothing_factor"), SHARE),
}  # fmt: skip
WHOLE_OR_SHARE = ("logging_steps", "eval_steps", "save_steps")
BY_LOSS = ("reduce_lr_on_plateau", "greedy")


def problems(values: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a trainer's section, each in a line."""
    known = trainer_arguments()
    for key, value in values.items():
        if key in OWNED:
            yield f"trainer.{key} is set by cores: use {OWNED[key]}"
        elif key not in known:
            yield f"there is no trainer.{key}{nearest(key, known)}"
        elif not fits(value, known[key]):
            hint = nearest(value, get_args(known[key])) if isinstance(value, str) and _is_choice(known[key]) else ""
            yield f"trainer.{key}: found {value!r}, expected {describe(known[key])}{hint}"
        elif isinstance(value, float | int) and not isinstance(value, bool):
            yield from _number(key, value)
    yield from _contradictions({key: value for key, value in values.items() if fits(value, known.get(key, Any))})


@cache
def trainer_arguments() -> dict[str, Any]:
    """The names of transformers' TrainingArguments with their types; an enumeration is a Literal of its values."""
    package = find_spec("transformers")
    assert package is not None
    assert package.origin is not None
    trees = [ast.parse(Path(package.origin).with_name(file).read_text("utf-8")) for file in FILES]
    classes = {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}
    return {
        node.target.id: _type(node.annotation, classes)
        for node in classes["TrainingArguments"].body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def _type(node: ast.expr, classes: dict[str, ast.ClassDef]) -> Any:
    """The type that an annotation means. A class of the library's own, which YAML cannot hold, is no type at all."""
    if isinstance(node, ast.Constant) and node.value is None:
        return NoneType
    if isinstance(node, ast.Name):
        if node.id in PLAIN:
            return PLAIN[node.id]
        values = _values(classes[node.id]) if node.id in classes else ()
        return Literal[values] if values else NoneType
    if isinstance(node, ast.BinOp):
        members = [_type(node.left, classes), _type(node.right, classes)]
        if isinstance(node.left, ast.Name) and node.left.id in classes and members[1] is str:
            return members[0]  # an enumeration or the text of one of its members
        return Union[tuple(members)]  # noqa: UP007
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if node.value.id == "Literal":
            return Literal[tuple(one.value for one in inner if isinstance(one, ast.Constant))]
        types = [_type(one, classes) for one in inner]
        return list[types[0]] if node.value.id == "list" else dict[types[0], types[1]]  # type: ignore[valid-type]
    return Any


def _values(enumeration: ast.ClassDef) -> tuple[str, ...]:
    return tuple(
        node.value.value
        for node in enumeration.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )


def _is_choice(hint: Any) -> bool:
    return bool(get_args(hint)) and not isinstance(hint, UnionType) and all(isinstance(v, str) for v in get_args(hint))


def _number(key: str, value: float) -> Iterator[str]:
    if not math.isfinite(value):
        yield f"trainer.{key}: found {value}, expected a finite number"
    elif key == "max_steps" and value < 1 and value != -1:
        yield f"trainer.max_steps: found {value}, expected at least 1, or -1 for num_train_epochs"
    elif key in BOUNDS and not HOLDS[BOUNDS[key]](value):
        yield f"trainer.{key}: found {value}, expected {BOUNDS[key]}"
    elif key in WHOLE_OR_SHARE and value > 1 and value != int(value):
        yield f"trainer.{key}: found {value}, expected a whole number, or a share of all steps below 1"


def _contradictions(values: dict[str, Any]) -> Iterator[str]:
    if values.get("bf16") and values.get("fp16"):
        yield "trainer.bf16 and trainer.fp16 exclude each other: take one"
    if values.get("fsdp") not in (None, FSDP2) or values.get("fsdp_config"):
        yield f"trainer.fsdp: {NO_FSDP1}"
    elif values.get("fsdp"):
        if values.get("deepspeed"):
            yield "trainer.fsdp and trainer.deepspeed exclude each other: take one"
        if (optimiser := values.get("optim", FSDP2_OPTIMISERS[0])) not in FSDP2_OPTIMISERS:
            yield f"trainer.optim: {optimiser} wants whole tensors, under trainer.fsdp take {FSDP2_OPTIMISERS[0]}"
    if values.get("save_strategy") == "best":
        yield "trainer.save_strategy: the best is saved in any case; take no, steps or epoch for the others"
    schedule = values.get("lr_scheduler_type")
    if schedule in BY_LOSS:
        yield f"trainer.lr_scheduler_type: {schedule} follows the loss of an evaluation, which is not taken here"
    if values.get("dataloader_prefetch_factor") and not values.get("dataloader_num_workers"):
        yield "trainer.dataloader_prefetch_factor: is of workers: set trainer.dataloader_num_workers, too"
