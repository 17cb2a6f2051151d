"""Which parts of a model train. Everything else is frozen."""

import warnings
from collections.abc import Iterable

from cores.checkpoints.runs.learned import LANGUAGE_MODEL, add_lora
from cores.modeling.model import CoresModel
from cores.recipe import LoraSection, Part

PREFIXES: dict[Part, tuple[str, ...]] = {
    "vision_tower": ("mllm.model.vision_tower.",),
    "projector": ("mllm.model.multi_modal_projector.",),
    "language_model": (f"{LANGUAGE_MODEL}.layers.", f"{LANGUAGE_MODEL}.norm."),
    "embeddings": (f"{LANGUAGE_MODEL}.embed_tokens.",),
    "head": ("mllm.lm_head.",),
    "projection": ("projection.",),
    "refiner": ("refiner.",),
}
MASK_PROMPT = "prompt_encoder.mask_embed."


def part_of(model: CoresModel, name: str) -> Part | None:
    """Which part a parameter belongs to, by its name; None when it is of none, or no loss reaches it.

    DeepSpeed wants a gradient for all that trains.
    """
    if not name.startswith("segmenter."):
        return next((part for part, begins in PREFIXES.items() if name.startswith(begins)), None)
    own, segmenter = name.removeprefix("segmenter."), model.segmenter
    unguided = len(model.config.levels) == 1 and own.startswith(MASK_PROMPT)  # no mask prompts the only level
    if unguided or segmenter.never_trained.search(own):
        return None
    return next((part for part, begins in segmenter.parts.items() if own.startswith(begins)), None)


def choose_parts(model: CoresModel, train: Iterable[Part], lora: LoraSection) -> None:
    """Freeze the model but for these parts, which become fp32; put LoRA layers in where `lora` is among them.

    Warns of a part that the model has not.
    """
    train = list(train)
    model.requires_grad_(False)
    if "lora" in train:
        add_lora(model, lora.r, lora.alpha, lora.dropout, lora.targets)
    for part in train:
        if part == "lora":
            continue
        found = [p for name, p in model.named_parameters() if part == part_of(model, name)]
        if not found:
            warnings.warn(f"model.train: this model has no {part}: nothing of it trains", stacklevel=2)
        for parameter in found:
            parameter.requires_grad_(True)
            parameter.data = parameter.data.float()
