"""The models of the recipes at their full size, on the meta device: every tensor has a shape, none has numbers."""

import torch
from published_sizes import MLLMS, SEGMENTERS

from cores.modeling import CoresConfig, CoresModel
from cores.modeling.configuration import LEVEL_NAMES
from cores.prompts.styles import STYLES
from cores.recipe import Recipe, load_recipe
from cores.training.trainable import choose_parts

PAPER = ("cores-7b", "cores-13b", "cores-llava15-13b", "lisa-7b")
LATER = (
    "qwen3-vl-4b-sam2.1",
    "qwen3-vl-8b-sam3",
    "qwen2.5-vl-7b-sam2.1",
    "smolvlm-500m-edgetam",
    "llava-onevision-0.5b-sam",
)
RECIPES = PAPER + LATER


def config_of(recipe: Recipe) -> CoresConfig:
    """The config of a recipe's model, with rows for its grounding tokens."""
    base = MLLMS[str(recipe.model.mllm)]
    mllm, style = base.config(), recipe.model.style or "paper"
    names = LEVEL_NAMES[recipe.model.levels or 2]
    text = mllm.get_text_config()
    text.vocab_size = max(text.vocab_size, base.words + len(names))  # spare rows hold them where there are any
    return CoresConfig(
        mllm_config=mllm,
        segmenter_config=SEGMENTERS[str(recipe.model.segmenter)](),
        levels=[
            {"name": name, "token": STYLES[style].tokens[name], "token_id": base.words + number}
            for number, name in enumerate(names)
        ],
        refiner=recipe.model.refiner or "paper",
        style=style,
    )


def full_size(name: str) -> CoresModel:
    """A recipe's model on the meta device, with the parts that train ready to."""
    recipe = load_recipe(name)
    with torch.device("meta"):
        model = CoresModel(config_of(recipe))
        choose_parts(model, recipe.model.train, recipe.lora)
    return model
