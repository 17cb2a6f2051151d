"""Intervals against a slow bootstrap that draws images one by one, and against what is known of simple samples."""

import numpy as np
import pytest

from cores.evaluation.intervals import PerImage, interval, resampled


def test_intervals_are_those_of_a_slow_bootstrap() -> None:
    rng = np.random.default_rng(5)
    images: PerImage[str] = PerImage()
    parts = []
    for _ in range(30):  # images with 0 to 3 masks
        ious = rng.random(int(rng.integers(0, 4)))
        parts.append((float(ious.sum()), len(ious)))
        images.add({"giou": parts[-1], "never": (0, 0)})
    paths, table = images.table()
    assert paths == ["giou"]
    fast = resampled(table, seed=3, resamples=500)[:, 0]
    draws = np.random.default_rng(3).integers(30, size=(500, 30))
    slow = [sum(parts[i][0] for i in draw) / sum(parts[i][1] for i in draw) for draw in draws]
    np.testing.assert_allclose(fast, slow, rtol=1e-12)
    ordered = sorted(slow)
    low, high = interval(fast)
    assert ordered[11] <= low <= ordered[13]
    assert ordered[486] <= high <= ordered[488]
    assert (resampled(table, seed=3, resamples=500)[:, 0] == fast).all()


def test_an_interval_of_many_equal_images_has_the_width_that_statistics_give() -> None:
    images: PerImage[str] = PerImage()
    for i in range(400):
        images.add({"p": (i % 2, 1)})
    low, high = interval(resampled(images.table()[1], seed=0)[:, 0])
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.1)  # of the binomial distribution
    assert low < 0.5 < high


def test_nothing_counted_has_no_interval() -> None:
    assert all(np.isnan(interval(np.full(10, np.nan))))
