"""The language model's frozen layers in 8 or 4 bits, by bitsandbytes, on CUDA.

Each layer is rounded when it is moved to its device: to whole numbers a row with outlying columns kept in 16 bits
(`8bit`, Dettmers et al., 2022), or to NormalFloat in blocks of 64 (`4bit`, Dettmers et al., 2023).
"""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Literal, get_args

import torch
from torch import nn

from cores.errors import UserError
from cores.modeling.mllms import FAMILIES
from cores.modeling.model import CoresModel

Bits = Literal["8bit", "4bit"]
OUTLYING = 6.0  # columns with numbers beyond it are multiplied in 16 bits, as the paper of `8bit` has it


def refuse_bits(bits: Bits | None, device: torch.device) -> None:
    """Raise UserError when weights in so few bits cannot be had on a device."""
    if bits is None:
        return
    if bits not in get_args(Bits):
        raise UserError(f"quantize: found {bits!r:.40}, expected {' or '.join(get_args(Bits))}, or None")
    if device.type != "cuda":
        raise UserError(f"quantize: {bits} needs a CUDA device, this is {device.type}: leave it out")
    if find_spec("bitsandbytes") is None:
        raise UserError("quantize: bitsandbytes is not installed: pip install 'cores[qlora]', or leave it out")


def decoder_linears(model: CoresModel) -> Iterator[tuple[str, nn.Linear]]:
    """The language model's linear layers but its head, by name: what few bits are for."""
    within = f"mllm.{FAMILIES[model.config.mllm_config.model_type].decoder}.layers."
    for name, module in model.named_modules():
        if name.startswith(within) and ".lora_" not in name and isinstance(module, nn.Linear):
            yield name, module


def quantise(model: CoresModel, bits: Bits = "4bit") -> None:
    """Put layers of few bits in place of the language model's. They are rounded when the model goes to its device."""
    for name, layer in list(decoder_linears(model)):
        model.set_submodule(name, _in_4_bits(layer) if bits == "4bit" else _in_8_bits(layer))


def _in_4_bits(layer: nn.Linear) -> nn.Module:
    from bitsandbytes.nn import Linear4bit, Params4bit

    sizes = (layer.in_features, layer.out_features, layer.bias is not None)
    small: nn.Module = Linear4bit(*sizes, compute_dtype=torch.bfloat16, quant_type="nf4", device="meta")
    small.weight = Params4bit(layer.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4")
    small.bias = layer.bias
    return small


def _in_8_bits(layer: nn.Linear) -> nn.Module:
    from bitsandbytes.nn import Int8Params, Linear8bitLt

    sizes = (layer.in_features, layer.out_features, layer.bias is not None)
    small: nn.Module = Linear8bitLt(*sizes, has_fp16_weights=False, threshold=OUTLYING, device="meta")
    small.weight = Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
    small.bias = layer.bias
    return small
