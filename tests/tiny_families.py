"""Every family of multimodal LLMs with a tiny random config, pictures of two sizes as it wants them, and its own run.

Legend: picture = one image's pixels by name, as a family's image processor gives them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig

from cores.modeling.mllms import make_mllm

VOCABULARY, IMAGE = 96, 95
Picture = dict[str, Tensor]

TEXT = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "head_dim": 8,
}  # fmt: skip
TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}


def of(kind: str, **values: Any) -> dict[str, Any]:
    return {"model_type": kind, **values}


LLAMA = of("llama", **TEXT)
CLIP = of("clip_vision_model", **TOWER, image_size=16, patch_size=4, projection_dim=32)
SIGLIP = of("siglip_vision_model", **TOWER, image_size=16, patch_size=4, vision_use_head=False)
GRID_TOWER = {"depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "patch_size": 4}
SQUARES = [[16, 16], [16, 32], [32, 16]]


def square(number: int, tiles: int = 1, side: int = 16) -> Picture:
    """A picture of fixed size, or several tiles of it."""
    return {"pixel_values": noise(number, tiles, 3, side, side)}


def noise(number: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(number))


def unpadded(number: int) -> Picture:
    """LLaVA-NeXT's: the whole and its tiles, as many as the size asks for."""
    size = (16, 24) if number % 2 else (32, 12)
    return {"pixel_values": noise(number, 1, 3, 3, 16, 16), "image_sizes": torch.tensor([size])}


def grid(number: int, merge: int = 2, channels: int = 3 * 2 * 4 * 4) -> Picture:
    """Qwen's: patches in a row, and how many of them stand above and beside each other."""
    height, width = (4, 6) if number % 2 else (8, 4)
    return {
        "pixel_values": noise(number, height * width, channels),
        "image_grid_thw": torch.tensor([[1, height, width]]),
    }


def kimi(number: int) -> Picture:
    height, width = (4, 6) if number % 2 else (8, 4)
    return {
        "pixel_values": noise(number, height * width, 3, 4, 4),
        "image_grid_thw": torch.tensor([[1, height, width]]),
    }


def masked(number: int) -> Picture:
    """Idefics3's: tiles with a mask of the pixels that are there."""
    tiles = 2 if number % 2 else 1
    whole = torch.ones(1, tiles, 16, 16, dtype=torch.bool)
    return {"pixel_values": noise(number, 1, tiles, 3, 16, 16), "pixel_attention_mask": whole}


def sized(number: int) -> Picture:
    """Mistral 3's: a picture of its own size within a common square."""
    size = (16, 24) if number % 2 else (24, 8)
    values = torch.zeros(1, 3, 24, 24)
    values[:, :, : size[0], : size[1]] = noise(number, 1, 3, *size)
    return {"pixel_values": values, "image_sizes": torch.tensor([size])}


def placed(number: int) -> Picture:
    """Gemma 4's: patches with their places; those that are padding have none."""
    height, width = (4, 2) if number % 2 else (2, 6)
    places = torch.full((1, 16, 2), -1)
    places[0, : height * width] = torch.cartesian_prod(torch.arange(height), torch.arange(width)).flip(1)
    values = noise(number, 1, 16, 3 * 4 * 4).clamp(0, 1)
    return {"pixel_values": values.masked_fill((places < 0).any(-1)[..., None], 0), "image_position_ids": places}


def shaped(number: int) -> Picture:
    """LFM2-VL's: patches, how many stand above and beside each other, and which are there."""
    height, width = (4, 6) if number % 2 else (6, 2)
    real = torch.arange(24)[None] < height * width
    values = noise(number, 1, 24, 3 * 4 * 4) * real[..., None]
    return {
        "pixel_values": values,
        "spatial_shapes": torch.tensor([[height, width]]),
        "pixel_attention_mask": real.long(),
    }


def joined(pictures: Sequence[Picture]) -> Picture:
    """Pictures of one batch; of tiles there are as many as the picture with most has."""
    names = pictures[0].keys()
    values = {name: [picture[name] for picture in pictures] for name in names}
    for name, parts in values.items():
        most = max(part.shape[1] for part in parts) if parts[0].dim() > 1 else 0
        if parts[0].dim() >= 4 and "pixel_attention_mask" in names:
            values[name] = [torch.cat([p, p.new_zeros(1, most - p.shape[1], *p.shape[2:])], 1) for p in parts]
    return {name: torch.cat(parts) for name, parts in values.items()}


def noisy(model: Any) -> Any:
    """Some families begin at zero: their picture would not be seen at all."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.2, generator=generator)
    return model


@dataclass(frozen=True)
class Tiny:
    """A family. `picture`: of a number; `kinds`: how its own forward is told which tokens are the picture."""

    config: dict[str, Any]
    picture: Callable[[int], Picture] = square
    kinds: str | None = None
    lora: tuple[str, ...] = ("q_proj", "v_proj")

    def make_config(self, **changes: Any) -> Any:
        return AutoConfig.for_model(**{"image_token_id": IMAGE, "image_token_index": IMAGE, **self.config, **changes})

    def build(self, attention: str = "sdpa", **changes: Any) -> Any:
        torch.manual_seed(0)
        config = self.make_config(**changes)
        if attention == "flex_attention":  # towers do not have it, and need none
            config.text_config._attn_implementation = attention
        else:
            config._attn_implementation = attention
        model = noisy(make_mllm(config).eval())
        model.get_output_embeddings().weight.data[IMAGE] = 0  # an answer does not say the picture's placeholder
        return model


def qwen(kind: str, **tower: Any) -> dict[str, Any]:
    text = {**TEXT, "rope_parameters": MROPE, "rope_scaling": MROPE, **tower.pop("text", {})}
    values = {**GRID_TOWER, "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 32, **tower}
    ids = {"video_token_id": 93, "vision_start_token_id": 91, "vision_end_token_id": 92}
    return of(kind, text_config=text, vision_config=values, **ids)


FAMILIES: dict[str, Tiny] = {
    "llava": Tiny(of("llava", text_config=LLAMA, vision_config=CLIP, vision_feature_layer=-2)),
    "vipllava": Tiny(of("vipllava", text_config=LLAMA, vision_config=CLIP, vision_feature_layers=[-2, -1])),
    "llava_next": Tiny(
        of("llava_next", text_config=LLAMA, vision_config=CLIP, image_grid_pinpoints=SQUARES, vision_feature_layer=-2),
        unpadded,
    ),
    "llava_onevision": Tiny(
        of("llava_onevision", text_config=of("qwen2", **TEXT), vision_config=SIGLIP, image_grid_pinpoints=SQUARES),
        unpadded,
    ),
    "qwen2_vl": Tiny(
        of(
            "qwen2_vl",
            text_config={**TEXT, "rope_parameters": MROPE, "rope_scaling": MROPE},
            vision_config={
                "depth": 2,
                "embed_dim": 32,
                "hidden_size": 32,
                "num_heads": 4,
                "mlp_ratio": 2,
                "patch_size": 4,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
            },
            video_token_id=93,
            vision_start_token_id=91,
            vision_end_token_id=92,
        ),
        grid,
        "mm_token_type_ids",
    ),  # fmt: skip
    "qwen2_5_vl": Tiny(
        qwen(
            "qwen2_5_vl",
            window_size=16,
            fullatt_block_indexes=[1],
            text={"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
        ),
        grid,
        "mm_token_type_ids",
    ),
    "qwen3_vl": Tiny(
        qwen("qwen3_vl", num_position_embeddings=64, deepstack_visual_indexes=[0, 1]), grid, "mm_token_type_ids"
    ),
    "qwen3_5": Tiny(
        qwen(
            "qwen3_5",
            num_position_embeddings=64,
            text={
                "layer_types": ["linear_attention", "linear_attention", "full_attention"],
                "linear_key_head_dim": 8,
                "linear_value_head_dim": 8,
                "linear_num_key_heads": 2,
                "linear_num_value_heads": 4,
                "rope_parameters": {**MROPE, "partial_rotary_factor": 1.0},
            },
        ),
        grid,
        "mm_token_type_ids",
    ),  # fmt: skip
    "glm4v": Tiny(
        of(
            "glm4v",
            text_config={**TEXT, "rope_parameters": {**MROPE, "partial_rotary_factor": 1.0}},
            vision_config={
                **GRID_TOWER,
                "image_size": 32,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
                "out_hidden_size": 32,
            },
            video_token_id=93,
            image_start_token_id=91,
            image_end_token_id=92,
            video_start_token_id=89,
            video_end_token_id=90,
        ),
        grid,
        "mm_token_type_ids",
    ),  # fmt: skip
    "smolvlm": Tiny(
        of("smolvlm", text_config=LLAMA, vision_config={**TOWER, "image_size": 16, "patch_size": 4}, scale_factor=2),
        masked,
    ),
    "idefics3": Tiny(
        of("idefics3", text_config=LLAMA, vision_config={**TOWER, "image_size": 16, "patch_size": 4}, scale_factor=2),
        masked,
    ),
    "internvl": Tiny(
        of(
            "internvl",
            text_config=of("qwen2", **TEXT),
            vision_config=of("internvl_vision", **TOWER, image_size=[16, 16], patch_size=[4, 4]),
        )
    ),
    "mistral3": Tiny(
        of(
            "mistral3",
            text_config=of("mistral", **TEXT, sliding_window=7),
            vision_config=of("pixtral", **TOWER, head_dim=8, image_size=32, patch_size=4),
        ),
        sized,
    ),
    "gemma3": Tiny(
        of(
            "gemma3",
            text_config={
                **TEXT,
                "sliding_window": 6,
                "query_pre_attn_scalar": 8,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            },
            vision_config=SIGLIP,
            mm_tokens_per_image=4,
            boi_token_index=91,
            eoi_token_index=92,
        ),
        kinds="token_type_ids",
    ),  # fmt: skip
    "gemma4": Tiny(
        of(
            "gemma4",
            text_config={
                **TEXT,
                "sliding_window": 6,
                "vocab_size_per_layer_input": VOCABULARY,
                "global_head_dim": 8,
                "hidden_size_per_layer_input": 4,
                "final_logit_softcapping": 3.0,
                "num_kv_shared_layers": 0,
                "use_bidirectional_attention": "vision",
                "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
            },
            vision_config={
                **TOWER,
                "num_key_value_heads": 4,
                "head_dim": 8,
                "pooling_kernel_size": 2,
                "patch_size": 4,
                "position_embedding_size": 64,
            },
            audio_config=None,
            video_token_id=93,
            audio_token_id=94,
            boi_token_id=91,
            eoi_token_id=92,
        ),
        placed,
        "mm_token_type_ids",
    ),  # fmt: skip
    "kimi_k25": Tiny(
        of(
            "kimi_k25",
            text_config=of(
                "deepseek_v3",
                **{**TEXT, "num_key_value_heads": 4},
                moe_intermediate_size=16,
                n_routed_experts=4,
                num_experts_per_tok=2,
                n_group=1,
                topk_group=1,
                first_k_dense_replace=1,
                kv_lora_rank=8,
                q_lora_rank=8,
                qk_rope_head_dim=8,
                qk_nope_head_dim=8,
                v_head_dim=8,
            ),
            vision_config={**TOWER, "patch_size": 4, "pos_emb_height": 8, "pos_emb_width": 8},
            projection_hidden_size=32,
            video_token_id=93,
        ),
        kimi,
        lora=("q_a_proj", "kv_b_proj"),
    ),  # fmt: skip
    "lfm2_vl": Tiny(
        of(
            "lfm2_vl",
            text_config=of(
                "lfm2",
                **{k: v for k, v in TEXT.items() if k != "head_dim"},
                block_auto_adjust_ff_dim=False,
                layer_types=["conv", "full_attention", "conv"],
            ),
            vision_config=of("siglip2_vision_model", **TOWER, num_patches=16, patch_size=4, vision_use_head=False),
            projector_hidden_size=32,
        ),
        shaped,
    ),  # fmt: skip
    "llama4": Tiny(
        of(
            "llama4",
            text_config={
                **TEXT,
                "intermediate_size_mlp": 48,
                "num_local_experts": 2,
                "floor_scale": 4,
                "num_hidden_layers": 4,
                "attention_chunk_size": 64,
            },
            vision_config={
                **TOWER,
                "image_size": 16,
                "patch_size": 4,
                "vision_output_dim": 32,
                "projector_input_dim": 32,
                "projector_output_dim": 32,
                "intermediate_size": 128,
            },
        )
    ),  # fmt: skip
}


def image_tokens(model: Any, picture: Picture) -> int:
    """How many positions a picture takes."""
    seen = model.encode_images(picture)
    parts = seen if isinstance(seen, list | Tensor) else seen.pooler_output
    if isinstance(parts, Tensor):
        return parts.shape[0] * parts.shape[1] if parts.dim() == 3 else len(parts)
    return sum(len(part) for part in parts)


def native(model: Any, kinds: str | None, ids: Tensor, picture: Picture) -> Tensor:
    """The family's own run of one row: its masks, its positions, no cache. (tokens, width), after the final norm."""
    said = {} if kinds is None else {kinds: (ids == IMAGE).long()[None]}
    if hasattr(model, "model"):
        if hasattr(model.model, "rope_deltas"):
            model.model.rope_deltas = None  # a run before this one leaves its own behind
        return model.model(input_ids=ids[None], **picture, **said, use_cache=False).last_hidden_state[0]
    inputs = model.get_input_embeddings()(ids)  # Llama 4: transformers 5.24's own forward ends in an AttributeError
    seen = model.multi_modal_projector(model.vision_model(picture["pixel_values"]).last_hidden_state.flatten(0, 1))
    inputs = inputs.masked_scatter((ids == IMAGE)[:, None], seen)
    return model.language_model.model(inputs_embeds=inputs[None], use_cache=False).last_hidden_state[0]
