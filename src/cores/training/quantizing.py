"""QLoRA: the frozen layers of the language model in 4 bits, by bitsandbytes, while adapters and the rest train.

Each layer is rounded when it is moved to its device, to NormalFloat in blocks of 64 (Dettmers et al., 2023). What was
learned is saved as ever; the rounding is part of training alone, and a merged model has the weights of its base.
"""

from collections.abc import Iterator
from importlib.util import find_spec

import torch
from torch import nn

from cores.errors import RecipeError
from cores.modeling.mllms import FAMILIES
from cores.modeling.model import CoresModel
from cores.recipe import Recipe

# half a byte, its block's scale in 8 bits, and of 256 scales one in fp32
BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)


def check_quantize(recipe: Recipe, on_cpu: bool) -> None:
    """Raise RecipeError when a recipe asks for weights in few bits and they cannot be had here."""
    if recipe.model.quantize is None:
        return
    for key in ("deepspeed", "fsdp"):
        if recipe.trainer.get(key):
            raise RecipeError(f"model.quantize: does not go with trainer.{key}: set trainer.{key}=null")
    without = "or train without: model.quantize=null"
    if on_cpu:
        raise RecipeError(f"model.quantize: needs a CUDA device, and none is used here: find one, {without}")
    if find_spec("bitsandbytes") is None:
        raise RecipeError(f"model.quantize: bitsandbytes is not installed: pip install 'cores[qlora]', {without}")


def decoder_linears(model: CoresModel) -> Iterator[tuple[str, nn.Linear]]:
    """The language model's linear layers but its head, by name: what few bits are for."""
    within = f"mllm.{FAMILIES[model.config.mllm_config.model_type].decoder}.layers."
    for name, module in model.named_modules():
        if name.startswith(within) and ".lora_" not in name and isinstance(module, nn.Linear):
            yield name, module


def quantise(model: CoresModel) -> None:
    """Put layers of 4 bits in place of the language model's. They are rounded when the model goes to its device."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    for name, layer in list(decoder_linears(model)):
        sizes = (layer.in_features, layer.out_features, layer.bias is not None)
        small = Linear4bit(*sizes, compute_dtype=torch.bfloat16, quant_type="nf4", device="meta")
        small.weight = Params4bit(layer.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4")
        small.bias = layer.bias
        model.set_submodule(name, small)
