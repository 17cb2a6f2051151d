"""How much memory a model takes, computed from its recipe: `python benchmarks/memory.py` prints the tables
of docs/memory.md.

Nothing is measured: parameters are counted on the meta device, the rest is `cores.training.memory` and, for inference,
the formula below. Legend: GB = 10^9 bytes; tokens = of one row, the picture's positions counted; questions = asked
about one picture.
"""

import sys
from functools import cache
from typing import Any

from full_size import LATER, RECIPES, full_size

from cores.modeling import CoresModel
from cores.recipe import load_recipe
from cores.training.memory import GB, PHOTOGRAPH, numbers, quantised, segmenter_peak, training_memory
from cores.training.outline import published_positions

QUESTIONS, ANSWER = 3, 128  # asked at once, and the longest answer
TEXT = 160  # tokens of system text, exemplar and question in inference
LARGE = (3264, 2448)  # 8 megapixels, as many of Mapillary's have
GPUS = (1, 8)
LINEAR = {"bf16": 2.0, "8-bit": 1.0, "4-bit": 0.5 + 4 / 64}  # bytes a weight; of 4 bits, 64 share an fp32 scale


@cache
def model_of(recipe: str) -> CoresModel:
    return full_size(recipe)


@cache
def picture_tokens(recipe: str, size: tuple[int, int] = PHOTOGRAPH) -> int:
    """Positions that a picture of this size (width, height) takes in the prompt, as its family lays it out."""
    return published_positions(str(load_recipe(recipe).model.mllm), model_of(recipe), size)


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


def training(recipe: str, gpus: int, size: tuple[int, int] = PHOTOGRAPH) -> dict[str, float]:
    """Bytes on one of so many GPUs, by what they are for. `size`: width and height of every picture."""
    return training_memory(model_of(recipe), load_recipe(recipe), picture_tokens(recipe, size), gpus)


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
