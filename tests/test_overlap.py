"""Masks compared: values worked out by hand, and the definitions carried out pixel by pixel on random masks."""

from itertools import permutations

import numpy as np
import pytest

from cores.evaluation.assignment import best_assignment
from cores.evaluation.counts import compared
from cores.evaluation.metrics import MaskMetrics
from cores.evaluation.overlap import Overlap, boundary, overlap
from cores.masks import Mask


def blobs(seed: int, size: tuple[int, int], share: float) -> Mask:
    """A mask of coarse random blocks, which have insides as well as edges."""
    coarse = np.random.default_rng(seed).random((-(-size[0] // 7), -(-size[1] // 7))) < share
    return np.kron(coarse, np.ones((7, 7), dtype=bool))[: size[0], : size[1]]


def slow_boundary(mask: Mask) -> Mask:
    """The definition: inside, and some pixel within d in both directions is outside or beyond the picture."""
    reach = max(1, round(0.02 * float(np.hypot(*mask.shape))))
    around = np.pad(mask, reach)
    found = np.zeros_like(mask)
    for row, column in np.argwhere(mask):
        found[row, column] = not around[row : row + 2 * reach + 1, column : column + 2 * reach + 1].all()
    return found


@pytest.mark.parametrize("size", [(20, 30), (64, 41), (120, 160), (1, 1)])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_overlaps_are_the_definitions_on_random_masks(size: tuple[int, int], share: float) -> None:
    one, two, ignore = (blobs(seed, size, share) for seed in (1, 2, 3))
    assert (boundary(one) == slow_boundary(one)).all()
    seen = ~ignore
    edges = slow_boundary(one), slow_boundary(two)
    assert overlap(one, two, ignore) == Overlap(
        int((one & two & seen).sum()),
        int(((one | two) & seen).sum()),
        int((edges[0] & edges[1] & seen).sum()),
        int(((edges[0] | edges[1]) & seen).sum()),
    )


def test_a_boundary_sees_a_rim_that_iou_does_not() -> None:
    truth = np.zeros((100, 100), dtype=bool)
    truth[10:90, 10:90] = True  # 6400 pixels; 2 % of the diagonal are 3: a rim of 80 x 80 less 74 x 74, 924 pixels
    inner = np.zeros_like(truth)
    inner[13:87, 13:87] = True  # its own rim: 74 x 74 less 68 x 68, 852 pixels, none of them in the other
    found = overlap(inner, truth)
    assert found == Overlap(74 * 74, 6400, 0, 924 + 852)
    assert (found.iou, found.boundary_iou) == (pytest.approx(0.8556, abs=1e-4), 0.0)


def test_a_target_of_one_pixel_and_two_empty_masks() -> None:
    empty = np.zeros((30, 30), dtype=bool)
    dot = empty.copy()
    dot[7, 7] = True
    assert overlap(dot, dot) == Overlap(1, 1, 1, 1)
    assert overlap(empty, dot) == Overlap(0, 1, 0, 1)
    nothing = overlap(empty, empty)
    assert (nothing.iou, nothing.boundary_iou) == (1.0, 1.0)
    metrics = MaskMetrics()
    metrics.add(nothing)
    metrics.add(overlap(dot, dot))
    found = metrics.compute()
    assert (found["giou"], found["miou"], found["ciou"]) == (1.0, 0.5, 1.0)


def test_the_best_assignment_is_the_best_of_all() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        rows, columns = int(rng.integers(1, 5)), int(rng.integers(0, 5))
        worth = np.round(rng.random((rows, columns)), 1).tolist()  # rounded: many are equal
        found = best_assignment(worth)
        used = [column for column in found if column is not None]
        assert len(used) == len(set(used)) == min(rows, columns)
        places = permutations(range(rows + columns), rows)
        best = max(sum(worth[r][c] for r, c in enumerate(place) if c < columns) for place in places)
        assert sum(worth[r][c] for r, c in enumerate(found) if c is not None) == pytest.approx(best)


def test_targets_in_another_order_count_by_assignment_and_not_by_order() -> None:
    left, right = np.zeros((2, 8, 8), dtype=bool)
    left[:, :4] = True
    right[:, 4:] = True
    in_order, matched = compared([right, left], [left, right], None)
    assert ([o.iou for o in in_order], [o.iou for o in matched]) == ([0.0, 0.0], [1.0, 1.0])
    in_order, matched = compared([right], [left, right], None)  # one was not said: it is an empty mask either way
    assert ([o.iou for o in in_order], [o.iou for o in matched]) == ([0.0, 0.0], [0.0, 1.0])
    in_order, matched = compared([left, right], [left], None)  # one too many counts nothing
    assert [o.iou for o in in_order] == [o.iou for o in matched] == [1.0]
