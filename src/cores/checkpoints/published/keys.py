"""Names of tensors: what the published checkpoints call them and what we do. One table, read both ways.

A line is (theirs, ours). `{i}` and `{j}` stand for numbers, `{rest}` for the end of a name; the same ones are on both
sides, so that a line read backwards is a line too. A test holds that no name matches two lines.
"""

import re
from functools import cache

from cores.checkpoints.shapes import SECOND_NAMES

Table = tuple[tuple[str, str], ...]


def inside(table: Table, theirs: str, ours: str) -> Table:
    """A table for the same tensors when they are part of something larger: a prefix on both sides."""
    return tuple((theirs + old, ours + new) for old, new in table)


# SAM's own names (its .pth files) and transformers' `SamModel`
SAM: Table = (
    ("image_encoder.pos_embed", "vision_encoder.pos_embed"),
    ("image_encoder.patch_embed.proj.{rest}", "vision_encoder.patch_embed.projection.{rest}"),
    ("image_encoder.blocks.{i}.norm{j}.{rest}", "vision_encoder.layers.{i}.layer_norm{j}.{rest}"),
    ("image_encoder.blocks.{i}.attn.{rest}", "vision_encoder.layers.{i}.attn.{rest}"),
    ("image_encoder.blocks.{i}.mlp.{rest}", "vision_encoder.layers.{i}.mlp.{rest}"),
    ("image_encoder.neck.0.{rest}", "vision_encoder.neck.conv1.{rest}"),
    ("image_encoder.neck.1.{rest}", "vision_encoder.neck.layer_norm1.{rest}"),
    ("image_encoder.neck.2.{rest}", "vision_encoder.neck.conv2.{rest}"),
    ("image_encoder.neck.3.{rest}", "vision_encoder.neck.layer_norm2.{rest}"),
    ("prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", "shared_image_embedding.positional_embedding"),
    ("prompt_encoder.point_embeddings.{i}.{rest}", "prompt_encoder.point_embed.{i}.{rest}"),
    ("prompt_encoder.not_a_point_embed.{rest}", "prompt_encoder.not_a_point_embed.{rest}"),
    ("prompt_encoder.no_mask_embed.{rest}", "prompt_encoder.no_mask_embed.{rest}"),
    ("prompt_encoder.mask_downscaling.0.{rest}", "prompt_encoder.mask_embed.conv1.{rest}"),
    ("prompt_encoder.mask_downscaling.1.{rest}", "prompt_encoder.mask_embed.layer_norm1.{rest}"),
    ("prompt_encoder.mask_downscaling.3.{rest}", "prompt_encoder.mask_embed.conv2.{rest}"),
    ("prompt_encoder.mask_downscaling.4.{rest}", "prompt_encoder.mask_embed.layer_norm2.{rest}"),
    ("prompt_encoder.mask_downscaling.6.{rest}", "prompt_encoder.mask_embed.conv3.{rest}"),
    ("mask_decoder.iou_token.{rest}", "mask_decoder.iou_token.{rest}"),
    ("mask_decoder.mask_tokens.{rest}", "mask_decoder.mask_tokens.{rest}"),
    ("mask_decoder.transformer.layers.{i}.norm{j}.{rest}", "mask_decoder.transformer.layers.{i}.layer_norm{j}.{rest}"),
    ("mask_decoder.transformer.layers.{i}.self_attn.{rest}", "mask_decoder.transformer.layers.{i}.self_attn.{rest}"),
    (
        "mask_decoder.transformer.layers.{i}.cross_attn_token_to_image.{rest}",
        "mask_decoder.transformer.layers.{i}.cross_attn_token_to_image.{rest}",
    ),
    (
        "mask_decoder.transformer.layers.{i}.cross_attn_image_to_token.{rest}",
        "mask_decoder.transformer.layers.{i}.cross_attn_image_to_token.{rest}",
    ),
    ("mask_decoder.transformer.layers.{i}.mlp.{rest}", "mask_decoder.transformer.layers.{i}.mlp.{rest}"),
    (
        "mask_decoder.transformer.final_attn_token_to_image.{rest}",
        "mask_decoder.transformer.final_attn_token_to_image.{rest}",
    ),
    ("mask_decoder.transformer.norm_final_attn.{rest}", "mask_decoder.transformer.layer_norm_final_attn.{rest}"),
    ("mask_decoder.output_upscaling.0.{rest}", "mask_decoder.upscale_conv1.{rest}"),
    ("mask_decoder.output_upscaling.1.{rest}", "mask_decoder.upscale_layer_norm.{rest}"),
    ("mask_decoder.output_upscaling.3.{rest}", "mask_decoder.upscale_conv2.{rest}"),
    (
        "mask_decoder.output_hypernetworks_mlps.{i}.layers.0.{rest}",
        "mask_decoder.output_hypernetworks_mlps.{i}.proj_in.{rest}",
    ),
    (
        "mask_decoder.output_hypernetworks_mlps.{i}.layers.1.{rest}",
        "mask_decoder.output_hypernetworks_mlps.{i}.layers.0.{rest}",
    ),
    (
        "mask_decoder.output_hypernetworks_mlps.{i}.layers.2.{rest}",
        "mask_decoder.output_hypernetworks_mlps.{i}.proj_out.{rest}",
    ),
    ("mask_decoder.iou_prediction_head.layers.0.{rest}", "mask_decoder.iou_prediction_head.proj_in.{rest}"),
    ("mask_decoder.iou_prediction_head.layers.1.{rest}", "mask_decoder.iou_prediction_head.layers.0.{rest}"),
    ("mask_decoder.iou_prediction_head.layers.2.{rest}", "mask_decoder.iou_prediction_head.proj_out.{rest}"),
)

_TWO_WAY = "transformer.layers.{i}."  # of SAM 2's decoder
# SAM 2's and 2.1's own names (its .pt files) and transformers' `Sam2Model`
SAM2: Table = (
    ("image_encoder.trunk.pos_embed", "vision_encoder.backbone.pos_embed"),
    ("image_encoder.trunk.pos_embed_window", "vision_encoder.backbone.pos_embed_window"),
    ("image_encoder.trunk.patch_embed.proj.{rest}", "vision_encoder.backbone.patch_embed.projection.{rest}"),
    ("image_encoder.trunk.blocks.{i}.norm{j}.{rest}", "vision_encoder.backbone.blocks.{i}.layer_norm{j}.{rest}"),
    ("image_encoder.trunk.blocks.{i}.attn.{rest}", "vision_encoder.backbone.blocks.{i}.attn.{rest}"),
    ("image_encoder.trunk.blocks.{i}.proj.{rest}", "vision_encoder.backbone.blocks.{i}.proj.{rest}"),
    ("image_encoder.trunk.blocks.{i}.mlp.layers.0.{rest}", "vision_encoder.backbone.blocks.{i}.mlp.proj_in.{rest}"),
    ("image_encoder.trunk.blocks.{i}.mlp.layers.1.{rest}", "vision_encoder.backbone.blocks.{i}.mlp.proj_out.{rest}"),
    ("image_encoder.neck.convs.{i}.conv.{rest}", "vision_encoder.neck.convs.{i}.{rest}"),
    ("no_mem_embed", "no_memory_embedding"),
    (
        "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        "prompt_encoder.shared_embedding.positional_embedding",
    ),
    ("sam_prompt_encoder.pe_layer.for_images", "shared_image_embedding.positional_embedding"),
    ("sam_prompt_encoder.point_embeddings.weight", "prompt_encoder.point_embed.weight"),
    ("sam_prompt_encoder.not_a_point_embed.{rest}", "prompt_encoder.not_a_point_embed.{rest}"),
    ("sam_prompt_encoder.no_mask_embed.{rest}", "prompt_encoder.no_mask_embed.{rest}"),
    ("sam_prompt_encoder.mask_downscaling.0.{rest}", "prompt_encoder.mask_embed.conv1.{rest}"),
    ("sam_prompt_encoder.mask_downscaling.1.{rest}", "prompt_encoder.mask_embed.layer_norm1.{rest}"),
    ("sam_prompt_encoder.mask_downscaling.3.{rest}", "prompt_encoder.mask_embed.conv2.{rest}"),
    ("sam_prompt_encoder.mask_downscaling.4.{rest}", "prompt_encoder.mask_embed.layer_norm2.{rest}"),
    ("sam_prompt_encoder.mask_downscaling.6.{rest}", "prompt_encoder.mask_embed.conv3.{rest}"),
    *inside(
        (
            ("iou_token.{rest}", "iou_token.{rest}"),
            ("mask_tokens.{rest}", "mask_tokens.{rest}"),
            ("obj_score_token.{rest}", "obj_score_token.{rest}"),
            ("conv_s{i}.{rest}", "conv_s{i}.{rest}"),
            ("output_upscaling.0.{rest}", "upscale_conv1.{rest}"),
            ("output_upscaling.1.{rest}", "upscale_layer_norm.{rest}"),
            ("output_upscaling.3.{rest}", "upscale_conv2.{rest}"),
            ("transformer.norm_final_attn.{rest}", "transformer.layer_norm_final_attn.{rest}"),
            *inside(
                (
                    ("norm{j}.{rest}", "layer_norm{j}.{rest}"),
                    ("mlp.layers.0.{rest}", "mlp.proj_in.{rest}"),
                    ("mlp.layers.1.{rest}", "mlp.proj_out.{rest}"),
                ),
                _TWO_WAY,
                _TWO_WAY,
            ),
            *(
                (f"{attention}.{theirs}_proj.{{rest}}", f"{attention}.{ours}_proj.{{rest}}")
                for attention in (
                    f"{_TWO_WAY}self_attn",
                    f"{_TWO_WAY}cross_attn_token_to_image",
                    f"{_TWO_WAY}cross_attn_image_to_token",
                    "transformer.final_attn_token_to_image",
                )
                for theirs, ours in (("q", "q"), ("k", "k"), ("v", "v"), ("out", "o"))
            ),
            *(
                (f"{head}.layers.{number}.{{rest}}", f"{head}.{layer}.{{rest}}")
                for head in ("output_hypernetworks_mlps.{i}", "iou_prediction_head", "pred_obj_score_head")
                for number, layer in enumerate(("proj_in", "layers.0", "proj_out"))
            ),
        ),
        "sam_mask_decoder.",
        "mask_decoder.",
    ),
)

# CLIP's vision tower: the names of openai/clip-vit-large-patch14 and of transformers' `CLIPVisionModel` inside LLaVA
CLIP: Table = (
    ("vision_model.embeddings.{rest}", "embeddings.{rest}"),
    ("vision_model.pre_layrnorm.{rest}", "pre_layrnorm.{rest}"),
    ("vision_model.encoder.layers.{i}.{rest}", "encoder.layers.{i}.{rest}"),
    ("vision_model.post_layernorm.{rest}", "post_layernorm.{rest}"),
)

# LLaVA's language model and projector: one linear layer (v1) or two with a GELU between (v1.5)
LLAVA: Table = (
    ("model.embed_tokens.{rest}", "model.language_model.embed_tokens.{rest}"),
    ("model.layers.{i}.{rest}", "model.language_model.layers.{i}.{rest}"),
    ("model.norm.{rest}", "model.language_model.norm.{rest}"),
    ("lm_head.{rest}", "lm_head.{rest}"),
    ("model.mm_projector.weight", "model.multi_modal_projector.weight"),
    ("model.mm_projector.bias", "model.multi_modal_projector.bias"),
    ("model.mm_projector.0.{rest}", "model.multi_modal_projector.linear_1.{rest}"),
    ("model.mm_projector.2.{rest}", "model.multi_modal_projector.linear_2.{rest}"),
)

# What CoReS and LISA add
CHAIN: Table = (
    ("model.text_hidden_fcs.0.{i}.{rest}", "projection.{i}.{rest}"),
    (
        "transformer_cross_attention_layers.multihead_attn.{rest}",
        "refiner.multihead_attn.{rest}",
    ),
    ("transformer_cross_attention_layers.norm.{rest}", "refiner.norm.{rest}"),
)


# A whole published checkpoint and `CoresModel`. A merged file has no CLIP tower, a training state dict has one.
PUBLISHED: Table = (
    *inside(LLAVA, "", "mllm."),
    *inside(CLIP, "model.vision_tower.vision_tower.", "mllm.model.vision_tower."),
    *inside(SAM, "model.visual_model.", "segmenter."),
    *CHAIN,
)

# Tensors that a checkpoint may hold and that are left out, with the reason
IGNORED: Table = (
    (
        "model.layers.{i}.self_attn.rotary_emb.inv_freq",
        "rotary frequencies: computed from the config, no weight",
    ),
    (
        "model.vision_tower.vision_tower.vision_model.embeddings.position_ids",
        "position numbers: counted, no weight",
    ),
    ("vision_model.embeddings.position_ids", "position numbers: counted, no weight"),
    *(
        (name, "SAM 2's memory of a video: pictures have none")
        for name in (
            "memory_attention.{rest}",
            "memory_encoder.{rest}",
            "mask_downsample.{rest}",
            "maskmem_tpos_enc",
            "no_mem_pos_enc",
            "no_obj_ptr",
            "no_obj_embed_spatial",
            "obj_ptr_proj.{rest}",
            "obj_ptr_tpos_proj.{rest}",
        )
    ),
)


def rename(key: str, table: Table, back: bool = False) -> str | None:
    """The other name of a tensor: theirs to ours, or `back`. None when the table does not know it."""
    for theirs, ours in table:
        source, target = (ours, theirs) if back else (theirs, ours)
        match = _pattern(source).fullmatch(key)
        if match:
            return target.format(**match.groupdict())
    return None


def ignored(key: str) -> str | None:
    """Why a tensor is left out when it is renamed; None when it is not."""
    if key in SECOND_NAMES:
        return same_as(SECOND_NAMES[key])
    return next((reason for name, reason in IGNORED if _pattern(name).fullmatch(key)), None)


def same_as(first: str) -> str:
    """What a table of keys says of a tensor's second name."""
    return f"the same tensor as {first}"


@cache
def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(i|j|rest)\}", template)
    kinds = {"i": r"\d+", "j": r"\d+", "rest": ".+"}
    odd = [f"(?P<{part}>{kinds[part]})" if n % 2 else re.escape(part) for n, part in enumerate(parts)]
    return re.compile("".join(odd))
