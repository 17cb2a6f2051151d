"""Masks made at the size that the losses want: the same numbers as from whole masks."""

import numpy as np
import pytest
import torch
from tiny import tiny_config, tiny_model
from tiny_run import Squares
from tiny_tokenizer import tiny_processor

from cores.data.sample import Sample
from cores.errors import DataError
from cores.geometry import shrink
from cores.masks import encode
from cores.processing.truth import shares


def test_shares_from_run_lengths_are_those_of_pixels():
    """Masks of every kind, larger and smaller than their cells."""
    rng = np.random.default_rng(0)
    for number in range(200):
        cells = tuple(int(length) for length in rng.integers(1, 40, 2))
        mask = rng.random(rng.integers(1, 60, 2)) < rng.choice([0, 0.02, 0.5, 0.97, 1])
        if number % 2:
            mask = np.kron(mask, np.ones((7, 5))) > 0
        expected = shrink(torch.from_numpy(mask)[None], cells)[0].numpy()
        assert np.abs(shares(encode(mask), cells) - expected).max() < 1e-6


@pytest.mark.parametrize("counts", ["", "0", "`", "ä", "51"])
def test_run_lengths_that_do_not_fill_their_size_are_refused(counts):
    with pytest.raises(DataError, match="do not fill their size"):
        shares({"size": [4, 5], "counts": counts}, (2, 2))


def test_losses_are_the_same_from_shares_and_from_whole_masks():
    processor, model = tiny_processor(), tiny_model(tiny_config(loss_resolution="low", location_loss=True))
    ignored = [encode(np.indices(Squares()[i].size).sum(0) % 7 < 3) if i else None for i in range(3)]
    samples = [Squares()[i] for i in range(3)]
    samples = [Sample(s.image, s.size, s.conversations, left) for s, left in zip(samples, ignored, strict=True)]
    whole, small = (
        processor.collate(samples, 0, 0, range(3), mask_size=size) for size in (None, model.loss_mask_size)
    )
    assert whole["truth"][0].shape == (40, 48)
    assert small["truth"][0].shape < (40, 48)
    losses = [model(**batch) for batch in (whole, small)]
    torch.testing.assert_close(losses[1].loss, losses[0].loss, rtol=1e-6, atol=0)
    assert losses[0].loss > 0
