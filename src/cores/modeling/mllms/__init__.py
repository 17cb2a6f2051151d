"""Multimodal LLMs: a row a family. The adapter is the family's class in transformers with ours before it.

To add a family: a row here, and a small file beside this one where `MultimodalLLM` does not do (docs/extending.md).
"""

from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

from transformers import AutoModelForImageTextToText, PreTrainedConfig

from cores.errors import CheckpointError
from cores.modeling.mllms.base import MultimodalLLM

BASE = "base:MultimodalLLM"


class Family(NamedTuple):
    """`adapter`: `module:class` here. `decoder`: where in the model its text decoder is."""

    adapter: str = BASE
    decoder: str = "model.language_model"


FAMILIES: dict[str, Family] = {  # by the config's model_type
    "llava": Family("llava:LlavaMLLM"),
    "vipllava": Family(),
    "llava_next": Family(),
    "llava_onevision": Family(),
    "qwen2_vl": Family("rotary_grid:WindowedGridPositions"),
    "qwen2_5_vl": Family("rotary_grid:WindowedGridPositions"),
    "qwen3_vl": Family("rotary_grid:GridPositions"),
    "qwen3_5": Family("unpacked:UnpackedGridPositions"),
    "glm4v": Family("rotary_grid:GridPositions"),
    "smolvlm": Family(decoder="model.text_model"),
    "idefics3": Family(decoder="model.text_model"),
    "internvl": Family(),
    "mistral3": Family(),
    "gemma3": Family("gemma:Gemma3"),
    "gemma4": Family("gemma:Gemma4"),
    "kimi_k25": Family(),
    "lfm2_vl": Family("unpacked:Unpacked"),
    "llama4": Family("llama4:Llama4", decoder="language_model.model"),
}
REFUSED = {
    "paligemma": "its picture sees the question, so that questions cannot share a picture's prefix",
}


def mllm_class(model_type: str) -> type[Any]:
    """The adapter's class of a family. Raises CheckpointError for a family that is not in the table."""
    if model_type not in FAMILIES:
        reason = REFUSED.get(model_type, f"expected one of {', '.join(FAMILIES)}")
        raise CheckpointError(f"mllm_config.model_type: {model_type!s:.80} cannot be used: {reason}")
    return _made(model_type)


def make_mllm(config: PreTrainedConfig) -> Any:
    """A multimodal LLM of a config, with weights as its family draws them."""
    return mllm_class(config.model_type)(config)


@cache
def _made(model_type: str) -> type[Any]:
    family = FAMILIES[model_type]
    module, _, name = family.adapter.partition(":")
    adapter = getattr(import_module(f"{__name__}.{module}"), name)
    if hasattr(adapter, "from_pretrained"):  # already a whole model
        return adapter
    config = import_module("transformers").CONFIG_MAPPING[model_type]
    own = AutoModelForImageTextToText._model_mapping[config]
    made = type(f"{own.__name__}Adapter", (adapter, own), {"__module__": __name__, "decoder": family.decoder})
    made._no_split_modules = own._no_split_modules
    return made


__all__ = ["FAMILIES", "Family", "MultimodalLLM", "make_mllm", "mllm_class"]
