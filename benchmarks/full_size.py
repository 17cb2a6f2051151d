"""The models of the recipes at their full size, on the meta device: every tensor has a shape, none has numbers."""

import warnings
from dataclasses import dataclass

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    SamConfig,
    SamMaskDecoderConfig,
    SamPromptEncoderConfig,
    SamVisionConfig,
)

from cores.modeling import CoresConfig, CoresModel
from cores.modeling.configuration import LEVEL_NAMES
from cores.recipe import Recipe, load_recipe
from cores.training.trainable import choose_parts


@dataclass(frozen=True)
class Llava:
    """A LLaVA that recipes name. `rows`: of its embedding table; sizes of LLaMA's and of CLIP ViT-L/14's picture."""

    rows: int
    width: int
    inner: int
    layers: int
    heads: int
    picture: int
    projector: str


# rows: LLaVA v1 adds three tokens to LLaMA's 32000, LLaVA-1.5 in transformers' format is padded to 32064
LLAVAS = {
    "llava-7b-v1": Llava(32003, 4096, 11008, 32, 32, 224, "linear"),
    "llava-13b-v1": Llava(32003, 5120, 13824, 40, 40, 224, "linear"),
    "llava-hf/llava-1.5-13b-hf": Llava(32064, 5120, 13824, 40, 40, 336, "mlp2x_gelu"),
}
TOKENS = {"location": "[LOC]", "part": "[PART]", "target": "[SEG]"}
RECIPES = ("cores-7b", "cores-13b", "cores-llava15-13b", "lisa-7b")


def clip_config(picture: int) -> CLIPVisionConfig:
    """ViT-L/14, as released for pictures of 224 or 336 pixels."""
    return CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        patch_size=14,
        image_size=picture,
    )


def sam_config() -> SamConfig:
    """SAM ViT-H."""
    return SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=1280,
            num_hidden_layers=32,
            num_attention_heads=16,
            global_attn_indexes=[7, 15, 23, 31],
            mlp_dim=5120,
        ),
        prompt_encoder_config=SamPromptEncoderConfig(),
        mask_decoder_config=SamMaskDecoderConfig(),
    )


def config_of(recipe: Recipe) -> CoresConfig:
    """The config of a recipe's model, with rows for its grounding tokens behind those of its LLaVA."""
    llava = LLAVAS[str(recipe.model.mllm)]
    names = LEVEL_NAMES[recipe.model.levels or 2]
    rows = max(llava.rows, 32003 + len(names))  # the padding of LLaVA-1.5 holds them
    text = LlamaConfig(
        vocab_size=rows,
        hidden_size=llava.width,
        intermediate_size=llava.inner,
        num_hidden_layers=llava.layers,
        num_attention_heads=llava.heads,
        num_key_value_heads=llava.heads,
    )
    mllm = LlavaConfig(
        vision_config=clip_config(llava.picture),
        text_config=text,
        image_token_index=rows,
        image_seq_length=(llava.picture // 14) ** 2,
        projector=llava.projector,
    )
    levels = [{"name": name, "token": TOKENS[name], "token_id": 32003 + n} for n, name in enumerate(names)]
    return CoresConfig(
        mllm_config=mllm,
        segmenter_config=sam_config(),
        levels=levels,
        refiner=recipe.model.refiner or "paper",
        style=recipe.model.style or "paper",
    )


def full_size(name: str) -> CoresModel:
    """A recipe's model on the meta device, with the parts that train ready to."""
    recipe = load_recipe(name)
    with torch.device("meta"):
        model = CoresModel(config_of(recipe))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # PEFT cannot draw numbers for what has none
            choose_parts(model, recipe.model.train, recipe.lora)
    return model
