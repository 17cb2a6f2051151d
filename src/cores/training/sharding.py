"""FSDP2: every weight cut over all ranks, the frozen ones too, and the few times that something is wanted whole.

The model is cut before the Trainer sees it, layer by layer, so that no process but the first ever holds all of it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils import swap_tensors

from cores.errors import CheckpointError
from cores.modeling.model import CoresModel

STATE = "sharded"  # of a checkpoint: the folder of what resuming needs, in torch's distributed format

T = TypeVar("T")


def is_sharded(model: nn.Module) -> bool:
    """Did `shard` cut this model?"""
    return isinstance(model, FSDPModule)


def shard(model: CoresModel, device: torch.device) -> None:
    """Cut a model's weights over all ranks; all of them call this.

    The weights are the first rank's; the other ranks' may be on the meta device. Each rank holds one layer whole at
    a time, on `device`. Afterwards every parameter is a DTensor.
    """
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    every: list[nn.Module] = [*units(model), model]
    for unit in every:
        _take_from_first(unit, device)
        fully_shard(unit, mesh=mesh)
    share_buffers(model, device)
    model._is_fsdp_managed_module = True  # transformers' mark


def share_buffers(model: CoresModel, device: torch.device) -> None:
    """Give all ranks the first one's buffers, on `device`, and what else of a model is no weight."""
    for owner in model.modules():
        for name, value in owner.named_buffers(recurse=False):
            owner._buffers[name] = _of_first(value, device)
    told = [model.max_new_tokens]
    distributed.broadcast_object_list(told, src=0)
    model.max_new_tokens = told[0]


def units(model: CoresModel) -> Iterator[nn.Module]:
    """What is gathered at one time: each layer of both vision encoders and of the language model, which comes last.

    All else is gathered with the model itself, and stays so from a step's forward to the end of its backward.
    """
    for part in (model.segmenter.vision_encoder, model.mllm):
        taken: list[str] = []
        for name, module in part.named_modules():
            if isinstance(module, nn.ModuleList) and not any(name.startswith(f"{outer}.") for outer in taken):
                taken.append(name)
                yield from (layer for layer in module if any(True for _ in layer.parameters()))


def as_forward(model: CoresModel, work: Callable[[], T]) -> T:
    """What `work` gives, run in the place of the model's forward, so that FSDP2 gathers what is not in `units`."""
    found: list[T] = []
    own = model.__dict__.get("forward")  # accelerate's, which casts
    model.__dict__["forward"] = lambda: found.append(work())
    try:
        with torch.no_grad():
            model()
    finally:
        del model.__dict__["forward"]
        if own is not None:
            model.__dict__["forward"] = own
        model.reset_iter_state()  # no backward follows
    return found[0]


@contextmanager
def held(unit: nn.Module) -> Iterator[None]:
    """Inside, a layer of `units` is whole; all ranks enter and leave it together."""
    assert isinstance(unit, FSDPModule)
    unit.unshard()
    try:
        yield
    finally:
        unit.reshard()


def gather(model: CoresModel) -> dict[str, Tensor]:
    """What trains, whole, by name, on the first rank's CPU; the others get nothing but have to call it, too."""
    found = {}
    for name, parameter in trained(model).items():
        value = parameter.full_tensor()
        if distributed.get_rank() == 0:
            found[name] = value.detach().cpu()
    return found


def trained(model: CoresModel) -> dict[str, DTensor]:
    """What trains, by name, a piece on each rank."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad and isinstance(p, DTensor)}


def write_state(model: CoresModel, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Write what trains and its optimiser's state, each rank its pieces. Raises what torch does when it cannot."""
    state = {"model": trained(model), "optimizer": get_optimizer_state_dict(model, optimizer)}
    save(state, checkpoint_id=folder / STATE)


def read_state(model: CoresModel, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Read what `write_state` wrote, on any number of ranks. Raises CheckpointError when a weight is missing."""
    names = trained(model)
    known = FileSystemReader(folder / STATE).read_metadata().state_dict_metadata
    missing = [name for name in names if f"model.{name}" not in known]
    if missing:
        raise CheckpointError(f"{folder / STATE}: holds no {', '.join(missing)}; take another checkpoint")
    state: dict[str, Any] = {"model": names, "optimizer": get_optimizer_state_dict(model, optimizer)}
    load(state, checkpoint_id=folder / STATE, planner=DefaultLoadPlanner(allow_partial_load=True))  # in place
    set_optimizer_state_dict(model, optimizer, state["optimizer"])
    with_state = {key.rpartition(".")[0] for key in known}
    for name, parameter in names.items():
        if f"optimizer.state.{name}" not in with_state:  # no gradient has come to it yet
            optimizer.state.pop(parameter, None)


def _take_from_first(unit: nn.Module, device: torch.device) -> None:
    """Give what is not cut yet in a unit the first rank's values, on `device`."""
    for parameter in unit.parameters():
        if not isinstance(parameter, DTensor):
            value = _of_first(parameter.detach(), device)
            if parameter.device == device:
                parameter.data = value
            else:
                swap_tensors(parameter, nn.Parameter(value, parameter.requires_grad))


def _of_first(value: Tensor, device: torch.device) -> Tensor:
    """The first rank's values of a tensor, on `device`; elsewhere only its shape and dtype are read."""
    first = distributed.get_rank() == 0
    found = value.to(device).contiguous() if first else torch.empty(value.shape, dtype=value.dtype, device=device)
    distributed.broadcast(found, src=0)
    return found
