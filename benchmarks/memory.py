"""How much memory a model takes, computed from its recipe: `python benchmarks/memory.py` prints the tables
of docs/memory.md.

Nothing is measured: parameters are counted on the meta device, the rest is the formula of docs/memory.md.
Legend: GB = 10^9 bytes; tokens = of one row, the picture's positions counted; questions = asked about one picture;
cells = of the segmenter's feature grid.
"""

import re
import sys
from functools import cache
from typing import Any

import torch
from full_size import LATER, RECIPES, full_size
from PIL import Image
from published_sizes import MLLMS
from torch import nn

from cores.modeling import CoresModel
from cores.modeling.mllms import FAMILIES
from cores.processing.picture_layouts import LAYOUTS, Facts
from cores.recipe import load_recipe

GB = 1e9
QUESTIONS, ANSWER = 3, 128  # asked at once, and the longest answer
TEXT = 160  # tokens of system text, exemplar and question in inference
PHOTOGRAPH = (640, 480)  # width and height, as COCO's are
LARGE = (3264, 2448)  # 8 megapixels, as many of Mapillary's have
GPUS = (1, 8)
MASK = 8 * 1024 * 1024 * 4.0  # a mask's logits at the picture's size in fp32, and what its losses keep of them
DECODED = (
    1e8  # a mask's activations in the mask decoder, a level, for its gradients (`masks_per_pass` of them at most)
)
SUPERVISED = 32  # tokens of an answer
LINEAR = {"bf16": 2.0, "8-bit": 1.0, "4-bit": 0.5 + 4 / 64}  # bytes a weight; of 4 bits, 64 share an fp32 scale
BUCKETS = 2 * 5e8 * 2.0  # DeepSpeed's two buffers for gradients on their way, 5e8 numbers each


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
    language = f"mllm.{FAMILIES[model.config.mllm_config.model_type].decoder}.layers."
    linear = [m for name, m in model.named_modules() if name.startswith(language) and isinstance(m, nn.Linear)]
    return sum(layer.weight.numel() for layer in linear if layer.weight.shape[0] > 64 and layer.weight.shape[1] > 64)


@cache
def picture_tokens(recipe: str, size: tuple[int, int] = PHOTOGRAPH) -> int:
    """Positions that a picture of this size (width, height) takes in the prompt, as its family lays it out."""
    name, mllm = str(load_recipe(recipe).model.mllm), model_of(recipe).config.mllm_config
    images = MLLMS[name].images
    if images is None:
        return int(model_of(recipe).mllm.image_tokens)
    layout, processor = LAYOUTS[mllm.model_type], images()
    layout.fit(processor, mllm)
    found = processor(images=[Image.new("RGB", size)], return_tensors="pt", **layout.asks)
    pixels = {name: torch.as_tensor(value) for name, value in found.items()}
    text = layout.text(Facts("<image>", layout.tile(mllm), processor), pixels)
    return len(re.findall(r"<[^>]+>|\n+", text))


def cache_bytes(text: Any, tokens: int) -> float:
    """Keys and values of every layer, in bf16."""
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return tokens * 2 * text.num_hidden_layers * text.num_key_value_heads * head * 2.0


def inference(recipe: str, kind: str) -> float:
    """Bytes of weights, cache and the segmenter's largest layer, for one picture and its questions."""
    model = model_of(recipe)
    small = quantised(model)
    weights = (numbers(model) - small) * 2.0 + small * LINEAR[kind]
    tokens = picture_tokens(recipe) + TEXT + ANSWER
    return weights + QUESTIONS * cache_bytes(model.mllm.text_config, tokens) + segmenter_peak(model)


def segmenter_peak(model: CoresModel) -> float:
    """Bytes of the image encoder's largest attention, scores of all heads before and after the softmax, and of the
    features that are kept."""
    segmenter = model.segmenter
    cells = (segmenter.mask_size // 4) ** 2
    levels = 1 if segmenter.fit == "pad" else 1 + 4 + 16  # a pyramid's other two are twice and four times as fine
    return 2.0 * 2 * attention_heads(model) * float(cells**2) + 2.0 * segmenter.dim * levels * cells


def attention_heads(model: CoresModel) -> int:
    """Heads of the image encoder where it sees the whole picture; none in a convolutional one."""
    vision: Any = model.config.segmenter_config.vision_config
    trunk = getattr(vision, "backbone_config", vision)
    stages = getattr(trunk, "num_attention_heads_per_stage", None)  # Hiera sees the whole in its third
    return int(stages[2] if stages else getattr(trunk, "num_attention_heads", 0))


def training(recipe: str, gpus: int, size: tuple[int, int] = PHOTOGRAPH) -> dict[str, float]:
    """Bytes on one of so many GPUs, by what they are for. `size`: width and height of every picture."""
    model, settings = model_of(recipe), load_recipe(recipe)
    text = model.mllm.text_config
    trained, rows = numbers(model, True), int(settings.trainer["per_device_train_batch_size"])
    shared = settings.trainer["deepspeed"] is not None
    longest = (settings.prompt.max_text_tokens or 1024) + picture_tokens(recipe, size)
    tokens = rows * longest
    masks = rows * settings.data.questions_per_image
    return {
        "frozen weights": numbers(model, False) * 2.0,
        "trained weights": trained * (2.0 if shared else 4.0),  # as they compute
        # fp32 weights, two moments, gradients, which ZeRO-2 shares out; without it two moments and fp32 gradients
        "optimiser": trained * (12.0 + 2.0) / gpus if shared else trained * 12.0,
        "buckets": BUCKETS if shared else 0.0,
        "checkpointed states": tokens * text.hidden_size * 2.0 * text.num_hidden_layers,
        "one layer": tokens * 2.0 * (8 * text.hidden_size + 3 * text.intermediate_size)
        + rows * text.num_attention_heads * float(longest**2) * 4,
        "logits": masks * SUPERVISED * text.vocab_size * 4.0 * 3,
        "segmenter": rows * segmenter_peak(model),
        "masks": masks * MASK + min(masks, settings.model.masks_per_pass) * len(model.config.levels) * DECODED,
    }


def inference_table() -> str:
    """Markdown: GB for inference in each precision."""
    rows = [
        "| recipe | parameters | a photograph's positions | " + " | ".join(LINEAR) + " |",
        "| --- | ---: | ---: |" + " ---: |" * len(LINEAR),
    ]
    for recipe in RECIPES:
        cells = " | ".join(f"{inference(recipe, kind) / GB:.1f}" for kind in LINEAR)
        rows.append(f"| {recipe} | {numbers(model_of(recipe)) / GB:.2f} B | {picture_tokens(recipe)} | {cells} |")
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


def picture_table() -> str:
    """Markdown: what larger pictures take, of the recipes whose pictures are laid out by their sizes."""
    rows = [
        "| recipe | positions, 640 x 480 | GB a GPU on eight | positions, 3264 x 2448 | GB a GPU on eight |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for recipe in LATER:
        cells = []
        for size in (PHOTOGRAPH, LARGE):
            cells += [str(picture_tokens(recipe, size)), f"{sum(training(recipe, 8, size).values()) / GB:.1f}"]
        rows.append(f"| {recipe} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(f"{inference_table()}\n{training_table()}\n{picture_table()}")
