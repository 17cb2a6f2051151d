"""Which parts of a model train. Everything else is frozen."""

import re
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
    "image_encoder": ("segmenter.vision_encoder.",),
    "prompt_encoder": ("segmenter.prompt_encoder.",),
    "mask_decoder": ("segmenter.mask_decoder.",),
}
# SAM's Gaussian matrix is a constant, stored as a parameter. Its decoder's guess of its own IoU, and its outputs for
# several masks a prompt, are read by no loss: they get no gradient, and DeepSpeed wants one for all that trains.
NEVER = re.compile(r"positional_embedding|mask_decoder\.(iou_prediction_head|output_hypernetworks_mlps\.[1-9])")


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
        found = [
            p for name, p in model.named_parameters() if name.startswith(PREFIXES[part]) and not NEVER.search(name)
        ]
        if not found:
            warnings.warn(f"model.train: this model has no {part}: nothing of it trains", stacklevel=2)
        for parameter in found:
            parameter.requires_grad_(True)
            parameter.data = parameter.data.float()
