"""Pixels against values worked out by hand, odd sizes, EXIF, and files of every kind."""

import io
import re
import time

import numpy as np
import pytest
import torch
from PIL import Image
from shared import shared
from torch.nn import functional as F
from transformers import CLIPImageProcessorPil, SamImageProcessorPil

from cores.errors import DataError
from cores.processing import pixels, scaling, segmenter_pixels
from cores.processing.pixels import (
    CLIP_MEAN,
    CLIP_STD,
    for_language,
    key_of,
    open_picture,
)
from cores.processing.segmenter_pixels import for_segmenter
from cores.prompts.styles import ClipFit
from cores.segmenter_families import SEGMENTERS

SAM = SEGMENTERS["sam"]


def noise(height, width, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def grey(pixels, mean, std, scale=1.0):
    """Grey values (h, w, 3) of normalised pixels (3, h, w)."""
    return (pixels.permute(1, 2, 0) * torch.tensor(std) + torch.tensor(mean)) * scale


def test_segmenter_pixels_by_hand():
    # One row of four becomes two: a triangle two pixels wide each way, cut at the edge: weights 3, 3, 1 and 1, 3, 3.
    row = np.repeat(np.array([[0, 70, 140, 210]], dtype=np.uint8)[..., None], 3, axis=2)
    pixels, resized = for_segmenter(Image.fromarray(np.repeat(row, 2, axis=0)), 2)
    assert resized == (1, 2)
    assert torch.allclose(grey(pixels, SAM.mean, SAM.std)[0, :, 0], torch.tensor([50.0, 160.0]), atol=1e-3)
    assert pixels[:, 1].eq(0).all()  # zero *after* normalising: grey there is the mean

    white, _ = for_segmenter(Image.new("RGB", (8, 8), "white"), 4)
    assert torch.allclose(white[:, 0, 0], torch.tensor([2.2489083, 2.4285715, 2.64]), atol=1e-5)


@pytest.mark.parametrize(
    ("size", "side", "resized"),
    [((427, 640), 1024, (683, 1024)), ((333, 500), 1024, (682, 1024)), ((3, 7), 16, (7, 16)), ((9, 1), 4, (4, 1)),
     ((2, 1025), 1024, (2, 1024)), ((1, 5000), 64, (1, 64))],
)  # fmt: skip
def test_sizes_inside_the_square_are_rounded_half_up(size, side, resized):
    pixels, found = for_segmenter(noise(*size), side)
    assert found == resized
    assert pixels.shape == (3, side, side)
    assert pixels[:, resized[0] :].eq(0).all()
    assert pixels[:, :, resized[1] :].eq(0).all()


def test_crop_by_hand():
    columns = np.arange(9, dtype=np.uint8) * 10
    image = Image.fromarray(np.broadcast_to(columns[None, :, None], (4, 9, 3)).copy())  # short side as it is: 4
    seen = grey(for_language(image, 4, "crop"), CLIP_MEAN, CLIP_STD, 255)
    expected = torch.tensor(
        [20.0, 30.0, 40.0, 50.0]
    )  # (9 - 4) // 2 = 2 columns are cut off at the left, 3 at the right
    assert torch.allclose(seen, expected[None, :, None].expand(4, 4, 3), atol=1e-3)


def test_pad_by_hand():
    image = Image.new("RGB", (5, 2), (255, 0, 100))
    seen = grey(for_language(image, 5, "pad"), CLIP_MEAN, CLIP_STD, 255).round()
    mean, colour = torch.tensor([122.0, 116.0, 104.0]), torch.tensor([255.0, 0.0, 100.0])
    for row, expected in enumerate([mean, colour, colour, mean, mean]):  # (5 - 2) // 2 = 1 row above, 2 below
        assert seen[row].eq(expected).all()


@pytest.mark.parametrize("size", [(37, 53), (53, 37), (224, 224), (11, 300), (225, 223)])
def test_equal_to_transformers_within_a_grey_level(size):
    image = noise(*size)
    clip = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    theirs = clip(image, return_tensors="pt")["pixel_values"][0]
    ours = for_language(image, 32, "crop")
    difference = grey(ours, CLIP_MEAN, CLIP_STD, 255) - grey(theirs, CLIP_MEAN, CLIP_STD, 255)
    assert difference.abs().max() <= 1.01

    sam = SamImageProcessorPil(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    theirs = sam(image, return_tensors="pt")["pixel_values"][0]
    ours, resized = for_segmenter(image, 64)
    inside = np.s_[:, : resized[0], : resized[1]]
    difference = grey(ours[inside], SAM.mean, SAM.std) - grey(theirs[inside], SAM.mean, SAM.std)
    assert difference.abs().max() <= 1.01


@pytest.mark.parametrize("size", [(37, 53), (53, 37), (64, 64), (11, 300), (700, 5)])
def test_squashed_pixels_are_the_published_programs(monkeypatch, size):
    image = noise(*size)
    shares = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    # SAM 2 and EdgeTAM: floating-point numbers are resized, both sides to the square
    theirs = F.interpolate(shares, (64, 64), mode="bilinear", antialias=True, align_corners=False)[0]
    theirs = (theirs - mean[:, None, None]) / std[:, None, None]
    for kind in ("sam2", "edgetam"):
        ours, resized = for_segmenter(image, 64, kind)
        assert resized == (64, 64)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    monkeypatch.setattr(segmenter_pixels, "BAND", 7)
    torch.testing.assert_close(for_segmenter(image, 64, "sam2")[0], ours, rtol=0, atol=1e-6)
    # SAM 3: the 8-bit picture is resized, and goes from -1 to 1
    small = torch.from_numpy(np.array(image.resize((64, 64), Image.Resampling.BILINEAR)))
    ours, resized = for_segmenter(image, 64, "sam3_tracker")
    assert resized == (64, 64)
    torch.testing.assert_close(ours, (small.permute(2, 0, 1) / 255 - 0.5) / 0.5)


def test_sam_hq_sees_what_sam_sees():
    sam, _ = for_segmenter(noise(37, 53), 64)
    assert torch.equal(sam, for_segmenter(noise(37, 53), 64, "sam_hq")[0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_files_and_pictures_upright(orientation, tmp_path):
    upright = Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3))
    lies = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # EXIF's number: the Pillow transposition that undoes it
    stored = upright.transpose(lies[orientation]) if orientation in lies else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "turned.png"
    stored.save(file, exif=exif)
    assert np.array_equal(np.asarray(open_picture(file)), np.asarray(upright))
    with Image.open(file) as opened:
        assert open_picture(opened).size == (3, 2)


def test_every_kind_of_pixel_becomes_8_bit_rgb(tmp_path):
    def read(image, name="x.png", **options):
        image.save(tmp_path / name, **options)
        found = open_picture(tmp_path / name)
        assert (found.mode, found.size) == ("RGB", (2, 1))
        return np.asarray(found)[0].tolist()

    deep = Image.fromarray(np.array([[0x80FF, 0x01FF]], dtype=np.uint16))
    assert read(deep) == [[0x80] * 3, [0x01] * 3]
    assert read(Image.fromarray(np.array([[0x1234, 0xFFFF]], dtype=np.int32)), "x.tif") == [[0x12] * 3, [0xFF] * 3]
    colours = Image.new("RGBA", (2, 1))
    colours.putdata([(10, 20, 30, 0), (40, 50, 60, 255)])
    assert read(colours) == [[10, 20, 30], [40, 50, 60]]  # alpha is dropped, not blended
    palette = Image.new("P", (2, 1))
    palette.putpalette([1, 2, 3, 250, 240, 230])
    palette.putdata([0, 1])
    assert read(palette, transparency=b"\x00\xff") == [[1, 2, 3], [250, 240, 230]]
    assert read(Image.new("1", (2, 1), 1)) == [[255] * 3] * 2
    assert read(Image.new("LA", (2, 1), (7, 9))) == [[7] * 3] * 2
    (cmyk,) = {tuple(p) for p in read(Image.new("CMYK", (2, 1), (0, 255, 255, 0)), "x.jpg", quality=100)}
    assert np.allclose(cmyk, (255, 0, 0), atol=3)


def test_what_is_no_picture_is_an_error_that_names_the_file(tmp_path):
    jpeg = io.BytesIO()
    noise(64, 64).save(jpeg, "JPEG")
    files = {
        "cut.jpg": (jpeg.getvalue()[: len(jpeg.getvalue()) // 2], "is damaged"),
        "text.png": (b"this is no picture", "is no picture that can be read"),
        "empty.jpg": (b"", "is no picture that can be read"),
    }
    for name, (content, said) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"{re.escape(str(tmp_path / name))}: {said}"):
            open_picture(tmp_path / name)
    with pytest.raises(DataError, match=r"gone.jpg: there is no such file"):
        open_picture(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match="is a folder"):
        open_picture(tmp_path)
    Image.fromarray(np.zeros((2, 2), dtype=np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(DataError, match=r"float.tif: its pixels are floating-point numbers"):
        open_picture(tmp_path / "float.tif")
    Image.fromarray(np.full((2, 2), 70000, dtype=np.int32)).save(tmp_path / "deep.tif")
    with pytest.raises(DataError, match=r"deep.tif: its pixels go from 70000 to 70000"):
        open_picture(tmp_path / "deep.tif")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about broken EXIF beside whole pixels
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP"])
def test_broken_bytes_are_read_or_refused_and_nothing_else(kind, tmp_path):
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "words"
    whole = io.BytesIO()
    noise(24, 31).save(whole, kind, exif=exif)
    outcomes, refusals = set(), []
    for number in range(60):
        content = np.frombuffer(whole.getvalue(), dtype=np.uint8).copy()
        content[rng.integers(0, min(len(content), 300), 4)] = rng.integers(0, 256, 4)
        (tmp_path / "broken").write_bytes(content[: len(content) - 37 * (number % 4)].tobytes())
        try:
            outcomes.add(open_picture(tmp_path / "broken").mode)
        except DataError as error:
            refusals.append(str(error))
    assert outcomes <= {"RGB"}
    assert refusals
    assert all(str(tmp_path / "broken") in said for said in refusals)


def test_a_bomb_is_refused_and_a_telephones_picture_is_not(tmp_path, monkeypatch):
    noise(20, 20).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # Pillow warns above, refuses above twice as many
    assert open_picture(tmp_path / "large.png").size == (20, 20)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match="too large to be a picture"):
        open_picture(tmp_path / "large.png")


def test_a_key_tells_pictures_apart_whatever_their_files():
    assert key_of(noise(4, 6)) == key_of(noise(4, 6))
    assert len({key_of(noise(4, 6)), key_of(noise(4, 6, seed=1)), key_of(noise(6, 4))}) == 3


def test_photographs_go_through():
    for file in sorted(shared("samples/photos").glob("*.jpg")):
        picture = open_picture(file)
        pixels, (height, width) = for_segmenter(picture, 256)
        assert max(height, width) == 256
        assert pixels.isfinite().all()
        assert for_language(picture, 224, "pad").shape == (3, 224, 224)


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (64, 64), (1000, 3), (3, 1000)])
def test_a_padded_square_made_in_bands_is_the_same_square(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    image = Image.effect_noise(size, 80).convert("RGB")
    longest = max(size)
    square = Image.new("RGB", (longest, longest), tuple(int(255 * value) for value in pixels.CLIP_MEAN))
    square.paste(image, ((longest - size[0]) // 2, (longest - size[1]) // 2))
    whole, key = square.resize((32, 32), Image.Resampling.BICUBIC), pixels.key_of(image)
    monkeypatch.setattr(pixels, "BAND", 7)
    monkeypatch.setattr(scaling, "BAND", 7)
    assert scaling.scaled_square(image, 32, (122, 116, 104)).tobytes() == whole.tobytes()
    assert pixels.key_of(image) == key


@pytest.mark.parametrize("size", [(1, 200_000), (200_000, 1), (3, 40_000)])
@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_very_slim_pictures_take_no_more_than_others(size: tuple[int, int], fit: ClipFit) -> None:
    began = time.process_time()
    found = for_language(Image.effect_noise(size, 80).convert("RGB"), 64, fit)
    assert time.process_time() - began < 3  # it took minutes, and gigabytes
    assert found.shape == (3, 64, 64)
    if fit == "pad":
        across = 2 if size[0] < size[1] else 1
        rim = found.movedim(across, 0)[[0, -1]].abs()  # where the picture is not: the mean colour
        assert rim.max() < 0.02


def test_the_middle_of_a_slim_picture_is_what_crop_sees() -> None:
    image = Image.effect_noise((1000, 10), 80).convert("RGB")
    assert torch.equal(for_language(image, 32, "crop"), for_language(image.crop((180, 0, 820, 10)), 32, "crop"))


def test_a_picture_with_nothing_to_change_is_not_copied() -> None:
    image = Image.new("RGB", (4, 3))
    assert open_picture(image) is image
