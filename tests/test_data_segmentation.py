"""Run lengths that are none, polygons that have no inside: refused before anything is made of them."""

import numpy as np
import pytest
from data_files import write_picture
from pycocotools import mask as coco

from cores import masks
from cores.data.formats.picture_headers import read_header
from cores.data.formats.segmentation_field import read_segmentation
from cores.errors import DataError


@pytest.fixture
def header(tmp_path):
    return read_header(write_picture(tmp_path / "a.png", (20, 30)))


def test_runs_are_read_as_they_were_written():
    rng = np.random.default_rng(0)
    for share in (0, 0.01, 0.5, 0.99, 1):
        for _ in range(20):
            mask = np.kron(rng.random(rng.integers(1, 40, 2)) < share, np.ones(rng.integers(1, 9, 2), bool)) > 0
            rle = masks.encode(mask)
            runs = masks.runs(rle["counts"])
            flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
            assert np.array_equal(flat.reshape(mask.shape[::-1]).T, mask)
            assert np.array_equal(masks.decode(rle), mask)


@pytest.mark.parametrize("counts", ["", "53", "zzzz", "0", "P", "PPPPPPPPPPPPPPPPPPPP0", "d0é", "\0", "O0", "l2l2"])
def test_runs_that_do_not_fill_their_size_are_refused(header, counts):
    """pycocotools gives memory's leftovers for some of these and ends the process for others."""
    with pytest.raises(DataError, match="do not fill"):
        masks.decode({"size": [20, 30], "counts": counts})
    with pytest.raises(DataError, match="x: counts: do not fill"):
        read_segmentation({"size": [20, 30], "counts": counts}, None, header, "x")


def test_random_letters_never_get_through():
    rng = np.random.default_rng(1)
    for _ in range(2000):
        counts = "".join(map(chr, rng.integers(48, 112, rng.integers(1, 12))))
        runs = masks.runs(counts)
        if runs is not None and runs.sum() == 600:
            assert coco.decode({"size": [20, 30], "counts": counts.encode()}).shape == (20, 30)
        else:
            with pytest.raises(DataError):
                masks.decode({"size": [20, 30], "counts": counts})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "found None, expected polygons or run lengths"),
        ("abc", "expected polygons or run lengths"),
        ([[1, 2, 3, 4]], "a polygon of 2 points has no inside"),
        ([[1, 2, 3, 4, 5]], "expected a polygon"),
        ([[1, 2, 3, 4, 5, float("inf")]], "expected a polygon"),
        ([[1, 2, 3, 4, 5, 1e12]], "expected a polygon"),
        ([[1, 2, 3, 4, 5, "6"]], "expected a polygon"),
        ([[1, 2, 3, 4, 5, True]], "expected a polygon"),
        ([[[1, 2], [3, 4], [5, 6]]], "expected a polygon"),
        ([None], "expected a polygon"),
        ({"size": [20, 30]}, "counts: found None"),
        ({"size": [20, -30], "counts": "1"}, "expected"),
        ({"size": [20], "counts": "1"}, "expected"),
        ({"size": [1 << 40, 30], "counts": "1"}, "expected"),
        ({"size": [20, 30], "counts": [5, -5, 600]}, "do not fill"),
        ({"size": [20, 30], "counts": [5.5, 594.5]}, "do not fill"),
        ({"size": [2, 3], "counts": [6]}, r"is \(2, 3\) \(h, w\), but the picture"),
    ],
)
def test_what_is_no_segmentation_is_named(header, value, said):
    with pytest.raises(DataError, match=said):
        read_segmentation(value, None, header, "annotation 7")


def test_polygons_outside_the_picture_are_cut_off(header):
    inside = read_segmentation([[-50, -50, 10, -50, 10, 10, -50, 10]], None, header, "x")
    assert masks.decode(inside)[:10, :10].all()
    assert masks.decode(inside).sum() == pytest.approx(100, abs=21)
    outside = read_segmentation([[100, 100, 120, 100, 120, 130]], None, header, "x")
    assert masks.decode(outside).sum() <= 20
    assert read_segmentation([], None, header, "x") is None
