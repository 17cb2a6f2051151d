"""The bases' own files: LLaVA v1 and v1.5, LLaVA as differences to LLaMA, SAM; training starts from what comes out."""

import json
from pathlib import Path

import pytest
import torch
from published import TRAINING_TOWER, published_model, published_state, write_clip, write_published, write_weights
from tiny_run import tiny_recipe
from torch import Tensor
from transformers import AutoTokenizer, SamModel

from cores.checkpoints.published.convert_bases import convert_llava, convert_sam
from cores.checkpoints.published.convert_config import sam_config
from cores.checkpoints.runs.bases import load_parts, load_strictly
from cores.checkpoints.runs.origin import Base
from cores.cli import main
from cores.errors import CheckpointError
from cores.modeling import CoresModel
from cores.modeling.mllms.llava import LlavaMLLM
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
