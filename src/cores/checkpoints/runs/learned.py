"""What a run learned, in two files beside each other: PEFT's own for LoRA, and the other parameters that trained.

Both are read strictly: a tensor that is missing, left over or of another shape is an error that names it.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cores.checkpoint_errors import checkpoint_errors
from cores.checkpoints.runs.adapter_config import read_adapter_config
from cores.errors import CheckpointError
from cores.modeling.mllms import FAMILIES
from cores.modeling.model import CoresModel
from cores.modeling.strict import refuse_broken, refuse_differences

TRAINED = "trained.safetensors"
ADAPTER_CONFIG, ADAPTER = "adapter_config.json", "adapter_model.safetensors"  # PEFT's names
PEFT_PREFIX = "base_model.model."


def add_lora(model: CoresModel, r: int, alpha: float, dropout: float, targets: Iterable[str]) -> None:
    """Put LoRA layers, in fp32, beside the language model's layers of these names. They alone train afterwards.

    Args: `r`: their rank; `alpha`: the product counts alpha / r times; `dropout`: share of the inputs.
    The segmenter and the vision tower have layers of the same names: those stay as they are. Raises CheckpointError
    when the language model has none of them.
    """
    names = "|".join(re.escape(name) for name in targets)
    decoder = FAMILIES[model.config.mllm_config.model_type].decoder
    where = rf"{re.escape(f'mllm.{decoder}')}\..*\.({names})"
    if not any(re.fullmatch(where, name) for name, _ in model.named_modules()):
        raise CheckpointError(f"lora.targets: the language model has no layers named {' or '.join(targets)}")
    config = LoraConfig(r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=where, bias="none")
    inject_adapter_in_model(config, model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def has_lora(model: CoresModel) -> bool:
    """Does the model have LoRA layers that are not folded in?"""
    return any(isinstance(module, LoraLayer) for module in model.modules())


def fold_lora(model: CoresModel) -> None:
    """Add every LoRA product to the weight beside it, in fp32, and take the LoRA layers out again."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            base = module.get_base_layer()
            with torch.no_grad():
                base.weight.copy_(base.weight.float() + module.get_delta_weight("default").float())
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, base)
    if hasattr(model, "peft_config"):
        del model.peft_config


def trained_parameters(model: CoresModel) -> dict[str, Tensor]:
    """What trains beside LoRA: the parameters themselves, in their own shapes, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad and ".lora_" not in name}


def write_learned(model: CoresModel, folder: Path, masters: Mapping[str, Tensor] | None = None) -> None:
    """Write the adapter (where there is one) and `trained.safetensors`.

    `masters`: values in place of the model's, by the same names and in the same shapes.
    """
    values = {name: p for name, p in model.named_parameters() if p.requires_grad} | dict(masters or {})
    if has_lora(model):
        model.peft_config["default"].save_pretrained(str(folder))
        lora = {name: value for name, value in values.items() if ".lora_" in name}
        state = get_peft_model_state_dict(model, state_dict=lora, save_embedding_layers=False)
        save_file({PEFT_PREFIX + name: _plain(value) for name, value in state.items()}, folder / ADAPTER)
    save_file({name: _plain(values[name]) for name in trained_parameters(model)}, folder / TRAINED)


def masters(model: CoresModel) -> dict[str, Tensor]:
    """What trains, in fp32 and its own shape, of a model that DeepSpeed trains.

    The model's own tensors are copies in half precision. All ranks have to ask together: each holds a part.
    """
    from deepspeed.utils import safe_get_full_fp32_param

    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            value = safe_get_full_fp32_param(parameter)
            found[name] = _plain(parameter if value is None else value)
    return found


def read_learned(model: CoresModel, folder: Path) -> None:
    """Put what `write_learned` wrote into a model that has the run's base; LoRA layers are added if it has none.

    Raises CheckpointError that names every tensor that does not fit.
    """
    if (folder / ADAPTER_CONFIG).exists():
        if not has_lora(model):
            kept = [parameter for parameter in model.parameters() if parameter.requires_grad]
            with checkpoint_errors(folder / ADAPTER_CONFIG, "be put into the model"):
                inject_adapter_in_model(read_adapter_config(folder), model)
            for parameter in kept:  # PEFT freezes all that is not its own
                parameter.requires_grad_(True)
        state = {name.removeprefix(PEFT_PREFIX): value for name, value in _read(folder / ADAPTER).items()}
        _check(folder / ADAPTER, state, get_peft_model_state_dict(model, save_embedding_layers=False), whole=True)
        set_peft_model_state_dict(model, state)
    state = _read(folder / TRAINED)
    parameters = dict(model.named_parameters())
    _check(folder / TRAINED, state, parameters, whole=False)
    with torch.no_grad():
        for name, value in state.items():
            parameters[name].copy_(value)


def _plain(value: Tensor) -> Tensor:
    return value.detach().to("cpu").contiguous()


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except FileNotFoundError:
        raise CheckpointError(f"{file}: is missing; the checkpoint is not whole, take another") from None
    except SafetensorError as error:
        raise CheckpointError(f"{file}: cannot be read ({error}); the checkpoint is not whole, take another") from None


def _check(file: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor], whole: bool) -> None:
    """Raise CheckpointError unless every tensor found is expected, with its shape, and (`whole`) none is missing."""
    wanted = expected if whole else {name: value for name, value in expected.items() if name in found}
    refuse_differences(file, wanted, found)
    refuse_broken(file, found)
