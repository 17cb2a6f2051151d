"""A recipe's model at its full size on the meta device: every tensor has a shape, none has numbers.

Configs come from the folders that the recipe names, or from the hub without weights; where there are none, the bases
that cores knows have their published sizes.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from cores.checkpoints.published_sizes import MLLMS, SEGMENTERS
from cores.errors import CheckpointError
from cores.hub import fetch, is_hub_name
from cores.modeling.configuration import CoresConfig
from cores.modeling.model import CoresModel
from cores.processing.language_pixels import SQUARES, language_sizes
from cores.processing.picture_layouts import LAYOUTS, Facts
from cores.processing.processor import CoresProcessor
from cores.prompts.styles import STYLES
from cores.recipe import OF_BASES, Recipe
from cores.training.memory import PHOTOGRAPH
from cores.training.start import plan
from cores.training.trainable import choose_parts
from cores.vocabulary import LEVEL_NAMES


@dataclass(frozen=True)
class Outline:
    """`model`: on the meta device, with the parts that train ready to; `processor`: None where no tokenizer is here;
    `positions`: that a photograph takes in a prompt; `missing`: what the published sizes stand in for, or None.
    """

    model: CoresModel
    processor: CoresProcessor | None
    positions: int
    missing: str | None = None


def outline(recipe: Recipe, seed: int = 0) -> Outline:
    """What a recipe would train, without reading a weight.

    Raises CheckpointError when neither a config nor a published size can be had, and what `start` raises of configs.
    """
    try:
        planned = plan(replace(recipe, model=replace(recipe.model, **_folders(recipe))), seed)
    except CheckpointError as error:
        if recipe.model.mllm not in MLLMS or recipe.model.segmenter not in SEGMENTERS:
            raise
        model = on_meta(published_config(recipe), recipe)
        return Outline(model, None, published_positions(recipe.model.mllm, model), str(error))
    processor = planned.processor
    return Outline(on_meta(planned.config, recipe), processor, positions(processor))


def on_meta(config: CoresConfig, recipe: Recipe) -> CoresModel:
    """The model of a config without numbers, with a recipe's parts ready to train."""
    with torch.device("meta"):
        model = CoresModel(config)
        choose_parts(model, recipe.model.train, recipe.lora)
    return model


def published_config(recipe: Recipe) -> CoresConfig:
    """The config of a recipe's model by the published sizes of its bases, with rows for its grounding tokens."""
    base, chain = MLLMS[str(recipe.model.mllm)], recipe.model
    mllm, style = base.config(), chain.style or OF_BASES["style"]
    names = LEVEL_NAMES[chain.levels or OF_BASES["levels"]]
    text = mllm.get_text_config()
    text.vocab_size = max(
        text.vocab_size, base.words + len(names) + base.marks
    )  # spare rows hold them where there are any
    return CoresConfig(
        mllm_config=mllm,
        segmenter_config=SEGMENTERS[str(chain.segmenter)](),
        levels=[
            {"name": name, "token": STYLES[style].tokens[name], "token_id": base.words + number}
            for number, name in enumerate(names)
        ],
        refiner=chain.refiner or OF_BASES["refiner"],
        segmenting=chain.segmenting or OF_BASES["segmenting"],
        style=style,
    )


def positions(processor: CoresProcessor, size: tuple[int, int] = PHOTOGRAPH) -> int:
    """How many places in a prompt a picture of this size (width, height) takes."""
    rule = processor.rule
    return len(rule.layout(rule(Image.new("RGB", size))))


def published_positions(name: str, model: CoresModel, size: tuple[int, int] = PHOTOGRAPH) -> int:
    """The same for a base of published size, by its family's image processor and without a tokenizer."""
    mllm, images = model.config.mllm_config, MLLMS[name].images
    if mllm.model_type in SQUARES or images is None:
        return int(language_sizes(mllm)["image_tokens"])
    layout, processor = LAYOUTS[mllm.model_type], images()
    layout.fit(processor, mllm)
    found = processor(images=[Image.new("RGB", size)], return_tensors="pt", **layout.asks)
    pixels = {key: torch.as_tensor(value) for key, value in found.items()}
    return len(re.findall(r"<[^>]+>|\n+", layout.text(Facts("<image>", layout.tile(mllm), processor), pixels)))


def _folders(recipe: Recipe) -> dict[str, Any]:
    """Folders in place of a recipe's hub ids: of their repositories, without weights."""
    named = {role: getattr(recipe.model, role) for role in ("start", "mllm", "segmenter")}
    absent = {role: name for role, name in named.items() if name not in (None, "shipped") and not Path(name).exists()}
    for name in absent.values():
        if not is_hub_name(name):
            raise CheckpointError(f"{name}: there is no such folder, and a hub id looks like owner/name")
    return {role: str(fetch(name, weights=False)) for role, name in absent.items()}
