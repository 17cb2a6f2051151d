"""DeepSpeed's ZeRO-3: every weight cut over all ranks, the frozen ones too, before DeepSpeed's engine is made."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils import swap_tensors
from transformers import TrainingArguments
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config

from cores.modeling.model import CoresModel
from cores.training.sharding import share_buffers, units


def is_zero3(arguments: TrainingArguments) -> bool:
    """Does a run use ZeRO-3?"""
    plugin = arguments.deepspeed_plugin
    return plugin is not None and int(plugin.zero_stage or 0) == 3


@contextmanager
def loaded_whole(arguments: TrainingArguments) -> Iterator[None]:
    """Inside, models are loaded as ever: transformers would cut them at once, and nothing could be added to them."""
    if not is_zero3(arguments):
        yield
        return
    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        set_hf_deepspeed_config(arguments.hf_deepspeed_config)


def partition(model: CoresModel, arguments: TrainingArguments) -> None:
    """Cut a model's weights over all ranks, those of the first rank; all of them call this.

    The other ranks' may be on the meta device: one tensor is whole there at a time. In bf16 all weights become
    bfloat16, of which DeepSpeed keeps what trains in float32.
    """
    from deepspeed import zero

    zero_settings = arguments.hf_deepspeed_config.config["zero_optimization"]
    settings: dict[str, Any] = {"zero_optimization": zero_settings, "train_micro_batch_size_per_gpu": 1}
    if arguments.bf16:
        settings["bf16"] = {"enabled": True}
    begun: Any = None
    for parameter in model.parameters():
        if arguments.bf16:
            parameter.data = parameter.data.bfloat16()
        if parameter.is_meta:
            value = torch.empty(parameter.shape, dtype=parameter.dtype, device=arguments.device)
            swap_tensors(parameter, nn.Parameter(value, parameter.requires_grad))
        if begun is None:
            begun = parameter
            zero.Init(module=nn.ParameterList([parameter]), config_dict_or_path=settings)
        else:
            begun.convert_to_zero_parameters(param_list=[parameter])
    share_buffers(model, arguments.device)


@contextmanager
def held(unit: nn.Module) -> Iterator[None]:
    """Inside, a module is whole; all ranks enter and leave it together."""
    from deepspeed import zero

    with zero.GatheredParameters(list(unit.parameters())):
        yield


@contextmanager
def by_hand(model: CoresModel, engine: Any) -> Iterator[None]:
    """Inside, DeepSpeed gathers nothing by itself: `sharding.units` are for `held`, everything else is whole."""
    from deepspeed import zero

    in_units = {id(parameter) for unit in units(model) for parameter in unit.parameters()}
    offload = engine.optimizer.parameter_offload
    for hook in (*offload.forward_hooks, *offload.backward_hooks, offload.fwd_pre_hook):
        hook.remove()
    offload.forward_hooks, offload.backward_hooks = [], []
    try:
        with zero.GatheredParameters([p for p in model.parameters() if id(p) not in in_units]):
            yield
    finally:
        offload.setup_zero_stage3_hooks()
