"""Tiny random models as the published programs write them: CoReS with and without refiner, LISA, both projectors."""

import json
import re
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import sentencepiece
import torch
from safetensors.torch import save_file
from tiny import tiny_config, tiny_model
from torch import Tensor

from cores.checkpoints.published.keys import CLIP, PUBLISHED, ignored, rename
from cores.modeling import CoresModel

WORDS = "what is the blade in this image please output segmentation mask it usually appears on a knife sure".split()
PIECES = 330
TOKENS = {1: ["[SEG]"], 2: ["[SEG_SEMA]", "[SEG]"]}
TOWER = "mllm.model.vision_tower."
TRAINING_TOWER = "model.vision_tower.vision_tower."


@cache
def tokenizer_model() -> Path:
    """A sentencepiece model with LLaMA's flags and few pieces."""
    folder = Path(mkdtemp())
    text = folder / "text.txt"
    text.write_text("\n".join(f"{a} {b} {c}." for a in WORDS for b in WORDS for c in WORDS[:4]))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "tokenizer"), vocab_size=PIECES, model_type="bpe",
        byte_fallback=True, normalization_rule_name="identity", split_digits=True, add_dummy_prefix=True,
        remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, minloglevel=2, character_coverage=1.0,
    )  # fmt: skip
    return folder / "tokenizer.model"


def added_tokens(levels: int) -> dict[str, int]:
    """As LLaVA-Lightning-7B-v1-1 and what CoReS adds to it: the picture's marks are there before."""
    names = ["<im_patch>", "<im_start>", "<im_end>", *TOKENS[levels]]
    return {name: PIECES + number for number, name in enumerate(names)}


def published_model(levels: int = 2, refiner: str = "none", projector: str = "linear", seed: int = 0) -> CoresModel:
    """Our model of such a checkpoint, in fp32 that fp16 can hold."""
    config = tiny_config(levels, refiner, style="published" if levels == 2 else "lisa")
    ids = added_tokens(levels)
    config.mllm_config.projector = projector
    config.mllm_config.text_config.vocab_size = max(ids.values()) + 1
    config.mllm_config.image_token_id = max(ids.values()) + 1
    decoder = config.segmenter_config.mask_decoder_config
    decoder.num_attention_heads, decoder.layer_norm_eps = 8, 1e-5  # SAM's; no tensor tells them
    for level, token in zip(config.levels, TOKENS[levels], strict=True):
        level |= {"token": token, "token_id": ids[token]}
    model = tiny_model(config, seed)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.copy_(value.half().float())
    return model


def published_state(model: CoresModel) -> dict[str, Tensor]:
    """Its tensors under published names, fp16, without the tower."""
    state = {name: value for name, value in model.state_dict().items() if ignored(name) is None}
    found = {rename(name, PUBLISHED, back=True): value.half() for name, value in state.items() if TOWER not in name}
    layers = model.config.mllm_config.text_config.num_hidden_layers
    return found | {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": torch.ones(4).half() for n in range(layers)}


def published_config(model: CoresModel) -> dict[str, Any]:
    text = model.config.mllm_config.text_config
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
             "rms_norm_eps", "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")  # fmt: skip
    return {
        "model_type": "llava",
        "architectures": ["LISAForCausalLM"],
        **{name: getattr(text, name) for name in names},
        "mm_hidden_size": model.config.mllm_config.vision_config.hidden_size,
        "mm_vision_select_layer": model.config.mllm_config.vision_feature_layer,
        "mm_vision_tower": "/home/somebody/clip",
        "mm_use_im_start_end": True,
        "out_dim": 32,
    }


def write_published(folder: Path, model: CoresModel, shards: int = 2, safetensors: bool = False) -> Path:
    """A published folder in `folder`; gives it. `shards`: files, 1 without an index."""
    folder.mkdir(parents=True)
    levels = len(model.config.levels)
    (folder / "config.json").write_text(json.dumps(published_config(model)))
    (folder / "added_tokens.json").write_text(json.dumps(added_tokens(levels)))
    (folder / "tokenizer.model").write_bytes(tokenizer_model().read_bytes())
    write_weights(folder, published_state(model), shards, safetensors)
    return folder


def write_weights(folder: Path, state: dict[str, Tensor], shards: int = 1, safetensors: bool = False) -> None:
    stem, end = ("model", "safetensors") if safetensors else ("pytorch_model", "bin")
    names = sorted(state)
    files = [f"{stem}-{n + 1:05d}-of-{shards:05d}.{end}" for n in range(shards)] if shards > 1 else [f"{stem}.{end}"]
    for number, file in enumerate(files):
        part = {name: state[name].contiguous().clone() for name in names[number::shards]}
        save_file(part, folder / file) if safetensors else torch.save(part, folder / file)
    if shards > 1:
        places = {name: files[number % shards] for number, name in enumerate(names)}
        (folder / f"{stem}.{end}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def write_clip(folder: Path, model: CoresModel) -> Path:
    """The tower as a CLIP on a hub: old names, and a text half that nobody needs."""
    folder.mkdir(parents=True)
    vision = model.config.mllm_config.vision_config.to_dict()
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": vision}))
    state = {name.removeprefix(TOWER): value for name, value in model.state_dict().items() if name.startswith(TOWER)}
    weights = {str(rename(name, CLIP, back=True)): value.half() for name, value in state.items()}
    weights |= {"logit_scale": torch.tensor(1.0), "text_model.final_layer_norm.weight": torch.ones(3)}
    weights["vision_model.embeddings.position_ids"] = torch.arange(17)
    write_weights(folder, weights)
    return folder


def training_state(model: CoresModel, rank: int = 4, base_layer: bool = False, seed: int = 1) -> dict[str, Tensor]:
    """What the training program leaves: prefixed names, the tower, LoRA beside q_proj and v_proj; all fp32."""
    generator = torch.Generator().manual_seed(seed)
    state = {name: value.float() for name, value in published_state(model).items()}
    for name, value in model.state_dict().items():
        if name.startswith(TOWER):
            state[TRAINING_TOWER + str(rename(name.removeprefix(TOWER), CLIP, back=True))] = value.float()
    found = {}
    for name, value in state.items():
        layer = name.removesuffix(".weight")
        adapted = re.fullmatch(r"model\.layers\.\d+\.self_attn\.[qv]_proj", layer)
        found[
            f"base_model.model.{layer}.base_layer.weight" if adapted and base_layer else f"base_model.model.{name}"
        ] = value
        for part, shape in {"A": (rank, value.shape[-1]), "B": (value.shape[0], rank)}.items() if adapted else ():
            key = f"base_model.model.{layer}.lora_{part}.default.weight"
            found[key] = torch.randn(shape, generator=generator) * 0.3
    return found
