"""Sizes of the bases that recipes name, as the `config.json` of each says them; no weights are needed to count them.

A folder's own config decides when one trains. These are here so that models can be built, and their memory computed,
without a download; `tests/test_recipe_models.py` holds them to the numbers of parameters that were published.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    CLIPVisionConfig,
    EdgeTamConfig,
    EdgeTamVisionConfig,
    Idefics3Config,
    Idefics3ImageProcessorPil,
    LlamaConfig,
    LlavaConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionImageProcessorPil,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2VisionConfig,
    Sam3TrackerConfig,
    Sam3VisionConfig,
    SamConfig,
    SamMaskDecoderConfig,
    SamPromptEncoderConfig,
    SamVisionConfig,
)


@dataclass(frozen=True)
class Published:
    """A multimodal LLM. `words`: how many tokens its tokenizer has, where new ones get their ids (rows of the table
    beyond them are spare), `marks`: how many of a picture's marks are still to be added to them; `images`: its image
    processor; None: one square of a fixed side.
    """

    config: Callable[[], Any]
    words: int
    images: Callable[[], Any] | None = None
    marks: int = 0


def llava(rows: int, width: int, inner: int, layers: int, heads: int, side: int, projector: str) -> LlavaConfig:
    """LLaMA and CLIP ViT-L/14. `rows`: of the embedding table; `side`: of the picture."""
    text = LlamaConfig(
        vocab_size=rows,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
    )
    return LlavaConfig(
        vision_config=clip_config(side),
        text_config=text,
        image_token_index=rows,
        image_seq_length=(side // 14) ** 2,
        projector=projector,
    )


def clip_config(side: int) -> CLIPVisionConfig:
    """ViT-L/14, as released for pictures of 224 or 336 pixels."""
    return CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        patch_size=14,
        image_size=side,
    )


def qwen3_vl(width: int, inner: int, tower: dict[str, Any], tied: bool) -> Qwen3VLConfig:
    """Of 36 layers; width and sizes of the vision tower differ."""
    return Qwen3VLConfig(
        text_config={
            "vocab_size": 151936,
            "hidden_size": width,
            "intermediate_size": inner,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
        vision_config={"num_heads": 16, "patch_size": 16, "out_hidden_size": width, **tower},
        tie_word_embeddings=tied,
    )


def qwen25_vl_7b() -> Qwen2_5_VLConfig:
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "patch_size": 14,
            "out_hidden_size": 3584,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
    )


def smolvlm_500m() -> Idefics3Config:
    """Its family is Idefics3's: SmolLM2-360M, whose head is not tied here, and SigLIP base at 512."""
    return Idefics3Config(
        text_config={
            "model_type": "llama",
            "vocab_size": 49280,
            "hidden_size": 960,
            "intermediate_size": 2560,
            "num_hidden_layers": 32,
            "num_attention_heads": 15,
            "num_key_value_heads": 5,
            "pad_token_id": 2,
        },
        vision_config={
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "image_size": 512,
            "patch_size": 16,
        },
        image_token_id=49190,
        scale_factor=4,
    )


def llava_onevision_05b() -> LlavaOnevisionConfig:
    """Qwen2-0.5B and SigLIP so400m at 384, without its last layer."""
    return LlavaOnevisionConfig(
        text_config={
            "model_type": "qwen2",
            "vocab_size": 152000,
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
        },
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 26,
            "num_attention_heads": 16,
            "image_size": 384,
            "patch_size": 14,
            "vision_use_head": False,
        },
    )


def qwen_images(patch: int, most: int) -> Qwen2VLImageProcessorPil:
    """`most`: pixels that a picture keeps at most."""
    return Qwen2VLImageProcessorPil(patch_size=patch, size={"shortest_edge": 3136, "longest_edge": most})


SMALL_TOWER = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "deepstack_visual_indexes": [5, 11, 17]}
LARGE_TOWER = {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "deepstack_visual_indexes": [8, 16, 24]}
# LLaVA v1 adds three tokens to LLaMA's 32000; LLaVA-1.5 in transformers' format is padded to 32064
MLLMS = {
    "llava-7b-v1": Published(lambda: llava(32003, 4096, 11008, 32, 32, 224, "linear"), 32003),
    "llava-13b-v1": Published(lambda: llava(32003, 5120, 13824, 40, 40, 224, "linear"), 32003),
    "llava-llama2-13b": Published(lambda: llava(32000, 5120, 13824, 40, 40, 224, "linear"), 32000, marks=2),
    "llava-hf/llava-1.5-13b-hf": Published(lambda: llava(32064, 5120, 13824, 40, 40, 336, "mlp2x_gelu"), 32003),
    "Qwen/Qwen3-VL-4B-Instruct": Published(
        lambda: qwen3_vl(2560, 9728, SMALL_TOWER, tied=True), 151669, lambda: qwen_images(16, 16777216)
    ),
    "Qwen/Qwen3-VL-8B-Instruct": Published(
        lambda: qwen3_vl(4096, 12288, LARGE_TOWER, tied=False), 151669, lambda: qwen_images(16, 16777216)
    ),
    "Qwen/Qwen2.5-VL-7B-Instruct": Published(qwen25_vl_7b, 151665, lambda: qwen_images(14, 12845056)),
    "HuggingFaceTB/SmolVLM-500M-Instruct": Published(
        smolvlm_500m,
        49280,
        lambda: Idefics3ImageProcessorPil(size={"longest_edge": 2048}, max_image_size={"longest_edge": 512}),
    ),
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf": Published(
        llava_onevision_05b, 151648, LlavaOnevisionImageProcessorPil
    ),
}


def sam_vit_huge() -> SamConfig:
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


def sam2_hiera_large() -> Sam2VisionConfig:
    trunk = Sam2HieraDetConfig(
        hidden_size=144,
        num_attention_heads=2,
        blocks_per_stage=[2, 6, 36, 4],
        embed_dim_per_stage=[144, 288, 576, 1152],
        num_attention_heads_per_stage=[2, 4, 8, 16],
        window_size_per_stage=[8, 4, 16, 8],
        global_attention_blocks=[23, 33, 43],
    )
    return Sam2VisionConfig(backbone_config=trunk, backbone_channel_list=[1152, 576, 288, 144])


class TrunkConfig(PreTrainedConfig):
    """EdgeTAM's trunk without timm."""

    model_type = "counted_trunk"


class Trunk(PreTrainedModel):
    """As many numbers as RepViT-M1 has without its head, counted once with timm 1.0.31; it sees nothing."""

    config_class = TrunkConfig

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__(config)
        self.numbers = nn.Parameter(torch.empty(4_713_712))
        self.post_init()


AutoConfig.register(TrunkConfig.model_type, TrunkConfig)
AutoModel.register(TrunkConfig, Trunk)


def edgetam() -> EdgeTamVisionConfig:
    return EdgeTamVisionConfig(backbone_config=TrunkConfig())


SEGMENTERS: dict[str, Callable[[], Any]] = {  # what single pictures need of them
    "facebook/sam-vit-huge": sam_vit_huge,
    "facebook/sam2.1-hiera-large": lambda: Sam2Config(vision_config=sam2_hiera_large()),
    "facebook/sam3": lambda: Sam3TrackerConfig(vision_config=Sam3VisionConfig()),
    "yonigozlan/EdgeTAM-hf": lambda: EdgeTamConfig(vision_config=edgetam()),
}
