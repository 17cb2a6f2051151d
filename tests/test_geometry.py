"""Where pixels lie in the segmenter's square, and back: by hand, and there and back again."""

import pytest
import torch
from torch.nn import functional as F

from cores.asking.full_size import FullSize
from cores.geometry import Fit, content_size, resized_size, restore, restore_bands, shrink


@pytest.mark.parametrize(
    ("size", "resized"),
    [((480, 640), (768, 1024)), ((640, 480), (1024, 768)), ((333, 500), (682, 1024)), ((7, 7), (1024, 1024)),
     ((1, 3000), (1, 1024))],
)  # fmt: skip
def test_the_longer_side_fills_the_square(size: tuple[int, int], resized: tuple[int, int]) -> None:
    assert resized_size(size, 1024, "pad") == resized


def test_restore_cuts_the_padding_off() -> None:
    low_res = torch.full((2, 16, 16), -1.0)
    low_res[:, :, 12:] = 100.0  # padding of a picture three quarters as wide as the square, and of nothing else
    full = restore(low_res.half(), 64, (64, 48), (20, 15), "pad")
    assert full.shape == (2, 20, 15)
    assert full.dtype == torch.float32
    # bilinear reaches half a low-res cell, less than one pixel of this picture, over the border
    torch.testing.assert_close(full[:, :, :14], torch.full((2, 20, 14), -1.0))
    assert restore(low_res[:0], 64, (64, 48), (20, 15), "pad").shape == (0, 20, 15)


@pytest.mark.parametrize(("side", "canvas"), [(16, 64), (12, 36), (16, 50), (16, 16)])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.51, 0.75, 0.99, 1.0])
def test_padding_that_is_cut_off_is_not_made(side: int, canvas: int, part: float) -> None:
    """The same to the last bit as the whole square with its padding cut off, and its gradient."""
    low_res, short = torch.randn(2, side, side, requires_grad=True), max(1, round(part * canvas))
    for size in ((short, canvas), (canvas, short)):
        square = F.interpolate(low_res[:, None], (canvas, canvas), mode="bilinear", align_corners=False)
        expected, found = square[:, 0, : size[0], : size[1]], restore(low_res, canvas, size, size, "pad")
        assert torch.equal(found, expected)
        wave = torch.linspace(-3, 3, found.numel()).sin().view_as(found)
        gradients = [torch.autograd.grad((one * wave).sum(), low_res)[0] for one in (found, expected)]
        assert torch.equal(*gradients)


@pytest.mark.parametrize("threshold", [0.5, 0.3, 0.8])
@pytest.mark.parametrize("broken", [False, True])
def test_a_masks_score_is_the_mean_of_its_pixels(threshold: float, broken: bool) -> None:
    """Of those alone that are inside, which a pixel that is no number is not."""
    low_res = 3 * torch.randn(16, 16)
    if broken:
        low_res[3, 4] = torch.nan
    found = FullSize.of(low_res, 64, (48, 64), (90, 120), "pad", threshold)
    chances = restore(low_res[None], 64, (48, 64), (90, 120), "pad")[0].sigmoid()
    nowhere = chances.isnan().numpy()
    assert nowhere.any() == broken
    assert found.mask.any()
    assert not found.mask[nowhere].any()
    assert found.score == pytest.approx(float(chances[torch.from_numpy(found.mask)].double().mean()), rel=1e-5)


def test_restore_keeps_a_ramp_a_ramp() -> None:
    ramp = (torch.arange(16.0) + 0.5)[None, None].expand(1, 16, 16)  # value = 16 x / side at a pixel's centre
    full = restore(ramp, 64, (40, 64), (80, 128), "pad")
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


@pytest.mark.parametrize("fit", ["pad", "squash"])
@pytest.mark.parametrize("size", [(333, 501), (501, 333), (97, 640), (255, 255), (31, 29)])
def test_a_drawn_mask_comes_back_where_it_was(fit: Fit, size: tuple[int, int]) -> None:
    """Drawn at an odd size, put into the square as pictures are, made low-res, restored: its edges within a pixel."""
    canvas, side = 512, 128
    height, width = size
    top, bottom, left, right = height // 5, height - height // 4, width // 7, width - width // 3
    mask = torch.zeros(1, 1, height, width)
    mask[..., top:bottom, left:right] = 1
    resized = resized_size(size, canvas, fit)
    square = torch.zeros(1, 1, canvas, canvas)
    square[..., : resized[0], : resized[1]] = F.interpolate(mask, resized, mode="bilinear", antialias=True)
    low_res = F.interpolate(square, (side, side), mode="area")[:, 0] - 0.5  # logits: an edge is where they change sign
    full = restore(low_res, canvas, resized, size, fit)
    assert full.shape == (1, height, width)
    rows, columns = (full[0] > 0).any(1).nonzero(), (full[0] > 0).any(0).nonzero()
    found = (int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)
    assert max(abs(edge - drawn) for edge, drawn in zip(found, (top, bottom, left, right), strict=True)) <= 1
    for pixels in (1, 997, 10**9):
        bands = list(restore_bands(low_res[0], canvas, resized, size, fit, pixels))
        torch.testing.assert_close(torch.cat(bands), full[0], rtol=1e-5, atol=1e-5)


def test_squashed_masks_are_restored_as_sam_2_does() -> None:
    low_res = torch.randn(3, 64, 64)
    expected = F.interpolate(low_res[None], (301, 403), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(restore(low_res, 256, (256, 256), (301, 403), "squash"), expected, rtol=0, atol=2e-6)
