"""Configs of a published checkpoint's parts, from its `config.json` and the shapes of its tensors.

Published checkpoints say nothing about SAM and little about CLIP: what they leave out is read off the tensors.
"""

import re
from collections.abc import Mapping
from typing import Any

from transformers import (
    CLIPConfig,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    SamConfig,
    SamMaskDecoderConfig,
    SamPromptEncoderConfig,
    SamVisionConfig,
)

from cores.checkpoint_errors import checkpoint_errors
from cores.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]

# LLaMA's fields that mean the same in a published config and in transformers'
LLAMA = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "hidden_act", "rms_norm_eps", "max_position_embeddings", "initializer_range",
    "rope_theta", "rope_scaling", "attention_bias", "tie_word_embeddings", "bos_token_id", "eos_token_id",
)  # fmt: skip
TOWER = (
    "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads", "num_channels",
    "image_size", "patch_size", "hidden_act", "layer_norm_eps", "attention_dropout", "initializer_range",
    "initializer_factor",
)  # fmt: skip
SELECT = {"patch": "default", "cls_patch": "full"}  # LLaVA's word and transformers' for which positions are taken
SAM_HEAD = 64  # width of an attention head where no relative positions tell it
SAM_DECODER_HEADS = 8
# What SAM's program gives its LayerNorms: the decoder's two-way transformer keeps torch's default, all others have
# their own. transformers' config says the first for both.
SAM_EPS, SAM_DECODER_EPS = 1e-6, 1e-5


def language_config(where: object, stored: Mapping[str, Any], rows: int | None = None) -> LlamaConfig:
    """The LLaMA of a published config. `rows`: of the embedding table, when the config is that of its base.

    Raises CheckpointError when a field is missing or transformers refuses one.
    """
    lacking = [name for name in LLAMA[:5] if name not in stored]
    if lacking:
        raise CheckpointError(f"{where}: has no {', '.join(lacking)}; expected LLaMA's fields, as published")
    fields = {name: stored[name] for name in LLAMA if stored.get(name) is not None}
    pad = stored.get("pad_token_id")
    fields["pad_token_id"] = pad if isinstance(pad, int) and pad >= 0 else None  # some say -1 for none
    fields["vocab_size"] = rows or fields["vocab_size"]
    fields.setdefault("rope_theta", 10000.0)  # LLaMA's own, which older configs leave out
    with checkpoint_errors(str(where), "be read as a LLaMA's config"):
        return LlamaConfig(**fields)


def tower_config(where: object, stored: Mapping[str, Any]) -> CLIPVisionConfig:
    """The vision tower of a CLIP's config, or of a vision tower's own.

    Raises CheckpointError when it is another model's, or transformers refuses a field.
    """
    kind = stored.get("model_type")
    if kind not in (None, "clip", "clip_vision_model"):
        raise CheckpointError(f"{where}: is the config of a {kind}, expected a CLIP's or its tower's")
    whole = kind == "clip" or "vision_config" in stored
    with checkpoint_errors(str(where), "be read as a CLIP's config"):
        vision: CLIPVisionConfig = CLIPConfig(**stored).vision_config if whole else CLIPVisionConfig(**stored)
        return CLIPVisionConfig(**{name: getattr(vision, name) for name in TOWER})  # old configs hold much else


def llava_config(
    where: object, stored: Mapping[str, Any], shapes: Shapes, tower: CLIPVisionConfig, grown: bool = False
) -> LlavaConfig:
    """A LLaVA. The projector is told by its tensors; the picture's placeholder owns no row of the embedding table.

    Args: `shapes` by published names; `grown`: the config is that of the base, the tensors have rows for new tokens.
    Raises CheckpointError that names what cannot be held.
    """
    table = shapes.get("model.embed_tokens.weight")
    if table is not None and len(table) != 2:
        raise CheckpointError(f"{where}: model.embed_tokens.weight is {table}, expected (rows, width)")
    text = language_config(where, stored, table[0] if grown and table else None)
    select = stored.get("mm_vision_select_feature") or "patch"
    if not isinstance(select, str) or select not in SELECT:
        raise CheckpointError(f"{where}: mm_vision_select_feature is {select!r}, expected {' or '.join(SELECT)}")
    taken = projector_width(shapes)
    if taken not in (None, tower.hidden_size):
        raise CheckpointError(
            f"{where}: the projector takes {taken} numbers a patch, the vision tower gives {tower.hidden_size}: give "
            f"the tower that the checkpoint was trained with (its config says {stored.get('mm_vision_tower')!r}) as "
            "--clip"
        )
    with checkpoint_errors(str(where), "be read as a LLaVA's config", "is it the CLIP that it was trained with?"):
        patches = (tower.image_size // tower.patch_size) ** 2
    layer, most = stored.get("mm_vision_select_layer", -2), tower.num_hidden_layers
    if type(layer) is not int or not -most - 1 <= layer <= most:
        raise CheckpointError(f"{where}: mm_vision_select_layer is {layer!r:.40}, its tower has {most} layers")
    strategy = SELECT[select]
    return LlavaConfig(
        vision_config=tower,
        text_config=text,
        image_token_index=text.vocab_size,
        image_seq_length=patches if strategy == "default" else patches + 1,
        vision_feature_layer=layer,
        vision_feature_select_strategy=strategy,
        projector="mlp2x_gelu" if "model.mm_projector.2.weight" in shapes else "linear",
        tie_word_embeddings=bool(text.tie_word_embeddings),
    )


def projector_width(shapes: Shapes) -> int | None:
    """How many numbers a patch has that a projector takes, by its tensors; None where there is none."""
    first = shapes.get("model.mm_projector.weight") or shapes.get("model.mm_projector.0.weight")
    return first[1] if first and len(first) == 2 else None


def sam_config(shapes: Shapes, where: object) -> SamConfig:
    """A SAM by its tensors' shapes under SAM's own names.

    Raises CheckpointError that names the tensors without which its sizes are not known, and for shapes of no SAM.
    """
    with checkpoint_errors(str(where), "be read as a SAM by its tensors' shapes"):
        return _sam_config(shapes, where)


def _sam_config(shapes: Shapes, where: object) -> SamConfig:
    needed = (
        "image_encoder.pos_embed", "image_encoder.patch_embed.proj.weight", "image_encoder.blocks.0.mlp.lin1.weight",
        "image_encoder.neck.0.weight", "mask_decoder.transformer.layers.0.mlp.lin1.weight",
        "mask_decoder.transformer.layers.0.cross_attn_token_to_image.q_proj.weight", "mask_decoder.mask_tokens.weight",
        "mask_decoder.iou_prediction_head.layers.0.weight", "prompt_encoder.mask_downscaling.3.weight",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    )  # fmt: skip
    missing = [name for name in needed if name not in shapes]
    if missing:
        raise CheckpointError(f"{where}: no SAM can be made of it, for it lacks {', '.join(missing)}")
    _, grid, _, width = shapes["image_encoder.pos_embed"]
    patch = shapes["image_encoder.patch_embed.proj.weight"][-1]
    layers = _count(shapes, r"image_encoder\.blocks\.(\d+)\.")
    # a block's relative positions span its window, or the whole grid
    spans = [shapes.get(f"image_encoder.blocks.{n}.attn.rel_pos_h", (0, SAM_HEAD)) for n in range(layers)]
    whole = 2 * grid - 1
    windows = {(span + 1) // 2 for span, _ in spans if span not in (0, whole)}
    if len(windows) > 1:
        raise CheckpointError(f"{where}: blocks of the image encoder have windows of {sorted(windows)}, expected one")
    dim = shapes["image_encoder.neck.0.weight"][0]
    vision = SamVisionConfig(
        hidden_size=width,
        output_channels=dim,
        num_hidden_layers=layers,
        num_attention_heads=width // spans[0][1],
        image_size=grid * patch,
        patch_size=patch,
        mlp_dim=shapes["image_encoder.blocks.0.mlp.lin1.weight"][0],
        qkv_bias="image_encoder.blocks.0.attn.qkv.bias" in shapes,
        use_rel_pos=spans[0][0] > 0,
        use_abs_pos=True,
        window_size=windows.pop() if windows else 0,
        global_attn_indexes=[number for number, (span, _) in enumerate(spans) if span in (0, whole)],
        layer_norm_eps=SAM_EPS,
        num_pos_feats=shapes["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"][1],
    )
    inner = shapes["mask_decoder.transformer.layers.0.cross_attn_token_to_image.q_proj.weight"][0]
    return SamConfig(
        vision_config=vision,
        prompt_encoder_config=SamPromptEncoderConfig(
            hidden_size=dim,
            image_size=grid * patch,
            patch_size=patch,
            mask_input_channels=shapes["prompt_encoder.mask_downscaling.3.weight"][0],
            layer_norm_eps=SAM_EPS,
            num_point_embeddings=_count(shapes, r"prompt_encoder\.point_embeddings\.(\d+)\."),
        ),
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=dim,
            mlp_dim=shapes["mask_decoder.transformer.layers.0.mlp.lin1.weight"][0],
            num_hidden_layers=_count(shapes, r"mask_decoder\.transformer\.layers\.(\d+)\."),
            num_attention_heads=SAM_DECODER_HEADS,
            layer_norm_eps=SAM_DECODER_EPS,
            attention_downsample_rate=dim // inner,
            num_multimask_outputs=shapes["mask_decoder.mask_tokens.weight"][0] - 1,
            iou_head_depth=_count(shapes, r"mask_decoder\.iou_prediction_head\.layers\.(\d+)\."),
            iou_head_hidden_dim=shapes["mask_decoder.iou_prediction_head.layers.0.weight"][0],
        ),
    )


def _count(shapes: Shapes, pattern: str) -> int:
    """How many numbers stand at the group's place in the names."""
    return len({match[1] for name in shapes if (match := re.match(pattern, name))})
