"""What is inside a mask given as pixels: the same disc in every form that programs save, and what could be labels."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from cores.data.formats.mask_pixels import inside_numbers, read_inside
from cores.errors import DataError

DOWN, RIGHT = np.mgrid[:60, :80]
DISC = (DOWN - 30) ** 2 + (RIGHT - 45) ** 2 < 20**2
GREY = Image.fromarray(DISC.astype(np.uint8) * 255)
RED = Image.fromarray(np.stack([DISC * 255, DISC * 0, DISC * 0], -1).astype(np.uint8))
ORIENTATION = 0x0112


def content(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def palette(values, *colors):
    image = Image.fromarray(values.astype(np.uint8)).convert("P")
    image.putdata(values.astype(int).ravel().tolist())
    image.putpalette([grey for color in colors for grey in color])
    return image


def overlap(found, wanted):
    return (found & wanted).sum() / (found | wanted).sum()


EXACT = {
    "white": (GREY, "PNG"),
    "one bit": (Image.fromarray(DISC), "PNG"),
    "ones": (Image.fromarray(DISC.astype(np.uint8)), "PNG"),
    "sevens": (Image.fromarray(DISC.astype(np.uint8) * 7), "PNG"),
    "16 bits": (Image.fromarray(DISC.astype(np.uint16) * 65535), "PNG"),
    "red": (RED, "PNG"),
    "opaque": (GREY.convert("RGBA"), "PNG"),
    "grey and alpha": (GREY.convert("LA"), "PNG"),
    "quantized": (GREY.quantize(2), "PNG"),
    "adaptive": (GREY.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
    "white is 0": (palette(~DISC, (255, 255, 255), (0, 0, 0)), "PNG"),
    "DAVIS": (palette(DISC, (0, 0, 0), (128, 0, 0)), "PNG"),
    "GIF": (GREY, "GIF"),
    "TIFF": (GREY, "TIFF"),
    "floats": (Image.fromarray(DISC.astype(np.float32)), "TIFF"),
}


@pytest.mark.parametrize("name", EXACT)
def test_colours_decide(name):
    image, kind = EXACT[name]
    assert np.array_equal(read_inside(Path("m"), content(image, kind)), DISC)


@pytest.mark.parametrize("quality", [10, 50, 75, 95])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_noise_of_jpeg_is_no_mask(quality, mode):
    found = read_inside(Path("m"), content(GREY.convert(mode), "JPEG", quality=quality))
    assert overlap(found, DISC) > 0.99
    again = read_inside(Path("m"), content(Image.open(io.BytesIO(content(GREY, "JPEG", quality=quality)))))
    assert overlap(again, DISC) > 0.99  # once more as a PNG, which keeps the noise


def test_noise_of_colours_and_of_webp():
    assert overlap(read_inside(Path("m"), content(RED, "JPEG", quality=90)), DISC) > 0.99
    assert overlap(read_inside(Path("m"), content(GREY.convert("RGB"), "WEBP")), DISC) > 0.99


def test_soft_edges_count_from_the_middle_on():
    soft = np.asarray(GREY.filter(ImageFilter.GaussianBlur(2)))
    assert np.array_equal(read_inside(Path("m"), content(Image.fromarray(soft))), soft >= 128)
    share = soft.astype(np.float32) / 255
    assert np.array_equal(inside_numbers(share, "m"), share >= 0.5)
    small = GREY.resize((40, 30), Image.Resampling.BOX)  # a few greys at the edge
    assert np.array_equal(read_inside(Path("m"), content(small)), np.asarray(small) >= 128)


@pytest.mark.parametrize("kind", ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"])
def test_numbers_of_any_type(kind):
    assert np.array_equal(inside_numbers(DISC.astype(kind), "m"), DISC)
    if kind not in ("bool", "int8"):
        assert np.array_equal(inside_numbers(DISC.astype(kind) * 255, "m"), DISC)
    assert not inside_numbers(np.zeros((3, 4), kind), "m").any()
    assert inside_numbers(np.ones((3, 4), kind), "m").all()


BANDS = np.minimum(RIGHT // 16, 4)
CLASSES = np.where(DISC, 1, 0) + np.where(DOWN < 4, 255, 0)
AMBIGUOUS = {
    "labels": Image.fromarray(BANDS.astype(np.uint8)),
    "a class and a border to ignore": Image.fromarray(CLASSES.clip(0, 255).astype(np.uint8)),
    "many classes and a border": Image.fromarray(np.where(DOWN < 4, 255, RIGHT // 4).astype(np.uint8)),
    "a trimap": Image.fromarray(np.where(DOWN < 9, 128, DISC * 255).astype(np.uint8)),
    "labels in colours": palette(BANDS, (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)),
    "two indices in one colour": palette(DISC, (9, 9, 9), (9, 9, 9)),
    "two objects": Image.fromarray(np.where((RIGHT < 40)[..., None], RED, np.roll(RED, 1, -1)).astype(np.uint8)),
    "alpha": Image.merge("RGBA", [GREY, GREY, GREY, GREY]),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_could_be_labels_is_refused(name):
    with pytest.raises(DataError, match=r"^m: .*a mask is black outside and one other colour inside"):
        read_inside(Path("m"), content(AMBIGUOUS[name]))


def test_a_trimap_and_a_dark_mask_as_jpeg_are_refused():
    for image in (AMBIGUOUS["a trimap"], Image.fromarray(DISC.astype(np.uint8) * 128), EXACT["ones"][0]):
        with pytest.raises(DataError, match="may be labels"):
            read_inside(Path("m"), content(image, "JPEG"))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (DISC * np.nan, "from nan to nan"),
        (-DISC.astype(np.int8), "from -1 to 0"),
        (DISC * 0.3, r"2 levels \(0, 0\.3\)"),
        (DISC[None], "expected numbers"),
        (DISC.astype(str), "expected numbers"),
    ],
)
def test_numbers_that_say_nothing(values, said):
    with pytest.raises(DataError, match=said):
        inside_numbers(values, "m")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_mask_is_turned_by_its_own_exif(kind):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    found = read_inside(Path("m"), content(GREY, kind, exif=exif))
    assert overlap(found, np.rot90(DISC, -1)) > 0.99
