"""One table of names, both ways: every tensor of a model has exactly one name there, and comes back by it."""

import pytest
from tiny import tiny_config, tiny_model
from transformers import CLIPVisionModel, SamModel

from cores.checkpoints.published.keys import CLIP, PUBLISHED, SAM, Table, ignored, rename


def comes_back(names: list[str], table: Table) -> None:
    """Ours to theirs to ours, each step by one line only."""
    theirs = [rename(name, table, back=True) for name in names]
    assert None not in theirs, [name for name, other in zip(names, theirs, strict=True) if other is None]
    assert len(set(theirs)) == len(names)
    assert [rename(str(other), table) for other in theirs] == names
    for line in table:
        rest = tuple(other for other in table if other != line)
        for name, other in zip(names, theirs, strict=True):
            if rename(name, (line,), back=True):
                assert rename(name, rest, back=True) is None, f"{name} matches two lines"
                assert rename(str(other), rest) is None, f"{other} matches two lines"


@pytest.mark.parametrize("projector", ["linear", "mlp2x_gelu"])
def test_every_tensor_of_a_model(projector: str) -> None:
    config = tiny_config(refiner="published")
    config.mllm_config.projector = projector
    comes_back([name for name in tiny_model(config).state_dict() if ignored(name) is None], PUBLISHED)


def test_every_tensor_of_a_base() -> None:
    config = tiny_config()
    comes_back([n for n in SamModel(config.segmenter_config).state_dict() if ignored(f"segmenter.{n}") is None], SAM)
    comes_back(list(CLIPVisionModel(config.mllm_config.vision_config).state_dict()), CLIP)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("model.layers.11.self_attn.q_proj.weight", "mllm.model.language_model.layers.11.self_attn.q_proj.weight"),
        ("model.mm_projector.weight", "mllm.model.multi_modal_projector.weight"),
        ("model.mm_projector.2.bias", "mllm.model.multi_modal_projector.linear_2.bias"),
        ("model.text_hidden_fcs.0.2.bias", "projection.2.bias"),
        (
            "model.visual_model.mask_decoder.output_hypernetworks_mlps.3.layers.1.weight",
            "segmenter.mask_decoder.output_hypernetworks_mlps.3.layers.0.weight",
        ),
        ("transformer_cross_attention_layers.multihead_attn.in_proj_weight", "refiner.multihead_attn.in_proj_weight"),
        (
            "model.vision_tower.vision_tower.vision_model.pre_layrnorm.bias",
            "mllm.model.vision_tower.pre_layrnorm.bias",
        ),
        ("model.unheard_of.weight", None),
    ],
)
def test_names(theirs: str, ours: str | None) -> None:
    assert rename(theirs, PUBLISHED) == ours
    assert ours is None or rename(ours, PUBLISHED, back=True) == theirs


def test_what_is_left_out_has_a_reason() -> None:
    assert "computed" in str(ignored("model.layers.3.self_attn.rotary_emb.inv_freq"))
    assert ignored("model.layers.3.self_attn.q_proj.weight") is None
