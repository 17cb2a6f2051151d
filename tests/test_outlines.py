"""Outlines say a mask to the pixel: painted again, they give it back, however its pieces lie in each other's holes."""

import cv2
import numpy as np
import pytest

from cores.masks import Mask
from cores.outlines import filled, pieces_of

SIZE = (60, 80)  # (h, w)


def painted(mask: Mask) -> Mask:
    canvas = np.zeros_like(mask)
    for outline, holes in pieces_of(mask):
        canvas |= filled([outline], mask.shape)
        canvas &= ~filled(holes, mask.shape)
    return canvas


def nested(depth: int) -> Mask:
    """Rings in rings."""
    found = np.zeros((4 * depth, 4 * depth), bool)
    for n in range(0, 2 * depth, 2):
        found[n : 4 * depth - n, n : 4 * depth - n] = True
        found[n + 1 : 4 * depth - n - 1, n + 1 : 4 * depth - n - 1] = False
    return found


@pytest.mark.parametrize("seed", range(20))
def test_outlines_and_holes_painted_in_order_are_the_mask(seed: int) -> None:
    random = np.random.default_rng(seed)
    noise = random.random(SIZE)
    if seed % 4:  # the others are single pixels, which touch at corners
        noise = cv2.GaussianBlur(noise, (0, 0), random.uniform(0.4, 4))
    mask = noise > np.quantile(noise, random.uniform(0.2, 0.95))
    assert np.array_equal(painted(mask), mask)


def test_rings_in_rings_are_pieces_with_a_hole_each_from_the_outside_in() -> None:
    mask = nested(400)  # deeper than calls may lie in each other
    pieces = pieces_of(mask)
    assert [len(piece.holes) for piece in pieces] == [1] * 400
    assert [int(piece.outline.min()) for piece in pieces] == list(range(0, 800, 2))
    assert np.array_equal(painted(nested(20)), nested(20))
    assert pieces_of(np.zeros(SIZE, bool)) == []
