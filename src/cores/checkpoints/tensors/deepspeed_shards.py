"""DeepSpeed's shards put together: what each process kept of the weights, as whole tensors in fp32.

Stage 2 keeps for each group of parameters one long vector, cut into as many parts as there were processes; stage 3
cuts every parameter into parts by itself. Parameters that did not train lie beside them in the model's own files.
The script that DeepSpeed leaves beside its shards for this is never run, and its classes are never made.

Legend: rank = the number of a process, flat = numbers of several parameters in a row.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cores.checkpoints.tensors.lazy import MAPPED, Entry, Tensors
from cores.checkpoints.tensors.pickles import read_pickle
from cores.errors import CheckpointError

# the classes that shards hold objects of; they become inert stand-ins
CLASSES = (
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.utils.tensor_fragment.fragment_address",
)
OPTIMIZER, MODEL = "*_optim_states.pt", "*_model_states.pt"


class Part(NamedTuple):
    """Numbers `start` to `end` of a flat tensor: a file's `flat` of this number, or a frozen parameter's name."""

    file: int
    flat: int | str
    start: int
    end: int


def is_sharded(path: Path) -> bool:
    """Is it a folder of DeepSpeed's, or one of the steps in it?"""
    return path.is_dir() and (any(path.glob(OPTIMIZER)) or any(path.glob(f"global_step*/{OPTIMIZER}")))


def step_folder(path: Path) -> Path:
    """The step that `latest` names, or the only one.

    Raises CheckpointError when that one is not there, or there are several and no `latest`.
    """
    if any(path.glob(OPTIMIZER)):
        return path
    steps = sorted(file.parent for file in path.glob(f"global_step*/{OPTIMIZER}"))
    latest = path / "latest"
    if latest.is_file():
        step = path / latest.read_text("utf-8").strip()
        if step.parent != path or step not in steps:
            raise CheckpointError(f"{latest}: names {step.name}, which is not there: copy that folder, too")
        return step
    if len(set(steps)) > 1:
        raise CheckpointError(f"{path}: holds {', '.join(s.name for s in sorted(set(steps)))}: name one of them")
    return steps[0]


class Consolidated(Tensors):
    """The whole tensors of a DeepSpeed checkpoint, by the names that they had in training.

    `trained`: the names of those that trained; the others are buffers and frozen parameters.
    """

    def __init__(self, path: Path) -> None:
        """Raises CheckpointError when a process's shard is missing, damaged, or does not add up with the others."""
        self.folder = step_folder(path)
        self.files = [*by_rank(self.folder, OPTIMIZER), *by_rank(self.folder, MODEL)]
        self.opened: dict[int, Any] = {}
        self.touched = 0
        optimizers = [self._state(file) for file in self.files if file.name.endswith("_optim_states.pt")]
        models = [self._load(file, True) for file in self.files if file.name.endswith("_model_states.pt")]
        self.stage = _stage(self.files[0], optimizers[0])
        self.world = len(optimizers)
        said = optimizers[0].get("partition_count", self.world)
        said = max(said) if isinstance(said, Sequence) else int(said)
        if said != self.world:
            raise CheckpointError(
                f"{self.folder}: {said} processes trained, there are shards of {self.world}: copy the others, too"
            )
        if self.stage == 3 and len(models) != self.world:
            raise CheckpointError(f"{self.folder}: expected {self.world} files {MODEL}, found {len(models)}")
        self.entries: dict[str, Entry] = {}
        self.parts: dict[str, list[Part]] = {}
        self.trained = {name for shapes in models[0].get("param_shapes") or () for name in shapes}
        try:
            self._add_whole(models[0])
            self._add_frozen(models)
            (self._add_stage3 if self.stage == 3 else self._add_stage2)(optimizers, models[0])
            for second, first in dict(models[0].get("shared_params") or {}).items():
                if first in self.entries:
                    self.entries[second] = self.entries[first]._replace(made_of=(second,))
                    self.parts[second] = self.parts[first]
        except (KeyError, AttributeError, TypeError, IndexError) as error:
            raise CheckpointError(f"{self.folder}: is not laid out as DeepSpeed's shards are: {error!r}") from None

    def tensor(self, key: str) -> Tensor:
        """The parts of the tensor in a row, in its own shape."""
        shape = self.entries[key].shape
        flat = torch.cat([self._numbers(key, part) for part in self.parts[key]])
        return flat[: math.prod(shape)].view(shape)

    # What is where

    def _add(self, name: str, shape: Any, dtype: torch.dtype, parts: list[Part], how: str) -> None:
        self.entries[name] = Entry(tuple(shape), dtype, (name,), how)
        self.parts[name] = parts

    def _add_whole(self, model: Mapping[str, Any]) -> None:
        """Buffers: every process has them whole."""
        for name in model["buffer_names"]:
            if name in model["module"]:
                value = model["module"][name]
                place = Part(self.world, f"module.{name}", 0, value.numel())
                self._add(name, value.shape, value.dtype, [place], "")

    def _add_frozen(self, models: Sequence[Mapping[str, Any]]) -> None:
        """Parameters that did not train: whole (stage 2) or a part in every process (stage 3)."""
        for name, shape in dict(models[0].get("frozen_param_shapes") or {}).items():
            parts = []
            for rank, model in enumerate(models if self.stage == 3 else models[:1]):
                fragment = model["frozen_param_fragments"][name]
                parts.append(Part(self.world + rank, name, 0, fragment.numel()))
            self._check(name, shape, sum(part.end for part in parts))
            self._add(name, shape, fragment.dtype, parts, self._how(len(parts)))

    def _add_stage2(self, optimizers: Sequence[Mapping[str, Any]], model: Mapping[str, Any]) -> None:
        """A group's parameters in a row; the row, padded at its end, cut into one part a process."""
        paddings = optimizers[0].get("param_alignment_paddings")
        for group, shapes in enumerate(model["param_shapes"]):
            sizes = [one["single_partition_of_fp32_groups"][group].numel() for one in optimizers]
            at = 0
            for number, (name, shape) in enumerate(shapes.items()):
                size = math.prod(shape)
                parts = list(_cut(sizes, group, at, at + size))
                self._check(name, shape, sum(part.end - part.start for part in parts))
                self._add(name, shape, torch.float32, parts, self._how(len(parts)))
                at += size + (paddings[group][number] if paddings else 0)
            if not 0 <= sum(sizes) - at < 2 * self.world:  # rows are padded to a multiple of that
                raise CheckpointError(f"{self.folder}: group {group} holds {sum(sizes)} numbers, its names need {at}")

    def _add_stage3(self, optimizers: Sequence[Mapping[str, Any]], model: Mapping[str, Any]) -> None:
        """Every parameter cut into equal parts, one a process; in each, the parts of all parameters in a row."""
        sizes = [flat.numel() for flat in optimizers[0]["fp32_flat_groups"]]
        at = 0
        for shapes in model["param_shapes"]:
            for name, shape in shapes.items():
                share = math.ceil(math.prod(shape) / self.world)
                parts = [
                    part._replace(file=rank, flat=part.file)
                    for rank in range(self.world)
                    for part in _cut(sizes, 0, at, at + share)
                ]
                self._check(name, shape, sum(part.end - part.start for part in parts))
                self._add(name, shape, torch.float32, parts, self._how(self.world))
                at += share
        if at != sum(sizes):
            raise CheckpointError(f"{self.folder}: a process holds {sum(sizes)} numbers, its names need {at}")

    def _check(self, name: str, shape: Any, found: int) -> None:
        if found < math.prod(shape):
            raise CheckpointError(f"{self.folder}: {name} is {tuple(shape)}, its parts hold {found} numbers only")

    def _how(self, parts: int) -> str:
        return "" if parts == 1 else f"{parts} processes' parts put together"

    # Reading

    def _numbers(self, key: str, part: Part) -> Tensor:
        if self.touched > MAPPED:
            self.opened, self.touched = {}, 0
        if part.file not in self.opened:
            file = self.files[part.file]
            self.opened[part.file] = self._load(file) if part.file >= self.world else self._state(file, False)
        held = self.opened[part.file]
        if isinstance(part.flat, int):
            name = "fp32_flat_groups" if self.stage == 3 else "single_partition_of_fp32_groups"
            flat = held[name][part.flat]
        elif part.flat.startswith("module."):
            flat = held["module"][part.flat.removeprefix("module.")]
        else:
            flat = held["frozen_param_fragments"][part.flat]
        numbers: Tensor = flat.detach().reshape(-1)[part.start : part.end]
        self.touched += numbers.numel() * numbers.element_size()
        return numbers

    def _load(self, file: Path, only_shapes: bool = False) -> Any:
        return read_pickle(file, only_shapes, CLASSES)

    def _state(self, file: Path, only_shapes: bool = True) -> Mapping[str, Any]:
        found = self._load(file, only_shapes)
        state = found.get("optimizer_state_dict") if isinstance(found, Mapping) else None
        if not isinstance(state, Mapping) or "zero_stage" not in state:
            raise CheckpointError(f"{file}: holds no shard of ZeRO's: only its stages 2 and 3 are cut into shards")
        return state


def by_rank(folder: Path, pattern: str) -> list[Path]:
    """The files of all processes in their order.

    Raises CheckpointError when there is none, and for model parallelism.
    """

    def rank(file: Path) -> int:
        match = re.search(r"zero_pp_rank_(\d+)_", file.name)
        return int(match[1]) if match else 0

    found = sorted(folder.glob(pattern), key=rank)
    if not found:
        raise CheckpointError(f"{folder}: there is no {pattern}: the checkpoint is not whole")
    several = [file.name for file in found if "_mp_rank_00_" not in f"_{file.name}"]
    if several:
        raise CheckpointError(f"{folder}: was trained with model parallelism ({several[0]}), which is not read here")
    return found


def _stage(file: Path, state: Mapping[str, Any]) -> int:
    stage = state["zero_stage"]
    number = int(getattr(stage, "args", (stage,))[0])
    if number not in (1, 2, 3):
        raise CheckpointError(f"{file}: was written by ZeRO stage {number}, expected 2 or 3")
    return number


def _cut(sizes: Sequence[int], flat: int, start: int, end: int) -> Iterator[Part]:
    """Where numbers `start` to `end` of a row lie that is cut into pieces of these sizes: the piece as `file`."""
    at = 0
    for piece, size in enumerate(sizes):
        first, last = max(start, at), min(end, at + size)
        if first < last:
            yield Part(piece, flat, first - at, last - at)
        at += size
