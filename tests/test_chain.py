"""The chain against SAM's own decoder, mask by mask, and against its levels written out by hand."""

import pytest
import torch
from tiny import tiny_config, tiny_model
from transformers.models.sam.modeling_sam import SamMaskDecoder

from cores.errors import CheckpointError
from cores.modeling import CoresModel
from cores.modeling.refiner import mask_average
from cores.modeling.segmenters.base import Features

INDEX = torch.tensor([0, 1, 0, 1, 1])  # five masks of two images, in no order


@pytest.fixture
def model() -> CoresModel:
    return tiny_model(tiny_config(3, "paper"))


def by_itself(model: CoresModel, features: Features, token: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """One mask of one image as transformers' SAM decodes it; `token` (dim,), `mask` (H, W)."""
    sam = model.segmenter
    _, dense = sam.prompt_encoder(
        input_points=None, input_labels=None, input_boxes=None, input_masks=None if mask is None else mask[None, None]
    )
    low_res, _ = SamMaskDecoder.forward(
        sam.mask_decoder,
        image_embeddings=features.coarse,
        image_positional_embeddings=sam.get_image_wide_positional_embeddings(),
        sparse_prompt_embeddings=token[None, None, None],
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )
    return low_res[0, 0, 0]


@pytest.mark.parametrize("prompted", [False, True])
@torch.no_grad()
def test_a_flat_axis_of_masks_equals_one_by_one(model: CoresModel, prompted: bool) -> None:
    features, tokens = model.encode(torch.randn(2, 3, 64, 64)), torch.randn(5, model.segmenter.dim)
    masks = torch.randn(5, 32, 32) if prompted else None
    found = model.segmenter.decode(features, tokens[:, None], INDEX, masks)
    for number, image in enumerate(INDEX.tolist()):
        mask = masks[number] if masks is not None else None
        one = by_itself(model, features[image : image + 1], tokens[number], mask)
        torch.testing.assert_close(found[number], one, rtol=1e-5, atol=1e-5)
    assert model.segmenter.decode(features, tokens[:0, None], INDEX[:0]).shape == (0, 32, 32)


@torch.no_grad()
def test_every_level_is_guided_by_the_one_before(model: CoresModel) -> None:
    features, tokens = model.encode(torch.randn(2, 3, 64, 64)), torch.randn(3, 5, model.segmenter.dim)
    found = model.segment(features, tokens, INDEX)
    for number, image in enumerate(INDEX.tolist()):
        own, mask = features[image : image + 1], None
        for level in range(3):
            token = tokens[level, number]
            if mask is not None:
                average = mask_average(own.coarse, torch.tensor([0]), mask[None])[0]
                token = token + model.refiner.out(model.refiner.v(average))
            mask = by_itself(model, own, token, mask)
            torch.testing.assert_close(found[level][number], mask, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_without_location_only_the_last_level_changes(model: CoresModel) -> None:
    features, tokens = model.encode(torch.randn(2, 3, 64, 64)), torch.randn(3, 5, model.segmenter.dim)
    guided, bare = model.segment(features, tokens, INDEX), model.segment(features, tokens, INDEX, use_location=False)
    torch.testing.assert_close(guided[:2], bare[:2])
    torch.testing.assert_close(bare[2], model.segmenter.decode(features, tokens[2][:, None], INDEX))
    assert (guided[2] - bare[2]).abs().max() > 1e-3


@torch.no_grad()
def test_masks_apart_and_one_token_twice() -> None:
    """The paper's rows of one chain without the other: what they are in terms of the whole chain."""
    both = tiny_model(tiny_config(2, "none"))
    features, tokens = both.encode(torch.randn(2, 3, 64, 64)), torch.randn(2, 5, both.segmenter.dim)
    apart = tiny_model(tiny_config(2, "none", segmenting="apart"))
    apart.load_state_dict(both.state_dict())
    found = apart.segment(features, tokens, INDEX)
    for level in range(2):
        (alone,) = both.segment(features, tokens[level : level + 1], INDEX)
        torch.testing.assert_close(found[level], alone)

    both = tiny_model(tiny_config(2, "paper"))
    twice = tiny_model(tiny_config(1, "paper", segmenting="twice"))
    twice.load_state_dict(both.state_dict())
    (found,) = twice.segment(features, tokens[:1], INDEX)
    torch.testing.assert_close(found, both.segment(features, tokens[:1].expand(2, -1, -1), INDEX)[1])
    (first,) = twice.segment(features, tokens[:1], INDEX, use_location=False)
    torch.testing.assert_close(first, both.segment(features, tokens[:1], INDEX)[0])
    with pytest.raises(CheckpointError, match="found twice and 2 levels"):
        tiny_config(2, "paper", segmenting="twice")
    with pytest.raises(CheckpointError, match="made apart there is nothing to refine by"):
        tiny_config(2, "paper", segmenting="apart")
