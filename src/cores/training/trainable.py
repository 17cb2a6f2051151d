"""Which parts of a model train. Everything else is frozen."""

import warnings
from collections.abc import Iterable

from cores.checkpoints.runs.learned import add_lora
from cores.modeling.mllms import FAMILIES
from cores.modeling.model import CoresModel
from cores.recipe import LoraSection, Part

MASK_PROMPT = "prompt_encoder.mask_embed."


def parts_of(model: CoresModel, name: str) -> tuple[Part, ...]:
    """Which parts a parameter belongs to, by its name; of none when no loss reaches it (DeepSpeed wants gradients)."""
    whose, _, own = name.partition(".")
    if whose == "mllm":
        return _of_mllm(model, own)
    if whose == "segmenter":
        return _of_segmenter(model, own)
    return ("projection",) if whose == "projection" else ("refiner",)


def _of_mllm(model: CoresModel, own: str) -> tuple[Part, ...]:
    family = FAMILIES[model.config.mllm_config.model_type]
    if any(own.startswith(f"{path}.") for path in family.projector):
        return ("projector",)
    if own.startswith(f"{family.tower}."):
        return ("vision_tower",)
    if own.startswith(f"{family.decoder}.embed_tokens."):
        tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
        return ("embeddings", "head") if tied else ("embeddings",)  # one table for both
    return ("language_model",) if own.startswith(f"{family.decoder}.") else ("head",)


def _of_segmenter(model: CoresModel, own: str) -> tuple[Part, ...]:
    segmenter = model.segmenter
    unguided = not model.config.is_guided and own.startswith(MASK_PROMPT)  # no mask prompts another
    if unguided or segmenter.never_trained.search(own):
        return ()
    return tuple(part for part, begins in segmenter.parts.items() if own.startswith(begins))


def choose_parts(model: CoresModel, train: Iterable[Part], lora: LoraSection) -> None:
    """Freeze the model but for these parts, which become fp32; put LoRA layers in where `lora` is among them.

    Warns of a part that the model has not. Raises CheckpointError when it has no layers of the adapters' names.
    """
    train = list(train)
    model.requires_grad_(False)
    if "lora" in train:
        add_lora(model, lora.r, lora.alpha, lora.dropout, lora.targets)
    for part in train:
        if part == "lora":
            continue
        found = [p for name, p in model.named_parameters() if part in parts_of(model, name)]
        if not found:
            warnings.warn(f"model.train: this model has no {part}: nothing of it trains", stacklevel=2)
        for parameter in found:
            parameter.requires_grad_(True)
            parameter.data = parameter.data.float()
