"""A CoReS of a few thousand random weights, in milliseconds: for tests of paths and equalities, not of answers."""

from typing import Any

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

PAD, BOS, EOS, LOC, SEG, IM_START, IM_END, IMAGE, PART = 0, 1, 2, 90, 91, 92, 93, 94, 95
VOCABULARY = 96
IMAGE_TOKENS = 16
TOKENS = {
    1: [("target", "[SEG]", SEG)],
    2: [("location", "[LOC]", LOC), ("target", "[SEG]", SEG)],
    3: [("location", "[LOC]", LOC), ("part", "[PART]", PART), ("target", "[SEG]", SEG)],
}


def tiny_config(levels: int = 2, refiner: str = "paper", **kwargs: Any) -> CoresConfig:
    """32 px pictures for the language model (16 image tokens), 64 px for the segmenter (8 x 8 features)."""
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    text = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    mllm = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        image_seq_length=IMAGE_TOKENS,
        vision_feature_layer=-1,
    )
    segmenter = SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=16,
            output_channels=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=64,
            patch_size=8,
            mlp_dim=32,
            window_size=0,
            global_attn_indexes=[0, 1],
            num_pos_feats=16,
            initializer_range=0.02,
        ),
        prompt_encoder_config=SamPromptEncoderConfig(
            hidden_size=32, image_size=64, patch_size=8, mask_input_channels=16
        ),
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=32, mlp_dim=32, num_attention_heads=4, iou_head_hidden_dim=16, num_hidden_layers=2
        ),
    )
    names = [{"name": name, "token": token, "token_id": number} for name, token, number in TOKENS[levels]]
    return CoresConfig(mllm_config=mllm, segmenter_config=segmenter, levels=names, refiner=refiner, **kwargs)


def tiny_model(config: CoresConfig | None = None, seed: int = 0) -> CoresModel:
    """The model with random weights large enough that every path shows in its numbers; in eval mode."""
    torch.manual_seed(seed)
    model = CoresModel(config or tiny_config())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15)
        model.segmenter.shared_image_embedding.positional_embedding.normal_(0, 1)
    return model.eval()
