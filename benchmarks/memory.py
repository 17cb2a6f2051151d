"""How much memory a model takes, computed from its recipe: `python benchmarks/memory.py` prints the tables
of docs/memory.md.

Nothing is measured: parameters are counted on the meta device, the rest is the formula of docs/memory.md.
Legend: GB = 10^9 bytes; tokens = of one row, the picture's positions counted; questions = asked about one picture.
"""

import sys
from functools import cache
from typing import Any

from full_size import RECIPES, full_size
from torch import nn

from cores.modeling import CoresModel
from cores.recipe import load_recipe

GB = 1e9
QUESTIONS, ANSWER = 3, 128  # asked at once, and the longest answer
TEXT = 160  # tokens of system text, exemplar and question in inference
GPUS = (1, 8)
MASK = 8 * 1024 * 1024 * 4.0  # a mask's logits at the picture's size in fp32, and what its losses keep of them
SUPERVISED = 32  # tokens of an answer
LINEAR = {"bf16": 2.0, "8-bit": 1.0, "4-bit": 0.5 + 4 / 64}  # bytes a weight; of 4 bits, 64 share an fp32 scale
BUCKETS = 2 * 5e8 * 2.0  # DeepSpeed's two buffers for gradients on their way, 5e8 numbers each
LANGUAGE = "mllm.model.language_model.layers."


@cache
def model_of(recipe: str) -> CoresModel:
    return full_size(recipe)


def numbers(model: CoresModel, trains: bool | None = None, inside: str = "") -> int:
    """Parameters that train, that do not, or (None) all but LoRA's."""
    found = 0
    for name, parameter in model.named_parameters():
        wanted = ".lora_" not in name if trains is None else parameter.requires_grad == trains
        if wanted and name.startswith(inside):
            found += parameter.numel()
    return found


def quantised(model: CoresModel) -> int:
    """Weights that 8 or 4 bits apply to: the language model's linear layers but its head."""
    linear = [m for name, m in model.named_modules() if name.startswith(LANGUAGE) and isinstance(m, nn.Linear)]
    return sum(layer.weight.numel() for layer in linear if layer.weight.shape[0] > 64 and layer.weight.shape[1] > 64)


def inference(recipe: str, kind: str) -> float:
    """Bytes of weights, cache and the segmenter's largest layer, for one picture and its questions."""
    model = model_of(recipe)
    text: Any = model.config.mllm_config.text_config
    small = quantised(model)
    weights = (numbers(model) - small) * 2.0 + small * LINEAR[kind]
    tokens = model.mllm.image_tokens + TEXT + ANSWER
    cache_ = QUESTIONS * tokens * 2 * text.num_hidden_layers * text.hidden_size * 2.0
    return weights + cache_ + segmenter_peak(model)


def segmenter_peak(model: CoresModel) -> float:
    """Bytes of the image encoder's largest attention: scores of all heads, before and after the softmax."""
    vision: Any = model.config.segmenter_config.vision_config
    cells = (vision.image_size // vision.patch_size) ** 2
    return 2.0 * 2 * vision.num_attention_heads * float(cells**2)


def training(recipe: str, gpus: int) -> dict[str, float]:
    """Bytes on one of so many GPUs, by what they are for."""
    model, settings = model_of(recipe), load_recipe(recipe)
    text: Any = model.config.mllm_config.text_config
    trained, rows = numbers(model, True), int(settings.trainer["per_device_train_batch_size"])
    longest = (settings.prompt.max_text_tokens or 1024) + model.mllm.image_tokens
    tokens = rows * longest
    supervised = rows * settings.data.questions_per_image * SUPERVISED
    return {
        "frozen weights": numbers(model, False) * 2.0,
        "trained weights": trained * 2.0,  # as they compute
        "optimiser": trained * (12.0 + 2.0) / gpus,  # ZeRO-2 shares out fp32 weights, two moments, gradients
        "buckets": BUCKETS,
        "checkpointed states": tokens * text.hidden_size * 2.0 * text.num_hidden_layers,
        "one layer": tokens * 2.0 * (8 * text.hidden_size + 3 * text.intermediate_size)
        + rows * text.num_attention_heads * float(longest**2) * 4,
        "logits": supervised * text.vocab_size * 4.0 * 3,
        "segmenter": rows * segmenter_peak(model),
        "masks": rows * settings.data.questions_per_image * MASK,
    }


def inference_table() -> str:
    """Markdown: GB for inference in each precision."""
    rows = ["| recipe | parameters | " + " | ".join(LINEAR) + " |", "| --- | ---: |" + " ---: |" * len(LINEAR)]
    for recipe in RECIPES:
        cells = " | ".join(f"{inference(recipe, kind) / GB:.1f}" for kind in LINEAR)
        rows.append(f"| {recipe} | {numbers(model_of(recipe)) / GB:.2f} B | {cells} |")
    return "\n".join(rows) + "\n"


def training_table() -> str:
    """Markdown: GB a GPU for training, by what they are for."""
    names = list(training(RECIPES[0], 1))
    rows = ["| recipe | GPUs | trained | " + " | ".join(names) + " | all |", "| --- |" + " ---: |" * (len(names) + 3)]
    for recipe in RECIPES:
        for gpus in GPUS:
            found = training(recipe, gpus)
            cells = " | ".join(f"{found[name] / GB:.1f}" for name in names)
            trained = f"{numbers(model_of(recipe), True) / 1e6:.0f} M"
            rows.append(f"| {recipe} | {gpus} | {trained} | {cells} | {sum(found.values()) / GB:.1f} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(f"{inference_table()}\n{training_table()}")
