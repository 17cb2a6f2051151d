"""Where pixels lie in the segmenter's square, and back: by hand, and there and back again."""

import pytest
import torch

from cores.geometry import content_size, resized_size, restore, shrink


@pytest.mark.parametrize(
    ("size", "resized"),
    [((480, 640), (768, 1024)), ((640, 480), (1024, 768)), ((333, 500), (682, 1024)), ((7, 7), (1024, 1024)),
     ((1, 3000), (1, 1024))],
)  # fmt: skip
def test_the_longer_side_fills_the_square(size: tuple[int, int], resized: tuple[int, int]) -> None:
    assert resized_size(size, 1024) == resized


def test_restore_cuts_the_padding_off() -> None:
    low_res = torch.full((2, 16, 16), -1.0)
    low_res[:, :, 12:] = 100.0  # padding of a picture three quarters as wide as the square, and of nothing else
    full = restore(low_res.half(), 64, (64, 48), (20, 15))
    assert full.shape == (2, 20, 15)
    assert full.dtype == torch.float32
    # bilinear reaches half a low-res cell, less than one pixel of this picture, over the border
    torch.testing.assert_close(full[:, :, :14], torch.full((2, 20, 14), -1.0))
    assert restore(low_res[:0], 64, (64, 48), (20, 15)).shape == (0, 20, 15)


def test_restore_keeps_a_ramp_a_ramp() -> None:
    ramp = (torch.arange(16.0) + 0.5)[None, None].expand(1, 16, 16)  # value = 16 x / side at a pixel's centre
    full = restore(ramp, 64, (40, 64), (80, 128))
    expected = (torch.arange(128) + 0.5) / 8
    torch.testing.assert_close(full[0, 40, 8:-8], expected[8:-8])


def test_shrink_gives_the_share_of_each_cell() -> None:
    mask = torch.zeros(1, 8, 12, dtype=torch.bool)
    mask[0, :3, :6] = True
    torch.testing.assert_close(
        shrink(mask, (4, 6))[0, :3, :4], torch.tensor([[1.0, 1, 1, 0], [0.5, 0.5, 0.5, 0], [0] * 4])
    )
    assert shrink(mask, (16, 24)).sum() == 4 * 18  # a picture smaller than the grid is enlarged
    assert content_size((768, 1024), 1024, 256) == (192, 256)
    assert content_size((1, 1024), 1024, 256) == (1, 256)
