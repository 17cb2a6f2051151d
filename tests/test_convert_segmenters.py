"""Segmenters from their authors' files and from video models' folders: every tensor, no other, and the real sizes."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_segmenters import HIERA, native, randomised, sam2_config, sam3_tracker_config
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2Model,
    Sam2VideoConfig,
    Sam2VideoModel,
    Sam2VisionConfig,
    Sam3TrackerConfig,
    Sam3TrackerModel,
    Sam3VideoConfig,
    Sam3VideoModel,
)

from cores.checkpoints.published import convert_sam2 as module
from cores.checkpoints.published.convert_sam2 import POINTS, SIZES, Gathered, Hiera, convert_sam2
from cores.checkpoints.published.convert_sam2 import sam2_config as config_of
from cores.checkpoints.published.keys import SAM2, ignored, rename
from cores.checkpoints.runs.bases import load_segmenter
from cores.checkpoints.tensors.lazy import open_shards
from cores.cli import main
from cores.errors import CheckpointError

VIDEO = ("memory_attention.layers.0.norm1.weight", "maskmem_tpos_enc", "obj_ptr_proj.layers.0.bias", "no_mem_pos_enc")
NAMES = {"tiny": 38.96, "small": 46.06, "base_plus": 80.85, "large": 224.45}  # millions, as published


def published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A SAM 2's tensors under the published names, with some of those that are for videos."""
    found = {}
    for name, value in state.items():
        theirs = rename(name, SAM2, back=True)
        assert theirs is not None, name
        assert rename(theirs, SAM2) == name
        if theirs == f"{POINTS}weight":
            found |= {f"{POINTS}{n}.weight": row[None].clone() for n, row in enumerate(value)}
        elif not theirs.endswith("for_images"):
            found[theirs] = value
    return found | {name: torch.ones(3) for name in VIDEO}


def sized(size: str) -> Sam2Config:
    """The config of a published size, as transformers has it."""
    (width, blocks), hiera = list(SIZES.items())[list(NAMES).index(size)]
    widths = [width * 2**n for n in range(4)]
    trunk = Sam2HieraDetConfig(
        hidden_size=width, num_attention_heads=hiera.heads, blocks_per_stage=list(blocks), embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[hiera.heads * 2**n for n in range(4)],
        window_size_per_stage=list(hiera.windows), global_attention_blocks=list(hiera.global_blocks),
        window_positional_embedding_background_size=[14, 14] if size == "base_plus" else [7, 7],
    )  # fmt: skip
    return Sam2Config(vision_config=Sam2VisionConfig(backbone_config=trunk, backbone_channel_list=widths[::-1]))


def same(found: nn.Module, expected: nn.Module) -> None:
    mine, theirs = found.state_dict(), expected.state_dict()
    assert mine.keys() == theirs.keys()
    assert [name for name, value in mine.items() if not torch.equal(value, theirs[name])] == []


@pytest.mark.parametrize("size", NAMES)
def test_every_key_and_parameter_of_a_published_size(size: str) -> None:
    config = sized(size)
    if size == "tiny":
        assert config.to_dict() == Sam2Config().to_dict()
    with torch.device("meta"):
        picture, video = Sam2Model(config), Sam2VideoModel(Sam2VideoConfig(vision_config=config.vision_config))
    total = sum(value.numel() for value in video.parameters()) / 1e6
    assert total == pytest.approx(NAMES[size], abs=0.005)
    state = published(picture.state_dict())
    assert {name for name in state if rename(name, SAM2) is None and not name.startswith(POINTS)} == set(VIDEO)
    assert all(ignored(name) for name in VIDEO)
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    assert config_of(shapes, "a file").to_dict() == config.to_dict()


def test_sam2_becomes_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trunk = Sam2HieraDetConfig(**{**HIERA, "image_size": [1024, 1024]})
    monkeypatch.setitem(SIZES, (8, (1, 1, 2, 1)), Hiera(1, (3,), (4, 2, 4, 2)))
    vision = Sam2VisionConfig(backbone_config=trunk, backbone_channel_list=[64, 32, 16, 8])
    model = randomised(Sam2Model(Sam2Config(vision_config=vision)))
    positions = model.prompt_encoder.shared_embedding.positional_embedding
    model.shared_image_embedding.positional_embedding.copy_(positions)  # one tensor in the published file
    file = tmp_path / "sam2.1_hiera_toy.pt"
    torch.save({"model": published(model.state_dict())}, file)
    assert len(Gathered(open_shards(file))) == len(model.state_dict()) + len(VIDEO)
    assert main(["convert", "--from", "sam2", "--src", str(file), "--out", str(tmp_path / "o")]) == 0
    found = load_segmenter(tmp_path / "o")
    same(found, model)
    same(Sam2Model.from_pretrained(tmp_path / "o"), model)
    assert AutoConfig.from_pretrained(tmp_path / "o").model_type == "sam2"
    for name, layer in found.named_modules():  # torch's default in the decoder's transformer, 1e-6 in all others
        if hasattr(layer, "eps"):
            assert layer.eps == (1e-5 if name.startswith("mask_decoder.transformer.") else 1e-6), name

    monkeypatch.delitem(SIZES, (8, (1, 1, 2, 1)))
    with pytest.raises(CheckpointError, match=r"blocks \[1, 1, 2, 1\] of width 8, which is none of SAM 2's"):
        convert_sam2(file, tmp_path / "o2")
    with pytest.raises(CheckpointError, match="recipes take it as model.segmenter as it is"):
        module.convert_sam2(tmp_path / "o", tmp_path / "o2")


def test_of_a_video_folder_the_picture_part_is_taken(tmp_path: Path) -> None:
    config = sam2_config()
    stored = {name: getattr(config, name).to_dict() for name in ("vision_config", "mask_decoder_config")}
    prompts = {**config.prompt_encoder_config.to_dict(), "model_type": "sam2_video_prompt_encoder"}
    video = Sam2VideoModel(
        Sam2VideoConfig(
            **stored, prompt_encoder_config=prompts, image_size=128, memory_attention_hidden_size=32,
            memory_attention_feed_forward_hidden_size=32, memory_encoder_hidden_size=32, memory_fuser_embed_dim=32,
            memory_encoder_output_channels=32,
        )
    )  # fmt: skip
    randomised(video).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "sam2_video"
    found = load_segmenter(tmp_path, dtype=torch.float32)
    assert found.config.model_type == "sam2"
    theirs = video.state_dict()
    assert [name for name, value in found.state_dict().items() if not torch.equal(value, theirs[name])] == []
    seen = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        features = found.encode(seen)
        finest, finer, decoder = *features.fine, found.mask_decoder
        mine = (decoder.conv_s0(finest), decoder.conv_s1(finer), found.picture(features))
        expected = video.eval().get_image_embeddings(seen)
    for one, other in zip(mine, expected, strict=True):
        torch.testing.assert_close(one, other)


def sam3_name(name: str) -> str:
    """Of a tensor of the tracker, as the folder of the whole SAM 3 calls it."""
    for ours, theirs in (
        ("vision_encoder.backbone.", "detector_model.vision_encoder.backbone."),
        ("vision_encoder.neck.", "tracker_neck."),
    ):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return f"tracker_model.{name}"


def test_of_a_sam3_folder_the_tracker_is_taken(tmp_path: Path) -> None:
    config = sam3_tracker_config(4)
    model = native(config)
    state = {sam3_name(name): value for name, value in model.state_dict().items()}
    state |= {
        "detector_model.text_projection.weight": torch.ones(2, 2),
        "tracker_model.no_object_pointer": torch.ones(2),
    }
    save_file({name: value.contiguous().clone() for name, value in state.items()}, tmp_path / "model.safetensors")
    tracker = {**config.to_dict(), "model_type": "sam3_tracker_video"}
    tracker["vision_config"] = {**tracker["vision_config"], "scale_factors": [1.0]}  # its own encoder is not there
    detector = {"model_type": "sam3", "vision_config": config.vision_config.to_dict(), "mask_decoder_config": {}}
    whole = {"model_type": "sam3_video", "tracker_config": tracker, "detector_config": detector}
    (tmp_path / "config.json").write_text(json.dumps(whole))
    found = load_segmenter(tmp_path, dtype=torch.float32)
    same(found, model)
    assert (found.image_size, found.mask_size) == (112, 32)


def test_every_key_of_the_whole_sam3() -> None:
    """The real sizes, without one number: the hub's folder holds each tensor of the tracker, under its name there."""
    with torch.device("meta"):
        whole, tracker = Sam3VideoModel(Sam3VideoConfig()).state_dict(), Sam3TrackerModel(Sam3TrackerConfig())
    for name, value in tracker.state_dict().items():
        assert whole[sam3_name(name)].shape == value.shape, name


def test_a_config_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "detr"}))
    with pytest.raises(CheckpointError, match="is of a detr, expected the config of a segmenter: sam, sam_hq, sam2"):
        load_segmenter(tmp_path)


@pytest.mark.parametrize("field", ["blocks_per_stage", "iou_head_depth"])
def test_a_config_of_more_layers_than_tensors_is_refused_before_anything_is_built(field: str, tmp_path: Path) -> None:
    native(sam2_config()).save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    part = stored["vision_config"]["backbone_config"] if field == "blocks_per_stage" else stored["mask_decoder_config"]
    part[field] = [1, 10**8, 1, 1] if field == "blocks_per_stage" else 10**8
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(CheckpointError, match=rf"{field}(\.1)?: found 100000000, but the files hold \d+ tensors"):
        load_segmenter(tmp_path)
