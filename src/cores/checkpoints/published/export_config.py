"""A model's config in the published layout's words, and the fields that it has no words for."""

from collections.abc import Iterator, Mapping
from typing import Any

from transformers import PreTrainedConfig

from cores.checkpoints.published.convert_config import SELECT, llava_config, sam_config
from cores.checkpoints.published.convert_model import SAM_PREFIX
from cores.errors import CheckpointError
from cores.modeling.configuration import CoresConfig
from cores.prompts.styles import STYLES

FORMS = {1: "lisa", 2: "published"}  # levels, and the style whose tokens the published program looks for
CLASSES = {1: "LISAForCausalLM", 2: "CORESForCausalLM"}
CLIPS = {224: "openai/clip-vit-large-patch14", 336: "openai/clip-vit-large-patch14-336"}  # ViT-L/14, by picture size
# what says nothing about a model's numbers, or is the reading program's own
UNSAID = {
    "transformers_version", "dtype", "torch_dtype", "architectures", "_name_or_path", "initializer_range", "scale",
    "initializer_factor", "image_token_index", "image_token_id", "id2label", "label2id", "use_cache",
    "mlp_ratio", "pad_token_id", "return_dict", "output_hidden_states", "output_attentions", "attention_dropout",
}  # fmt: skip


# what its programs do in their own way: said to the user, refused by none
THEIR_OWN = {"segmenter_config.mask_decoder_config.layer_norm_eps"}
TOWER = "mllm_config.vision_config"  # goes along in a folder of its own


def published_fields(config: CoresConfig) -> dict[str, Any]:
    """The fields of a published config.json."""
    mllm: Any = config.mllm_config
    segmenter: Any = config.segmenter_config
    text = mllm.text_config
    rope = dict(text.rope_parameters or {})
    theta, kind = rope.pop("rope_theta", 10000.0), rope.pop("rope_type", "default")
    names = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "hidden_act", "rms_norm_eps", "max_position_embeddings", "initializer_range",
        "attention_bias", "tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id",
    )  # fmt: skip
    tower = mllm.vision_config
    clip = CLIPS.get(tower.image_size, "clip") if (tower.hidden_size, tower.patch_size) == (1024, 14) else "clip"
    select = {ours: theirs for theirs, ours in SELECT.items()}[mllm.vision_feature_select_strategy]
    found = {
        "architectures": [CLASSES[len(config.levels or ())]],
        "model_type": "llava",
        **{name: getattr(text, name) for name in names},
        "rope_theta": theta,
        "rope_scaling": None if kind == "default" else {"type": kind, **rope},
        "use_cache": False,
        "torch_dtype": str(config.dtype).removeprefix("torch."),
        "transformers_version": "4.31.0",  # the published programs' own; it says how to read this file
        "mm_hidden_size": tower.hidden_size,
        "mm_vision_tower": clip,
        "vision_tower": clip,
        "mm_vision_select_layer": mllm.vision_feature_layer,
        "mm_vision_select_feature": select,
        "mm_use_im_start_end": True,
        "mm_use_im_patch_token": False,
        "use_mm_proj": True,
        "tune_mm_mlp_adapter": False,
        "freeze_mm_mlp_adapter": True,
        "pretrain_mm_mlp_adapter": None,
        "train_mask_decoder": True,
        "out_dim": segmenter.prompt_encoder_config.hidden_size,
        "image_aspect_ratio": "square",
        "image_grid_pinpoints": None,
    }
    if getattr(mllm, "projector", "mlp2x_gelu") == "mlp2x_gelu":
        found["mm_projector_type"] = "mlp2x_gelu"
    return found


def refuse_what_is_not_held(config: CoresConfig, shapes: Mapping[str, tuple[int, ...]], where: object) -> None:
    """Raise CheckpointError that names every field which the published layout cannot hold.

    Args: `shapes` by published names. What is written is read back in thought, and must be the same model.
    """
    levels = config.levels or []
    wrong = []
    if len(levels) not in FORMS:
        wrong.append(f"levels: found {len(levels)}, the layout holds 1 (LISA) or 2 (CoReS)")
    else:
        expected = list(STYLES[FORMS[len(levels)]].tokens.values())
        expected = [expected[0], expected[-1]][-len(levels) :]
        for number, (level, token) in enumerate(zip(levels, expected, strict=True)):
            if level["token"] != token:
                wrong.append(f"levels[{number}].token: found {level['token']}, its programs look for {token}")
    if config.segmenting != "chain":
        wrong.append(f"segmenting: found {config.segmenting}, its programs make masks in a chain alone")
    if config.refiner not in ("none", "published"):
        wrong.append(f"refiner: found {config.refiner}, the layout holds none or published")
    if not wrong:
        read: dict[str, PreTrainedConfig] = {}
        mllm: Any = config.mllm_config
        try:
            read["mllm_config"] = llava_config(where, published_fields(config), shapes, mllm.vision_config)
            parts = {n.removeprefix(SAM_PREFIX): shape for n, shape in shapes.items() if n.startswith(SAM_PREFIX)}
            read["segmenter_config"] = sam_config(parts, where)
        except CheckpointError as error:
            wrong.append(str(error))
        for name, other in read.items():
            ours = getattr(config, name).to_dict()
            if name == "mllm_config":
                ours.setdefault("projector", "mlp2x_gelu")
            wrong += differences(ours, other.to_dict(), name)
    if wrong:
        raise CheckpointError(
            f"{where}: the published layout cannot hold this model, nothing was written:\n  " + "\n  ".join(wrong)
        )


def refuse_other_families(config: CoresConfig, where: object) -> None:
    """Raise CheckpointError unless the model is a LLaVA and a SAM: the published layout holds no others."""
    mllm, segmenter = (getattr(config, name).model_type for name in ("mllm_config", "segmenter_config"))
    if (mllm, segmenter) != ("llava", "sam"):
        raise CheckpointError(
            f"{where}: is made of a {mllm} and a {segmenter}, the published layout holds a llava and a sam: keep it "
            "in its own format"
        )


def differences(ours: Mapping[str, Any], read: Mapping[str, Any], path: str) -> Iterator[str]:
    """Fields that would be read back as something else."""
    for name in sorted(ours.keys() | read.keys()):
        mine, theirs = ours.get(name), read.get(name)
        if name in UNSAID or mine == theirs or f"{path}.{name}" in {TOWER, *THEIR_OWN}:
            continue
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            yield from differences(mine, theirs, f"{path}.{name}")
        else:
            yield f"{path}.{name}: found {mine!r}, it would be read back as {theirs!r}"
