"""QLoRA: the frozen layers of the language model in 4 bits, while adapters and the rest train.

What was learned is saved as ever; the rounding is part of training alone, and a merged model has the weights of its
base.
"""

from importlib.util import find_spec

from cores.errors import RecipeError
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
