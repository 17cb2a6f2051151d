"""The bases' own files: LLaVA v1 and v1.5, LLaVA as differences to LLaMA, SAM; training starts from what comes out."""

import json
import re
from pathlib import Path

import pytest
import torch
from published import TRAINING_TOWER, published_model, published_state, write_clip, write_published, write_weights
from safetensors.torch import load_file, save_file
from tiny import tiny_config, tiny_model
from tiny_run import tiny_recipe
from torch import Tensor
from transformers import AutoTokenizer, LlavaForConditionalGeneration, SamModel

from cores.checkpoints.load import load_model
from cores.checkpoints.published.conversion import convert
from cores.checkpoints.published.convert_bases import convert_llava, convert_sam
from cores.checkpoints.published.convert_config import sam_config
from cores.checkpoints.runs.bases import load_parts, load_strictly
from cores.checkpoints.runs.origin import Base
from cores.cli import main
from cores.errors import CheckpointError
from cores.modeling import CoresModel
from cores.modeling.mllms.llava import LlavaMLLM
from cores.modeling.segmenters.sam import SamSegmenter
from cores.training.start import start

LLAVA_TOKENS = {"<im_patch>": 330, "<im_start>": 331, "<im_end>": 332}


def llava_state(model: CoresModel) -> dict[str, Tensor]:
    """LLaVA's tensors alone, without rows for grounding tokens."""
    state = {n: v for n, v in published_state(model).items() if "visual_model" not in n and "text_hidden" not in n}
    return {n: v[:333] if n in ("lm_head.weight", "model.embed_tokens.weight") else v for n, v in state.items()}


def write_llava(folder: Path, model: CoresModel, state: dict[str, Tensor] | None = None) -> Path:
    write_published(folder, model)
    for file in folder.glob("pytorch_model*"):
        file.unlink()
    write_weights(folder, state or llava_state(model), 2)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 333}))
    (folder / "added_tokens.json").write_text(json.dumps(LLAVA_TOKENS))
    return folder


def write_sam(file: Path, model: CoresModel) -> Path:
    prefix = "model.visual_model."
    state = {n.removeprefix(prefix): v.float() for n, v in published_state(model).items() if n.startswith(prefix)}
    torch.save(state, file)
    return file


@pytest.mark.parametrize("projector", ["linear", "mlp2x_gelu"])
def test_llava_becomes_transformers(projector: str, tmp_path: Path) -> None:
    model = published_model(projector=projector)
    src, clip = write_llava(tmp_path / "src", model), write_clip(tmp_path / "clip", model)
    assert (
        main(["convert", "--from", "llava", "--src", str(src), "--clip", str(clip), "--out", str(tmp_path / "o")]) == 0
    )
    found = load_strictly(LlavaMLLM, tmp_path / "o", dtype=torch.float32).state_dict()
    expected = model.mllm.state_dict()
    for name, value in found.items():
        assert torch.equal(value, expected[name][: len(value)]), name
    assert len(found) == len(expected)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "o")
    assert [tokenizer.convert_tokens_to_ids(token) for token in LLAVA_TOKENS] == list(LLAVA_TOKENS.values())


def test_a_delta_is_added_and_what_the_base_lacks_is_whole(tmp_path: Path) -> None:
    model = published_model()
    clip, whole = write_clip(tmp_path / "clip", model), llava_state(model)
    base, delta = {}, {}
    for name, value in whole.items():
        if "mm_projector" in name:
            delta[name] = value
        elif "inv_freq" in name:
            base[name] = delta[name] = value
        else:  # LLaMA has rows for 330 pieces alone
            base[name] = torch.randn_like(value)[:330] if len(value) == 333 else torch.randn_like(value)
            delta[name] = value.clone()
            delta[name][: len(base[name])] -= base[name]
    (tmp_path / "base").mkdir()
    write_weights(tmp_path / "base", base, 3)
    released = write_llava(tmp_path / "delta", model, delta)
    flags = [
        "--base",
        str(tmp_path / "base"),
        "--delta",
        str(released),
        "--clip",
        str(clip),
        "--out",
        str(tmp_path / "o"),
    ]
    assert main(["convert", "--from", "llava-delta", *flags]) == 0
    found = load_strictly(LlavaMLLM, tmp_path / "o", dtype=torch.float32).state_dict()
    table = (tmp_path / "o" / "keys.tsv").read_text()
    assert "base + delta, 3 rows beyond the base's 330 whole in the delta" in table
    assert table.count("whole in the delta") == 4
    rounded = found["lm_head.weight"]
    assert torch.equal(rounded[:330], (base["lm_head.weight"] + delta["lm_head.weight"][:330]).float())  # as fp16 adds
    assert torch.equal(rounded[330:], whole["lm_head.weight"][330:].float())
    assert torch.equal(found["model.multi_modal_projector.weight"], whole["model.mm_projector.weight"].float())
    layer = "layers.1.mlp.up_proj.weight"
    assert torch.equal(
        found[f"model.language_model.{layer}"], (base[f"model.{layer}"] + delta[f"model.{layer}"]).float()
    )

    other = {**base, "model.layers.7.mlp.up_proj.weight": torch.zeros(2, 2), "model.norm.weight": torch.zeros(8)}
    write_weights(tmp_path / "base", other, 3)
    with pytest.raises(CheckpointError) as caught:
        convert_llava(released, clip, tmp_path / "o2", base=tmp_path / "base")
    assert "model.layers.7.mlp.up_proj.weight is not in the delta" in str(caught.value)
    assert r"model.norm.weight is (8,), the delta's is (32,)" in str(caught.value)


def test_sam_becomes_transformers(tmp_path: Path) -> None:
    model = published_model()
    file = write_sam(tmp_path / "sam_vit_t.pth", model)
    assert main(["convert", "--from", "sam", "--src", str(file), "--out", str(tmp_path / "o")]) == 0
    found = SamModel.from_pretrained(tmp_path / "o").state_dict()
    expected = model.segmenter.state_dict()
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 8, 8, 16)}, file)
    with pytest.raises(CheckpointError, match=r"no SAM can be made of it, for it lacks image_encoder.patch_embed"):
        convert_sam(file, tmp_path / "o2")


def test_the_sizes_of_a_sam_are_read_off_its_tensors() -> None:
    """ViT-H: 80 numbers a head, windows of 14 but for four layers."""
    shapes: dict[str, tuple[int, ...]] = {
        "image_encoder.pos_embed": (1, 64, 64, 1280),
        "image_encoder.patch_embed.proj.weight": (1280, 3, 16, 16),
        "image_encoder.neck.0.weight": (256, 1280, 1, 1),
        "mask_decoder.transformer.layers.0.mlp.lin1.weight": (2048, 256),
        "mask_decoder.transformer.layers.0.cross_attn_token_to_image.q_proj.weight": (128, 256),
        "mask_decoder.transformer.layers.1.norm1.weight": (256,),
        "mask_decoder.mask_tokens.weight": (4, 256),
        "mask_decoder.iou_prediction_head.layers.0.weight": (256, 256),
        "mask_decoder.iou_prediction_head.layers.1.weight": (256, 256),
        "mask_decoder.iou_prediction_head.layers.2.weight": (4, 256),
        "prompt_encoder.mask_downscaling.3.weight": (16, 4, 2, 2),
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": (2, 128),
        **{f"prompt_encoder.point_embeddings.{n}.weight": (1, 256) for n in range(4)},
    }
    for n in range(32):
        shapes[f"image_encoder.blocks.{n}.mlp.lin1.weight"] = (5120, 1280)
        shapes[f"image_encoder.blocks.{n}.attn.rel_pos_h"] = (127 if n in (7, 15, 23, 31) else 27, 80)
    config = sam_config(shapes, "sam")
    known = {"num_attention_heads": 16, "num_hidden_layers": 32, "global_attn_indexes": [7, 15, 23, 31],
             "window_size": 14, "image_size": 1024, "mlp_dim": 5120, "output_channels": 256}  # fmt: skip
    assert {name: getattr(config.vision_config, name) for name in known} == known
    decoder = config.mask_decoder_config
    assert (decoder.num_attention_heads, decoder.attention_downsample_rate, decoder.num_hidden_layers) == (8, 2, 2)
    assert (decoder.iou_head_depth, decoder.num_multimask_outputs) == (3, 3)
    assert config.prompt_encoder_config.num_point_embeddings == 4


def test_every_norm_has_the_epsilon_of_its_own_program(tmp_path: Path) -> None:
    """SAM: 1e-6, but torch's default in the decoder's two-way transformer. CLIP and LLaMA: what their files say."""
    model = published_model()
    model.config.mllm_config.text_config.rms_norm_eps = 3e-5
    model.config.mllm_config.vision_config.layer_norm_eps = 2e-5
    src, clip = write_published(tmp_path / "src", model), write_clip(tmp_path / "clip", model)
    convert("cores", src, clip, tmp_path / "model")
    convert_sam(write_sam(tmp_path / "sam.pth", model), tmp_path / "sam")
    sams = [SamModel.from_pretrained(tmp_path / "sam"), load_model(tmp_path / "model", torch.float32).segmenter]
    for sam in sams:
        found = {name: module.eps for name, module in sam.named_modules() if hasattr(module, "eps")}
        decoder = {name for name in found if name.startswith("mask_decoder.transformer.")}
        assert len(decoder) == 9  # four in each of two layers, and the last
        assert {found[name] for name in decoder} == {1e-5}
        assert {found[name] for name in found.keys() - decoder} == {1e-6}
    mllm = load_model(tmp_path / "model", torch.float32).mllm.model
    norms = [(name, module) for name, module in mllm.named_modules() if "norm" in name.rpartition(".")[2]]
    assert {m.variance_epsilon for n, m in norms if n.startswith("language_model")} == {3e-5}
    assert {m.eps for n, m in norms if n.startswith("vision_tower")} == {2e-5}


def older_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As llava-hf's repositories have it, and transformers' own save_pretrained writes it."""
    renamed = {}
    for name, value in state.items():
        new = name.replace("model.language_model.", "language_model.model.").replace(
            "lm_head", "language_model.lm_head"
        )
        renamed[new.replace("model.vision_tower.", "vision_tower.vision_model.").removeprefix("model.")] = value
    return renamed


LAYOUTS = {
    "today's": lambda state: state,
    "llava-hf's": older_layout,
    "without model": lambda s: {
        n.replace("language_model.model.", "language_model."): v for n, v in older_layout(s).items()
    },
    "with counted positions": lambda s: s | {"model.vision_tower.embeddings.position_ids": torch.arange(17)[None]},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_llava_in_any_layout_that_its_family_reads_is_loaded_whole(layout: str, tmp_path: Path) -> None:
    expected = tiny_model().mllm
    expected.save_pretrained(tmp_path, save_original_format=False)
    state = load_file(tmp_path / "model.safetensors")
    save_file(LAYOUTS[layout](state), tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = load_strictly(LlavaMLLM, tmp_path, dtype=torch.float32).state_dict()
    assert [name for name, value in expected.state_dict().items() if not torch.equal(found[name], value)] == []


def test_what_transformers_writes_of_a_llava_is_loaded_whole(tmp_path: Path) -> None:
    theirs = LlavaForConditionalGeneration(tiny_config().mllm_config)
    theirs.save_pretrained(tmp_path)
    assert "language_model.lm_head.weight" in load_file(tmp_path / "model.safetensors")
    found = load_strictly(LlavaMLLM, tmp_path).state_dict()
    assert [name for name, value in theirs.state_dict().items() if not torch.equal(found[name], value)] == []


POSITIONS = ("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding")


@pytest.mark.parametrize("names", [POSITIONS, POSITIONS[:1], POSITIONS[1:]])
def test_a_sam_with_one_or_both_names_of_its_positions_is_loaded_whole(names: list[str], tmp_path: Path) -> None:
    expected = tiny_model().segmenter
    expected.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    (value,) = (state.pop(name) for name in POSITIONS if name in state)
    state |= {name: value.clone() for name in names}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = load_strictly(SamSegmenter, tmp_path, dtype=torch.float32).state_dict()
    assert [name for name, value in expected.state_dict().items() if not torch.equal(found[name], value)] == []


def test_a_base_that_is_no_numbers_is_refused_by_name(tmp_path: Path) -> None:
    sam = tiny_model().segmenter
    sam.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    name = "mask_decoder.mask_tokens.weight"
    for value, message in ((float("inf"), "holds infinite numbers (1 of 128"), (None, "is of int8, expected")):
        broken = state[name].to(torch.int8) if value is None else state[name].clone()
        if value is not None:
            broken[0, 0] = value
        save_file({**state, name: broken}, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match=re.escape(f"{name}: {message}")):
            load_strictly(SamSegmenter, tmp_path)


def test_a_run_starts_from_what_was_converted(tmp_path: Path) -> None:
    """As the recipes say: model.mllm and model.segmenter are converted folders; every weight of them is kept."""
    model = published_model()
    src, clip = write_llava(tmp_path / "src", model), write_clip(tmp_path / "clip", model)
    convert_llava(src, clip, tmp_path / "llava")
    convert_sam(write_sam(tmp_path / "sam.pth", model), tmp_path / "sam")
    recipe = tiny_recipe(
        tmp_path, model__bases="null", model__mllm=tmp_path / "llava", model__segmenter=tmp_path / "sam"
    )
    base, started, processor = start(recipe, 0)
    parts = load_parts(Base(base.paths), dtype=torch.float32)
    assert processor.token_ids == [333, 334]  # behind the checkpoint's own
    for name, value in parts.mllm.state_dict().items():
        assert torch.equal(started.mllm.state_dict()[name][: len(value)], value), name
    for name, value in parts.segmenter.state_dict().items():
        assert torch.equal(started.segmenter.state_dict()[name], value), name


def test_a_towers_copy_in_the_checkpoint_is_the_one_that_is_taken(tmp_path: Path) -> None:
    model, other = published_model(), published_model(seed=1)
    clip = write_clip(tmp_path / "clip", other)
    state = llava_state(model)
    for name, value in torch.load(write_clip(tmp_path / "own", model) / "pytorch_model.bin").items():
        if name.startswith("vision_model."):
            state[TRAINING_TOWER + name] = value
    done = convert_llava(write_llava(tmp_path / "src", model, state), clip, tmp_path / "o")
    found = load_strictly(LlavaMLLM, tmp_path / "o", dtype=torch.float32).model.vision_tower.state_dict()
    expected = model.mllm.model.vision_tower.state_dict()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    assert "the checkpoint brings a vision tower of its own" in {line.note for line in done.plan.lines}
