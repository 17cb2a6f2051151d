"""Which parts of a model train. Everything else is frozen."""

import re
import warnings
from collections.abc import Iterable

from cores.checkpoints.runs.learned import add_lora
from cores.modeling.mllms import FAMILIES
from cores.modeling.model import CoresModel
from cores.recipe import LoraSection, Part

SEGMENTER_PARTS: dict[Part, str] = {
    "image_encoder": "segmenter.vision_encoder.",
    "prompt_encoder": "segmenter.prompt_encoder.",
    "mask_decoder": "segmenter.mask_decoder.",
}
# SAM's Gaussian matrix is a constant, stored as a parameter. Its decoder's guess of its own IoU, and its outputs for
# several masks a prompt, are read by no loss: they get no gradient, and DeepSpeed wants one for all that trains.
NEVER = re.compile(r"positional_embedding|mask_decoder\.(iou_prediction_head|output_hypernetworks_mlps\.[1-9])")


def parts_of(model: CoresModel, name: str) -> tuple[Part, ...]:
    """Which parts a parameter belongs to, by its name; a head that is tied to the embeddings is both."""
    family = FAMILIES[model.config.mllm_config.model_type]
    for part, prefix in SEGMENTER_PARTS.items():
        if name.startswith(prefix):
            return (part,)
    if not name.startswith("mllm."):
        return (
            ("projection",) if name.startswith("projection.") else ("refiner",) if name.startswith("refiner.") else ()
        )
    own = name.removeprefix("mllm.")
    if any(own.startswith(f"{path}.") for path in family.projector):
        return ("projector",)
    if own.startswith(f"{family.tower}."):
        return ("vision_tower",)
    if own.startswith(f"{family.decoder}.embed_tokens."):
        tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
        return ("embeddings", "head") if tied else ("embeddings",)
    return ("language_model",) if own.startswith(f"{family.decoder}.") else ("head",)


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
        found = [p for name, p in model.named_parameters() if part in parts_of(model, name) and not NEVER.search(name)]
        if not found:
            warnings.warn(f"model.train: this model has no {part}: nothing of it trains", stacklevel=2)
        for parameter in found:
            parameter.requires_grad_(True)
            parameter.data = parameter.data.float()
