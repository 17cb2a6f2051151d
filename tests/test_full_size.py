"""The recipes' models at full size, on the meta device: how large they are, what trains, that the published 7B fits.

The published names are written down here once more, by hand, so that the table of names is not held to itself.
"""

import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cores.checkpoints import published_sizes
from cores.checkpoints.published.convert_model import Tower, plan_model
from cores.checkpoints.tensors.lazy import Entry, Tensors
from cores.errors import CheckpointError
from cores.modeling import CoresModel
from cores.recipe import load_recipe
from cores.recipe_files import recipe_text

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import full_size
import memory

Shapes = dict[str, tuple[int, ...]]
made = cache(full_size.full_size)


# said, so that they stay as the paper's style has them
LISAS = ("prompt.clip_fit", "losses.text", "losses.mask", "losses.ignore_255", "losses.loss_normalization")


def count(model: CoresModel, *prefixes: str) -> int:
    own = {name: p for name, p in model.named_parameters() if ".lora_" not in name}
    return sum(p.numel() for name, p in own.items() if name.startswith(prefixes))


@pytest.mark.parametrize(
    ("recipe", "llama", "clip"),
    [
        ("cores-7b", 6_738_415_616, 303_179_776),  # LLaMA-7B, CLIP ViT-L/14 at 224
        ("cores-13b", 13_015_864_320, 303_179_776),
        ("cores-llava15-13b", 13_015_864_320, 303_507_456),  # at 336: more positions
        ("cores-llama2-13b", 13_015_864_320, 303_179_776),
        *((name, 6_738_415_616, 303_179_776) for name in ("lisa-7b", "cores-7b-qlora", *full_size.ABLATION)),
    ],
)
def test_every_part_has_the_known_number_of_parameters(recipe: str, llama: int, clip: int) -> None:
    model = made(recipe)
    text = model.config.mllm_config.text_config
    more = 2 * (text.vocab_size - 32000) * text.hidden_size  # rows of embedding and head beyond LLaMA's
    assert count(model, "mllm.model.language_model.", "mllm.lm_head.") - more == llama
    assert count(model, "mllm.model.vision_tower.") == clip
    assert count(model, "segmenter.") == 641_090_864  # SAM ViT-H: 641 M
    projector = count(model, "mllm.model.multi_modal_projector.")
    wide, narrow = text.hidden_size, 1024
    two = (narrow + 1) * wide + (wide + 1) * wide
    assert projector == (two if recipe == "cores-llava15-13b" else (narrow + 1) * wide)
    assert all(p.is_meta for p in model.parameters())


@pytest.mark.parametrize("recipe", [*full_size.PAPER, *full_size.ABLATION])
def test_what_trains_is_what_the_paper_trains(recipe: str) -> None:
    """LoRA of rank 8 on q_proj and v_proj, embeddings, head, the MLP, the refiner, SAM's mask decoder; no more."""
    model = made(recipe)
    text = model.config.mllm_config.text_config
    training = {name: p for name, p in model.named_parameters() if p.requires_grad}
    lora = {name: p for name, p in training.items() if ".lora_" in name}
    places = {name.split(".self_attn.")[1].split(".")[0] for name in lora}
    assert places == {"q_proj", "v_proj"}
    assert all(name.startswith("mllm.model.language_model.layers.") for name in lora)
    assert len(lora) == 2 * 2 * text.num_hidden_layers
    assert sum(p.numel() for p in lora.values()) == len(lora) * 8 * text.hidden_size
    rows = {name for name in training if name.endswith(("embed_tokens.weight", "lm_head.weight"))}
    assert len(rows) == 2
    others = {name for name in training if name not in lora and name not in rows}
    parts = {name.split(".")[0] if not name.startswith("segmenter") else name[:22] for name in others}
    assert parts == {"projection", "segmenter.mask_decoder"} | ({"refiner"} if model.refiner is not None else set())


ROWS = {  # what a row of the paper's ablation lacks or has otherwise; LISA's form is several keys in one
    "ablation-none": {"model.levels", "model.style", "model.refiner", "model.train", "prompt.exemplars", *LISAS},
    "ablation-inc": {"model.levels", "model.style", "model.refiner", "model.train", *LISAS},
    "ablation-cor": {"model.refiner", "model.train", "model.segmenting", "prompt.exemplars"},
    "ablation-cos": {
        "model.levels",
        "model.style",
        "model.refiner",
        "model.train",
        "model.segmenting",
        "prompt.exemplars",
        *LISAS,
    },
    "ablation-cos-refiner": {"model.levels", "model.style", "model.segmenting", "prompt.exemplars", *LISAS},
    "ablation-cor-cos": {"model.refiner", "model.train", "prompt.exemplars"},
    "ablation-cor-cos-refiner": {"prompt.exemplars"},
    "ablation-inc-cor-cos": {"model.refiner", "model.train"},
    "ablation-levels-3": {"model.levels"},
}


def test_a_row_of_the_ablation_differs_in_nothing_else() -> None:
    whole = load_recipe("cores-7b").to_dict()
    assert set(ROWS) == set(full_size.ABLATION)
    for name, keys in ROWS.items():
        row = load_recipe(name).to_dict()
        differ = {
            f"{section}.{key}"
            for section in whole
            for key in {**whole[section], **row[section]}
            if whole[section].get(key) != row[section].get(key)
        }
        assert differ == keys, name


def test_the_4_bit_recipe_fits_24_gb_and_says_how_much_it_takes() -> None:
    needed = sum(memory.training("cores-7b-qlora", 1).values()) / memory.GB
    assert needed < 0.9 * 24
    assert f"about {needed:.0f} GB" in recipe_text("cores-7b-qlora")


def published_names(refiner: bool) -> Shapes:
    """Every tensor of a published CoReS-7B, on LLaVA-Lightning's 32003 tokens and its own two."""
    found: Shapes = {"model.embed_tokens.weight": (32005, 4096), "lm_head.weight": (32005, 4096)}
    found |= {
        "model.norm.weight": (4096,),
        "model.mm_projector.weight": (4096, 1024),
        "model.mm_projector.bias": (4096,),
    }
    for n in range(32):
        layer = f"model.layers.{n}"
        found |= {f"{layer}.self_attn.{name}_proj.weight": (4096, 4096) for name in "qkvo"}
        found |= {f"{layer}.mlp.{name}_proj.weight": (11008, 4096) for name in ("gate", "up")}
        found[f"{layer}.mlp.down_proj.weight"] = (4096, 11008)
        found |= {f"{layer}.{name}_layernorm.weight": (4096,) for name in ("input", "post_attention")}
        found[f"{layer}.self_attn.rotary_emb.inv_freq"] = (64,)
    found |= linear("model.text_hidden_fcs.0.0", 4096, 4096) | linear("model.text_hidden_fcs.0.2", 4096, 256)
    found |= {f"model.visual_model.{name}": shape for name, shape in sam_names().items()}
    if refiner:
        attention = "transformer_cross_attention_layers.multihead_attn"
        found |= {f"{attention}.in_proj_weight": (768, 256), f"{attention}.in_proj_bias": (768,)}
        found |= linear(f"{attention}.out_proj", 256, 256) | norm("transformer_cross_attention_layers.norm", 256)
    return found


def linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def sam_names() -> Shapes:
    """sam_vit_h_4b8939.pth."""
    found: Shapes = {"image_encoder.pos_embed": (1, 64, 64, 1280)}
    found |= {
        "image_encoder.patch_embed.proj.weight": (1280, 3, 16, 16),
        "image_encoder.patch_embed.proj.bias": (1280,),
    }
    for n in range(32):
        block = f"image_encoder.blocks.{n}"
        found |= norm(f"{block}.norm1", 1280) | norm(f"{block}.norm2", 1280)
        found |= linear(f"{block}.attn.qkv", 1280, 3840) | linear(f"{block}.attn.proj", 1280, 1280)
        span = 127 if n in (7, 15, 23, 31) else 27
        found |= {f"{block}.attn.rel_pos_{axis}": (span, 80) for axis in "hw"}
        found |= linear(f"{block}.mlp.lin1", 1280, 5120) | linear(f"{block}.mlp.lin2", 5120, 1280)
    found |= {"image_encoder.neck.0.weight": (256, 1280, 1, 1), "image_encoder.neck.2.weight": (256, 256, 3, 3)}
    found |= norm("image_encoder.neck.1", 256) | norm("image_encoder.neck.3", 256)
    found["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"] = (2, 128)
    found |= {f"prompt_encoder.point_embeddings.{n}.weight": (1, 256) for n in range(4)}
    found |= {f"prompt_encoder.{name}.weight": (1, 256) for name in ("not_a_point_embed", "no_mask_embed")}
    for place, shape in ((0, (4, 1, 2, 2)), (3, (16, 4, 2, 2)), (6, (256, 16, 1, 1))):
        found |= {f"prompt_encoder.mask_downscaling.{place}.weight": shape}
        found |= {f"prompt_encoder.mask_downscaling.{place}.bias": shape[:1]}
    found |= norm("prompt_encoder.mask_downscaling.1", 4) | norm("prompt_encoder.mask_downscaling.4", 16)
    found |= {"mask_decoder.iou_token.weight": (1, 256), "mask_decoder.mask_tokens.weight": (4, 256)}
    for n in range(2):
        layer = f"mask_decoder.transformer.layers.{n}"
        found |= attention_names(f"{layer}.self_attn", 256)
        found |= attention_names(f"{layer}.cross_attn_token_to_image", 128)
        found |= attention_names(f"{layer}.cross_attn_image_to_token", 128)
        for place in range(1, 5):
            found |= norm(f"{layer}.norm{place}", 256)
        found |= linear(f"{layer}.mlp.lin1", 256, 2048) | linear(f"{layer}.mlp.lin2", 2048, 256)
    found |= attention_names("mask_decoder.transformer.final_attn_token_to_image", 128)
    found |= norm("mask_decoder.transformer.norm_final_attn", 256)
    found |= {"mask_decoder.output_upscaling.0.weight": (256, 64, 2, 2), "mask_decoder.output_upscaling.0.bias": (64,)}
    found |= {"mask_decoder.output_upscaling.3.weight": (64, 32, 2, 2), "mask_decoder.output_upscaling.3.bias": (32,)}
    found |= norm("mask_decoder.output_upscaling.1", 64)
    for name, last in (*((f"output_hypernetworks_mlps.{n}", 32) for n in range(4)), ("iou_prediction_head", 4)):
        found |= linear(f"mask_decoder.{name}.layers.0", 256, 256) | linear(f"mask_decoder.{name}.layers.1", 256, 256)
        found |= linear(f"mask_decoder.{name}.layers.2", 256, last)
    return found


def attention_names(name: str, inner: int) -> Shapes:
    found = {key: value for part in "qkv" for key, value in linear(f"{name}.{part}_proj", 256, inner).items()}
    return found | linear(f"{name}.out_proj", inner, 256)


def clip_names() -> Shapes:
    """The vision half of openai/clip-vit-large-patch14."""
    top = "vision_model"
    found: Shapes = {f"{top}.embeddings.class_embedding": (1024,), f"{top}.embeddings.position_ids": (1, 257)}
    found[f"{top}.embeddings.patch_embedding.weight"] = (1024, 3, 14, 14)
    found[f"{top}.embeddings.position_embedding.weight"] = (257, 1024)
    found |= norm(f"{top}.pre_layrnorm", 1024) | norm(f"{top}.post_layernorm", 1024)
    for n in range(24):
        layer = f"{top}.encoder.layers.{n}"
        found |= norm(f"{layer}.layer_norm1", 1024) | norm(f"{layer}.layer_norm2", 1024)
        found |= {
            k: v for p in ("q", "k", "v", "out") for k, v in linear(f"{layer}.self_attn.{p}_proj", 1024, 1024).items()
        }
        found |= linear(f"{layer}.mlp.fc1", 1024, 4096) | linear(f"{layer}.mlp.fc2", 4096, 1024)
    return found


class Named(Tensors):
    """Tensors that have shapes and no numbers."""

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes

    def __getitem__(self, key: str) -> Entry:
        return Entry(self.shapes[key], torch.bfloat16, (key,))

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def tensor(self, key: str) -> Tensor:
        return torch.empty(self.shapes[key], device="meta")


def plan(shapes: Shapes) -> Mapping[str, tuple[int, str]]:
    llama = {"vocab_size": 32005, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
             "num_attention_heads": 32, "rms_norm_eps": 1e-6, "mm_vision_select_layer": -2}  # fmt: skip
    levels = [{"name": n, "token": t, "token_id": i} for n, t, i in
              (("location", "[SEG_SEMA]", 32003), ("target", "[SEG]", 32004))]  # fmt: skip
    tower = Tower("clip", Named(clip_names()), published_sizes.clip_config(224))
    config, found = plan_model("CoReS-7B", "CoReS-7B", llama, Named(shapes), tower, levels, "published")
    sam = config.segmenter_config.vision_config
    assert (sam.num_attention_heads, sam.window_size, sam.global_attn_indexes) == (16, 14, [7, 15, 23, 31])
    refined = any(name.startswith("transformer_cross_attention") for name in shapes)
    assert config.refiner == ("published" if refined else "none")
    return found.places


@pytest.mark.parametrize("refiner", [False, True])
def test_the_published_7b_maps_completely(refiner: bool) -> None:
    shapes = published_names(refiner)
    found = plan(shapes)
    targets = {
        name for name in made("cores-7b").state_dict() if ".lora_" not in name and not name.startswith("refiner.")
    }
    expected = {name.replace(".base_layer", "") for name in targets} - {
        "segmenter.prompt_encoder.shared_embedding.positional_embedding"  # a second name of one that is there
    }
    assert {name for name in found if not name.startswith("refiner.")} == expected
    assert sum(name.startswith("refiner.") for name in found) == (6 if refiner else 0)


def test_a_lost_tensor_of_the_published_7b_is_named() -> None:
    shapes = published_names(True)
    del shapes["model.visual_model.mask_decoder.output_hypernetworks_mlps.2.layers.1.bias"]
    del shapes["model.layers.17.mlp.up_proj.weight"]
    with pytest.raises(CheckpointError) as caught:
        plan(shapes)
    assert str(caught.value).count("missing: ") == 2
    assert "mllm.model.language_model.layers.17.mlp.up_proj.weight (model.layers.17.mlp.up_proj.weight)" in str(
        caught.value
    )


def test_the_page_about_memory_says_what_is_computed() -> None:
    """docs/memory.md holds the tables of benchmarks/memory.py as they are now."""
    page = (Path(__file__).resolve().parents[1] / "docs" / "memory.md").read_text("utf-8")
    for table in (memory.inference_table(), memory.training_table(), memory.picture_table()):
        assert table in page, "run python benchmarks/memory.py and put its tables into docs/memory.md"
