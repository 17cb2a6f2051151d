"""The refiner: masked pooling by hand, the one-key attention that the paper's form reduces to, empty masks."""

import pytest
import torch
from torch import nn

from cores.modeling.refiner import AREA_FLOOR, PaperRefiner, PublishedRefiner, RegionRefiner, mask_average


def test_mask_average_of_a_quarter():
    features = torch.arange(16.0).reshape(1, 1, 4, 4)
    logits = torch.full((1, 8, 8), -3.0)
    logits[:, :4, :4] = 2.0  # cells (0, 0), (0, 1), (1, 0), (1, 1): values 0, 1, 4, 5
    first = torch.tensor([0])
    torch.testing.assert_close(mask_average(features, first, logits), torch.tensor([[10 / (4 + 5e-4)]]))
    assert mask_average(features, first, -logits.abs()).item() == 0


def test_each_mask_averages_its_own_picture():
    torch.manual_seed(0)
    features, logits, index = torch.randn(2, 8, 4, 4), torch.randn(5, 16, 16), torch.tensor([1, 0, 0, 1, 1])
    inside = nn.functional.interpolate((logits > 0).float()[:, None], (4, 4), mode="bilinear")
    expected = (features[index] * inside).sum((2, 3)) / (inside.sum((2, 3)) + AREA_FLOOR)
    torch.testing.assert_close(mask_average(features, index, logits), expected)
    with torch.autocast("cpu", torch.bfloat16):  # autocast does not round the sums
        torch.testing.assert_close(mask_average(features, index, logits), expected)
    assert mask_average(features, index[:0], logits[:0]).shape == (0, 8)


def test_paper_form_equals_attention_with_one_key():
    torch.manual_seed(0)
    refiner, attention = PaperRefiner(16), nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        attention.in_proj_weight[32:] = refiner.v.weight
        attention.in_proj_bias[32:] = refiner.v.bias
        attention.out_proj.weight.copy_(refiner.out.weight)
        attention.out_proj.bias.copy_(refiner.out.bias)
    tokens, features, logits = torch.randn(3, 16), torch.randn(3, 16, 4, 4), torch.randn(3, 16, 16)
    index = torch.arange(3)
    key = mask_average(features, index, logits)[:, None]
    expected = tokens + attention(tokens[:, None], key, key)[0][:, 0]
    torch.testing.assert_close(refiner(tokens, features, index, logits), expected)


@torch.no_grad()
def test_published_form_equals_its_attention_with_the_area_in_bfloat16():
    torch.manual_seed(0)
    refiner = PublishedRefiner(16, heads=4)
    for parameter in refiner.parameters():
        parameter.normal_()
    tokens, features = torch.randn(2, 16), torch.randn(2, 16, 20, 20)
    logits = torch.full((2, 80, 80), -1.0)
    logits[0, :77, :77] = 1.0  # 19 x 19 cells: 361, which bfloat16 calls 360
    logits[1, :40, :40] = 1.0
    inside = nn.functional.interpolate((logits > 0).float()[:, None], (20, 20), mode="bilinear")
    sums, exact = (features * inside).sum((2, 3)), inside.sum((2, 3)) + AREA_FLOOR
    rounded = inside.bfloat16().sum((2, 3)) + AREA_FLOOR
    assert abs(rounded.float() - exact).max() > 0.5

    def expected(area: torch.Tensor) -> torch.Tensor:
        h, key = tokens[None], (sums / area.float())[None]  # (1, masks, dim)
        return tokens + refiner.norm(h + refiner.multihead_attn(h, key, key)[0])[0]

    index = torch.arange(2)
    found = refiner(tokens, features, index, logits)
    torch.testing.assert_close(found, expected(rounded))
    assert (found - expected(exact)).abs().max() > 1e-4
    # whatever the run's precision, the refiner counts in fp32
    half = refiner.bfloat16()(tokens.bfloat16(), features.bfloat16(), index, logits)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), found, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("form", [PaperRefiner, RegionRefiner])
def test_only_features_under_the_mask_count_and_no_gradient_passes_the_cut(form):
    torch.manual_seed(0)
    refiner = form(16)
    tokens, features = torch.randn(2, 16), torch.randn(2, 16, 4, 4)
    logits = torch.full((2, 16, 16), -1.0)
    logits[0, :4, :4] = 1.0  # the first mask covers one cell, the second none
    logits.requires_grad_()
    other = features.clone()
    other[:, :, 2:, 2:] += 5
    index = torch.arange(2)
    refined = refiner(tokens, features, index, logits)
    torch.testing.assert_close(refined, refiner(tokens, other, index, logits))
    assert not torch.allclose(refined[0], tokens[0])
    torch.testing.assert_close(refined[1], tokens[1])
    refined.sum().backward()
    assert logits.grad is None
