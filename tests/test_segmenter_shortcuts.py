"""What is computed otherwise than in a family's own program gives its numbers."""

import pytest
import torch
from tiny_segmenters import CONFIGS, native, tiny_segmenter

from cores.modeling.segmenters import relative_attention


@pytest.mark.parametrize("kind", ["sam", "sam_hq"])
def test_attention_in_bands_is_the_whole_one(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """States and gradients, with the bias of three rows of the grid at a time (the last band has two of eight)."""
    theirs, ours = native(CONFIGS[kind]()).double(), tiny_segmenter(kind).double()
    seen = torch.randn(2, 3, 128, 128, dtype=torch.float64)
    monkeypatch.setattr(relative_attention, "QUERIES", 24)
    bands = {type(layer.attn) for layer in ours.vision_encoder.layers} & set(relative_attention.IN_BANDS.values())
    assert len(bands) == 1
    found, expected = (model.vision_encoder(seen).last_hidden_state for model in (ours, theirs))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for states in (found, expected):
        states.square().mean().backward()
    for (name, mine), its in zip(
        ours.vision_encoder.named_parameters(), theirs.vision_encoder.parameters(), strict=True
    ):
        torch.testing.assert_close(mine.grad, its.grad, rtol=1e-9, atol=1e-12, msg=name)
