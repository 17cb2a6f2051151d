"""Run lengths, samples and metrics: round trips, sums that add up, values worked out by hand."""

from pathlib import Path

import numpy as np
import pytest

from cores import masks
from cores.data.sample import Conversation, Sample, Target, Turn
from cores.errors import DataError
from cores.evaluation.metrics import MaskMetrics


def _random_mask(seed: int, size: tuple[int, int] = (7, 11)) -> np.ndarray:
    return np.random.default_rng(seed).random(size) > 0.5


@pytest.mark.parametrize("size", [(1, 1), (7, 11), (64, 3)])
def test_rle_round_trip(size):
    mask = _random_mask(0, size)
    rle = masks.encode(mask)
    assert isinstance(rle["counts"], str)
    assert tuple(rle["size"]) == size
    assert (masks.decode(rle) == mask).all()


def test_overlapping_parts_are_joined_as_run_lengths():
    a, b = _random_mask(1), _random_mask(2)
    assert (masks.decode(masks.union_rle([masks.encode(a), masks.encode(b)], a.shape)) == (a | b)).all()
    assert not masks.decode(masks.union_rle([], (3, 4))).any()


def test_a_sample_refuses_masks_of_another_size():
    rle = masks.encode(_random_mask(0))
    conversation = Conversation((Turn("the cup", targets=(Target(rle),)),))
    Sample(Path("a.png"), (7, 11), (conversation,))
    with pytest.raises(DataError, match=r"a\.png.*the cup"):
        Sample(Path("a.png"), (11, 7), (conversation,))


def test_metrics_by_hand():
    truth = np.zeros((2, 4), dtype=bool)
    truth[0] = True  # 4 pixels
    predicted = np.zeros_like(truth)
    predicted[:, :2] = True  # 4 pixels, 2 shared
    metrics = MaskMetrics()
    assert metrics.update(predicted, truth) == pytest.approx(2 / 6)
    assert metrics.update(np.zeros_like(truth), np.zeros_like(truth)) == 1.0
    got = metrics.compute()
    assert got["giou"] == pytest.approx((2 / 6 + 1) / 2)
    assert got["ciou"] == pytest.approx(2 / 6)
    assert got["p@0.5"] == 0.5


def test_ignored_pixels_never_count():
    truth, predicted, ignore = _random_mask(0), _random_mask(1), _random_mask(2)
    other = predicted ^ ignore  # differs only where ignored
    assert MaskMetrics().update(predicted, truth, ignore) == MaskMetrics().update(other, truth, ignore)


def test_two_ranks_add_up_to_one():
    pairs = [(_random_mask(i), _random_mask(i + 50)) for i in range(6)]
    whole, left, right = MaskMetrics(), MaskMetrics(), MaskMetrics()
    for i, pair in enumerate(pairs):
        whole.update(*pair)
        (left if i % 2 else right).update(*pair)
    assert (left + right).compute() == pytest.approx(whole.compute())
