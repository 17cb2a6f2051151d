"""Multimodal LLMs: a row a family. The adapter is the family's class in transformers with ours before it.

To add a family: a row here, and a small file beside this one where `MultimodalLLM` does not do (docs/extending.md).
"""

from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

from transformers import CONFIG_MAPPING, AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel

from cores.errors import CheckpointError
from cores.modeling.mllms.base import MultimodalLLM

BASE = "base:MultimodalLLM"


class Family(NamedTuple):
    """`adapter`: `module:class` here. Where in the model are its text decoder, its vision tower, and its projector
    (which may lie inside the tower)?"""

    adapter: str = BASE
    decoder: str = "model.language_model"
    tower: str = "model.vision_tower"
    projector: tuple[str, ...] = ("model.multi_modal_projector",)


VISUAL = ("model.visual", ("model.visual.merger",))
IDEFICS = ("model.text_model", "model.vision_model", ("model.connector",))
GRID, WINDOWED = "rotary_grid:GridPositions", "rotary_grid:WindowedGridPositions"
FAMILIES: dict[str, Family] = {  # by the config's model_type
    "llava": Family("llava:LlavaMLLM"),
    "vipllava": Family(),
    "llava_next": Family(),
    "llava_onevision": Family(),
    "qwen2_vl": Family(WINDOWED, "model.language_model", *VISUAL),
    "qwen2_5_vl": Family(WINDOWED, "model.language_model", *VISUAL),
    "qwen3_vl": Family(
        GRID, tower="model.visual", projector=("model.visual.merger", "model.visual.deepstack_merger_list")
    ),
    "qwen3_5": Family("unpacked:UnpackedGridPositions", "model.language_model", *VISUAL),
    "glm4v": Family(GRID, "model.language_model", *VISUAL),
    "smolvlm": Family(BASE, *IDEFICS),
    "idefics3": Family(BASE, *IDEFICS),
    "internvl": Family(),
    "mistral3": Family(),
    "gemma3": Family("gemma:Gemma3"),
    "gemma4": Family("gemma:Gemma4", projector=("model.embed_vision",)),
    "kimi_k25": Family(projector=("model.mm_projector",)),
    "lfm2_vl": Family("unpacked:Unpacked"),
    "llama4": Family("llama4:Llama4", "language_model.model", "vision_model", ("multi_modal_projector",)),
}
REFUSED = {
    "paligemma": "its picture sees the question, so that questions cannot share a picture's prefix",
}


def check_family(model_type: str) -> None:
    """Raise CheckpointError for a family that is not in the table, with the reason where we know one."""
    if model_type not in FAMILIES:
        reason = REFUSED.get(model_type, f"expected one of {', '.join(FAMILIES)}")
        raise CheckpointError(f"a multimodal LLM of type {model_type!r:.80} cannot be used: {reason}")


def mllm_class(model_type: str) -> type[Any]:
    """The adapter's class of a family. Raises CheckpointError for a family that is not in the table."""
    check_family(model_type)
    return _made(model_type)


def make_mllm(config: PreTrainedConfig) -> Any:
    """A multimodal LLM of a config, with weights as its family draws them."""
    return mllm_class(config.model_type)(config)


@cache
def _made(model_type: str) -> type[Any]:
    family = FAMILIES[model_type]
    module, _, name = family.adapter.partition(":")
    adapter: type[Any] = getattr(import_module(f"{__name__}.{module}"), name)
    if issubclass(adapter, PreTrainedModel):
        return adapter  # a whole model already
    own = AutoModelForImageTextToText._model_mapping[CONFIG_MAPPING[model_type]]
    return type(f"{own.__name__}Adapter", (adapter, own), {"__module__": __name__})


__all__ = ["FAMILIES", "Family", "MultimodalLLM", "check_family", "make_mllm", "mllm_class"]
