"""Run lengths that are none, polygons that have no inside: refused before anything is made of them."""

import subprocess
import sys

import numpy as np
import pytest
from data_files import write_picture
from pycocotools import mask as coco

from cores import masks
from cores.data.formats.picture_headers import read_header
from cores.data.formats.polygons import check_outline, coco_polygon
from cores.data.formats.segmentation_field import check_segmentation, has_mask, read_segmentation
from cores.errors import DataError

NEAR = [25, 2, 50, 2, 50, 9]  # a polygon that reaches over the border


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


def test_polygons_that_reach_out_of_the_picture_are_cut_off(header):
    inside = read_segmentation([[-50, -50, 10, -50, 10, 10, -50, 10]], None, header, "x")
    assert masks.decode(inside)[:10, :10].all()
    assert masks.decode(inside).sum() == pytest.approx(100, abs=21)
    assert read_segmentation([], None, header, "x") is None
    over, line = [NEAR, [2, 2, 9, 2, 9, 9]], [30, 2, 30, 9, 30, 5]  # the last one lies on the border
    assert read_segmentation([*over, line], None, header, "x") == read_segmentation(over, None, header, "x")


def test_shares_of_a_side_are_no_pixels(header):
    with pytest.raises(
        DataError, match=r"x: all coordinates lie within 0\.\.1, expected pixels of a picture of 20 x 30"
    ):
        check_segmentation([[0.1, 0.2, 0.9, 0.2, 0.9, 1.0]], None, header, "x")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            [[100, 100, 120, 100, 120, 130]],
            r"outside the picture \(x 100 to 120, y 100 to 130; the picture is 20 x 30",
        ),
        ([[-9, 1, -3, 1, -3, 9], [-9, 9, -4, 9, -4, 12]], "outside the picture"),
        ([NEAR, [90, 1, 99, 1, 99, 9]], r"annotation 7: part 1: lies outside the picture \(x 90 to 99"),
        ([[-9, 1, -3, 1, -3, 9], NEAR], "annotation 7: part 0: lies outside the picture"),
        ([NEAR, {"size": [20, 30], "counts": [0, 600]}, [1, -9, 9, -9, 9, -3]], "part 2: lies outside"),
        ([[50, 10, 20, 40, 50, 40]], "annotation 7: lies outside the picture"),  # its box alone reaches into it
        ([[10**400, 2, 3, 4, 5, 6]], "expected a polygon"),
        ([[-(10**400), 2, 3, 4, 5, 6]], "expected a polygon"),
        ({"size": [10**400, 30], "counts": "1"}, r"expected \[h, w\]"),
        ({"size": [True, True], "counts": [1]}, r"expected \[h, w\]"),
        ({"size": [20, 30], "counts": [10**400]}, "do not fill"),
        ({"size": [20, 30], "counts": [True, 599]}, "do not fill"),
    ],
)
def test_coordinates_and_lengths_that_cannot_be_this_pictures(header, value, said):
    with pytest.raises(DataError, match=said):
        read_segmentation(value, None, header, "annotation 7")


def test_a_polygon_that_is_cut_first_is_painted_as_a_whole_one():
    rng = np.random.default_rng(0)
    for _ in range(200):
        points = rng.uniform(-150, 180, (rng.integers(3, 8), 2)).ravel().tolist()
        (whole,) = coco.frPyObjects([points], 20, 30)
        cut = masks.decode(coco_polygon(points, (20, 30), "x"))
        assert (cut != coco.decode(whole).astype(bool)).sum() <= 6


LIMITED = """
import sys
from pathlib import Path
from cores.data.formats.picture_headers import Header
from cores.data.formats.segmentation_field import check_segmentation, has_mask, read_segmentation
from cores.errors import DataError
from cores.process_memory import peak_memory
header = Header(Path("a.jpg"), (3000, 4000))
zigzag = [[n % 2 * 999_000 - 499_000 + n, n * 37 % 991_000 - 400_000] for n in range(400)]
small = [[x, y, x + 8, y, x + 8, y + 8, x, y + 8] for x in range(0, 3900, 50) for y in range(0, 2900, 50)]
values = [
    [sum(zigzag, [])],
    small,
    {"size": [65535, 65535], "counts": [65535 * 65535]},
    {"size": [65535, 65535], "counts": [0, 65535 * 65535]},
    [sum(([n % 2 * 3999, n % 2999] for n in range(4000)), [])],
]
used = peak_memory()
for value in values:
    try:
        read_segmentation(value, None, header, "annotation 7")
    except DataError:
        pass
print((peak_memory() - used) // 10**6)
"""


def test_memory_is_bounded_by_the_picture():
    """Far vertices, thousands of parts, run lengths of another picture: 12 megapixels, and never a gigabyte."""
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 500


def test_unions_are_joined_as_run_lengths(header):
    """Also with runs of no length, at which COCO's library stops."""
    rng = np.random.default_rng(3)
    for _ in range(50):
        shapes = rng.random((3, 20, 30)) < 0.2
        wanted = shapes.any(0)
        assert np.array_equal(
            masks.decode(masks.union_rle([masks.encode(shape) for shape in shapes], wanted.shape)), wanted
        )
    odd = {"size": [20, 30], "counts": [5, 0, 5, 10, 0, 0, 0, 10, 570]}
    found = read_segmentation([odd, odd], None, header, "x")
    assert np.flatnonzero(masks.decode(found).T.ravel()).tolist() == list(range(10, 30))
    assert found == masks.encode(masks.decode(found))


@pytest.mark.parametrize(
    ("value", "there"),
    [
        (None, False),
        ([], False),
        ([[]], False),
        ({}, False),
        ({"size": [20, 30], "counts": [600]}, False),
        ({"size": [20, 30], "counts": [600, 0]}, False),
        (masks.encode(np.zeros((20, 30), bool)), False),
        ([masks.encode(np.zeros((20, 30), bool)), []], False),
        (masks.encode(np.ones((20, 30), bool)), True),
        ([[1, 1, 9, 1, 9, 9]], True),
        ([[], [1, 1, 9, 1, 9, 9]], True),
    ],
)
def test_which_segmentations_hold_no_mask(value, there):
    assert has_mask(value) == there


def test_a_polygon_that_takes_minutes_to_paint_is_refused():
    points = np.stack([np.arange(20_000) % 2 * 639, np.arange(20_000) % 479], 1)
    with pytest.raises(
        DataError, match="x: a polygon with an outline of 12,[0-9,]+ pixels, expected 2,000,000 at most"
    ):
        check_outline(points, "x")
