"""The models of the recipes at their full size, on the meta device: every tensor has a shape, none has numbers."""

from cores.modeling import CoresModel
from cores.recipe import load_recipe
from cores.training.outline import on_meta, published_config

PAPER = ("cores-7b", "cores-13b", "cores-llava15-13b", "cores-llama2-13b", "lisa-7b", "cores-7b-qlora")
ABLATION = (
    "ablation-none",
    "ablation-inc",
    "ablation-cor",
    "ablation-cos",
    "ablation-cos-refiner",
    "ablation-cor-cos",
    "ablation-cor-cos-refiner",
    "ablation-inc-cor-cos",
    "ablation-levels-3",
)
LATER = (
    "qwen3-vl-4b-sam2.1",
    "qwen3-vl-8b-sam3",
    "qwen2.5-vl-7b-sam2.1",
    "smolvlm-500m-edgetam",
    "llava-onevision-0.5b-sam",
)
RECIPES = PAPER + LATER


def full_size(name: str) -> CoresModel:
    """A recipe's model on the meta device, with the parts that train ready to."""
    recipe = load_recipe(name)
    return on_meta(published_config(recipe), recipe)
