"""Tiny instruct models of real families in a hub's layout, with random weights."""

from pathlib import Path
from typing import Any

import torch
from tiny import tiny_config
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessorPil,
    SamModel,
)

MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
VOCABULARY = {token: n for n, token in enumerate([*MARKS, *map(chr, range(32, 127)), "\n"])}
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PATCH = 4  # pixels


def letters() -> PreTrainedTokenizerFast:
    """A token a letter, with Qwen's marks and a chat template like theirs."""
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token=MARKS[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    found = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=MARKS[2], pad_token=MARKS[0], extra_special_tokens=MARKS[3:] + MARKS[1:2]
    )
    found.chat_template = TEMPLATE
    return found


def instruct(family: str, folder: Path) -> Path:
    """A random model of `qwen3_vl` or `qwen2_5_vl`, saved with its tokenizer and image processor."""
    text = {
        "vocab_size": len(VOCABULARY), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 4096,
        "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
    }  # fmt: skip
    vision: dict[str, Any] = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "patch_size": PATCH,
        "out_hidden_size": 32, "spatial_merge_size": 2, "temporal_patch_size": 2,
    }  # fmt: skip
    if family == "qwen3_vl":
        vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
    else:
        vision |= {"window_size": 16, "fullatt_block_indexes": [1]}
    marks = {f"{name}_token_id": VOCABULARY[f"<|{token}|>"] for name, token in (
        ("image", "image_pad"), ("vision_start", "vision_start"), ("vision_end", "vision_end")
    )}  # fmt: skip
    config = AutoConfig.for_model(family, text_config=text, vision_config=vision, video_token_id=0, **marks)
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config).eval()
    for weight in model.parameters():
        weight.data.mul_(2)
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    letters().save_pretrained(folder)
    size = {"shortest_edge": 16 * PATCH**2, "longest_edge": 20 * 20 * PATCH**2}
    Qwen2VLImageProcessorPil(patch_size=PATCH, merge_size=2, size=size).save_pretrained(folder)
    return folder


def tiny_sam(folder: Path) -> None:
    """A random SAM of 64 px, saved."""
    torch.manual_seed(0)
    SamModel(tiny_config().segmenter_config).save_pretrained(folder)
