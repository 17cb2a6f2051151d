"""Folders of tiny bases of every family, as the hub has them: weights, tokenizer, chat template, image processor."""

import importlib
from pathlib import Path
from typing import Any

from byte_tokenizer import byte_tokenizer
from test_chat import CHATML
from test_language_pixels import tokens_of
from tiny_families import FAMILIES, SQUARES, noisy
from tiny_segmenters import CONFIGS, tiny_segmenter
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

from cores.modeling.mllms import make_mllm
from cores.processing.language_pixels import SQUARES as SQUARE_FAMILIES
from cores.processing.picture_layouts import LAYOUTS

__all__ = ["BUILT", "CONFIGS", "write_mllm", "write_segmenter"]

GRID = {
    "patch_size": 4,
    "merge_size": 2,
    "temporal_patch_size": 2,
    "size": {"shortest_edge": 256, "longest_edge": 768},
}
TILE = {"height": 16, "width": 16}
IMAGES: dict[str, dict[str, Any]] = {  # options of each family's image processor that go with the tiny configs
    "llava_next": {"size": {"shortest_edge": 16}, "crop_size": TILE, "image_grid_pinpoints": SQUARES},
    "llava_onevision": {"size": TILE, "image_grid_pinpoints": SQUARES},
    "qwen2_vl": GRID, "qwen2_5_vl": GRID, "qwen3_vl": GRID, "qwen3_5": GRID, "glm4v": GRID,
    "idefics3": {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 16}},
    "smolvlm": {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 16}},
    "internvl": {"size": TILE, "min_patches": 1, "max_patches": 3},
    "mistral3": {"size": {"longest_edge": 24}, "patch_size": 4},
    "gemma3": {"size": TILE},
    "gemma4": {"patch_size": 4, "pooling_kernel_size": 2, "max_soft_tokens": 70},
}  # fmt: skip
BUILT = sorted({*IMAGES, *SQUARE_FAMILIES} & FAMILIES.keys())  # the others' image processors want torchvision


def write_mllm(family: str, folder: Path) -> Path:
    """A multimodal LLM's folder. The template is ChatML, with what the family writes for a picture."""
    image, *others = tokens_of(family)
    layout = LAYOUTS.get(family)
    special = [image, *others, *(layout.needs if layout else ())]
    whole = "<|vision_start|><image><|vision_end|>"
    grid = layout is not None and family in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5")
    written = layout.written or image if layout else image
    template = CHATML.replace("<image>", written) if grid else CHATML.replace(whole, written)
    if grid:
        special += ["<|vision_start|>", "<|vision_end|>"]
    tokenizer = byte_tokenizer([*special, "<|im_start|>"], None, "<|im_end|>")
    number = tokenizer.convert_tokens_to_ids(image)
    tiny = FAMILIES[family]
    config = tiny.make_config(image_token_id=number, image_token_index=number)
    for part in (config, config.get_text_config()):
        part.vocab_size = len(tokenizer)
    if family == "internvl":
        config.image_seq_length = 4
    if family == "gemma4":
        config.text_config.vocab_size_per_layer_input = len(tokenizer)
    noisy(make_mllm(config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(template)
    if family in IMAGES:
        name = IMAGE_PROCESSOR_MAPPING_NAMES[family]["pil"]
        home = {"GotOcr2": "got_ocr2", "Pixtral": "pixtral", "Qwen2VL": "qwen2_vl"}
        place = next((where for start, where in home.items() if name.startswith(start)), family)
        kind = getattr(importlib.import_module(f"transformers.models.{place}.image_processing_pil_{place}"), name)
        kind(**IMAGES[family]).save_pretrained(folder)
    return folder


def write_segmenter(family: str, folder: Path) -> Path:
    tiny_segmenter(family).save_pretrained(folder)
    return folder
