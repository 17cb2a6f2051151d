"""Headers, and every way that a picture can be turned."""

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from data_files import write_picture
from PIL import Image, ImageOps

from cores import masks
from cores.data.formats.mask_pixels import read_inside
from cores.data.formats.picture_headers import read_header, read_values, turned
from cores.data.sources import open_source
from cores.errors import DataError
from cores.processing.pixels import open_picture


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_headers_turn_as_pillow_turns_pictures(tmp_path, orientation, suffix):
    path = write_picture(tmp_path / f"a.{suffix}", (4, 7), orientation)
    header = read_header(path)
    with Image.open(path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert header.size == upright.shape[:2]
    assert header.stored == (4, 7)
    if suffix == "png":  # of lossless ones that Pillow does not turn itself
        with Image.open(path) as image:
            assert np.array_equal(turned(np.asarray(image), orientation), upright)
    assert np.array_equal(open_picture(path), upright)


def test_a_tiff_turned_by_its_xmp_alone(tmp_path):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6"/></x:xmpmeta>'
    Image.new("RGB", (7, 4)).save(tmp_path / "a.tif", tiffinfo={700: xmp})
    assert (read_header(tmp_path / "a.tif").size, open_picture(tmp_path / "a.tif").size) == ((7, 4), (4, 7))


@pytest.mark.parametrize("orientation", [3, 5, 6, 8])
def test_a_mask_of_the_upright_tiff_stays_as_it_is(tmp_path, orientation):
    """Pillow turns a TIFF itself: turning its masks once more would lay them beside the thing."""
    write_picture(tmp_path / "a.tif", (20, 30), orientation)
    upright = read_header(tmp_path / "a.tif").size
    mask = np.zeros(upright, bool)
    mask[2:9, 3:8] = True
    Image.fromarray(mask).save(tmp_path / "m.png")
    (tmp_path / "m.jsonl").write_text('{"image": "a.tif", "query": "x", "targets": ["m.png"]}')
    sample = open_source("manifest:m.jsonl", tmp_path)[0]
    assert sample.size == upright
    assert sample.conversations[0].turns[0].targets[0].mask == masks.encode(mask)


def test_only_regular_files_are_pictures(tmp_path):
    """A pipe would be waited for without end."""
    os.mkfifo(tmp_path / "a.jpg")
    for read in (read_header, read_inside, read_values, open_picture):
        with pytest.raises(DataError, match=r"a\.jpg: is a pipe, a regular file was expected"):
            read(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="/dev/zero: is a device"):
        read_header(Path("/dev/zero"))
    (tmp_path / "b.jpg").symlink_to("b.jpg")
    with pytest.raises(DataError, match=r"b\.jpg: cannot be read: Too many levels"):
        read_header(tmp_path / "b.jpg")


def test_masks_of_the_stored_size_turn_and_others_do_not(tmp_path):
    header = read_header(write_picture(tmp_path / "a.jpg", (4, 7), 6))
    flat = np.arange(28).reshape(4, 7) % 3 == 0
    turn = np.rot90(flat, -1).copy()
    assert np.array_equal(header.upright(flat, "x"), turn)
    assert np.array_equal(header.upright(turn, "x"), turn)
    assert header.upright_rle(masks.encode(flat), "x") == masks.encode(turn)
    assert header.upright_rle(masks.encode(turn), "x") == masks.encode(turn)
    with pytest.raises(
        DataError, match=r"the mask is \(7, 7\) \(h, w\), but the picture .*a.jpg is \(7, 4\), \(4, 7\) as"
    ):
        header.turn((7, 7), "the mask")


def test_upside_down_is_of_both_sizes_and_stays(tmp_path):
    """Where both sizes are the same nothing tells which was meant: what has the picture's size is kept."""
    header = read_header(write_picture(tmp_path / "a.jpg", (4, 7), 3))
    flat = np.arange(28).reshape(4, 7) % 3 == 0
    assert np.array_equal(header.upright(flat, "x"), flat)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_exif_behind_the_pixels_of_a_png_counts(tmp_path):
    plain, exif = io.BytesIO(), Image.Exif()
    Image.new("RGB", (7, 4)).save(plain, "PNG")
    exif[0x0112] = 6
    content = plain.getvalue()
    end = content.rindex(b"IEND") - 4
    late = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    (tmp_path / "a.png").write_bytes(content[:end] + late + content[end:])
    with Image.open(tmp_path / "a.png") as image:
        assert ImageOps.exif_transpose(image).size == (4, 7)
    assert read_header(tmp_path / "a.png").size == (7, 4)


def test_a_header_is_read_without_the_pixels(tmp_path):
    """So fast that a hundred thousand files are looked at in a minute, and even where the pixels are damaged."""
    path = write_picture(tmp_path / "a.png", (500, 700))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert read_header(path).size == (500, 700)


def test_odd_exif_is_no_reason_to_stop(tmp_path):
    path = write_picture(tmp_path / "a.jpg", orientation=6)
    content = path.read_bytes()
    for value in (0, 9, 77):
        path.write_bytes(
            content.replace(b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06", struct.pack(">HHIH", 0x112, 3, 1, value))
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert read_header(path).size == (20, 30)
    at = content.index(b"Exif\0\0")
    path.write_bytes(content[: at + 14] + b"\xff" * 12 + content[at + 26 :])
    assert read_header(path).size == (20, 30)


HUGE = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
BOMB = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", HUGE) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no picture"),
        (b"hello", "is no picture"),
        (BOMB, "too large"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "is (no picture|damaged)"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path, content, said):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.jpg: {said}"):
        read_header(tmp_path / "a.jpg")


def test_folders_and_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match="is a folder, a picture was expected"):
        read_header(tmp_path)
    for read in (read_header, read_values, read_inside):
        with pytest.raises(DataError, match=r"gone\.png: there is no such file"):
            read(tmp_path / "gone.png")


def test_numbers_of_palettes_and_wide_pixels(tmp_path):
    values = np.arange(28, dtype=np.uint8).reshape(4, 7)
    for image in (Image.fromarray(values), Image.fromarray(values.astype(np.uint16))):
        image.save(tmp_path / "a.png")
        assert np.array_equal(read_values(tmp_path / "a.png"), values)
    Image.fromarray((values * 100).astype(np.uint16) + 300).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="has values from"):
        read_values(tmp_path / "a.png")
