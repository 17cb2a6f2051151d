"""Masks on pictures: what is inside is tinted, what is far outside is untouched, whatever the picture is."""

import time

import numpy as np
import pytest
from PIL import Image

from cores import fonts, viz
from cores.errors import DataError


def disc(size: int, radius: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size // 2
    return x**2 + y**2 < radius**2


def test_a_mask_tints_its_inside_draws_its_edge_and_leaves_the_rest() -> None:
    picture, mask = Image.new("RGB", (64, 64), (100, 100, 100)), disc(64, 16)
    drawn = np.asarray(viz.overlay(picture, [mask], [viz.BLUE], opacity=0.5))
    assert drawn[32, 32].tolist() == [50, 107, 139]  # halfway between grey and blue
    edge = drawn[32, 32 + 15]
    assert tuple(edge) == viz.BLUE
    assert tuple(drawn[32, 32 + 16]) == (255, 255, 255)  # the light rim
    assert (drawn[~viz._grown(mask, 1)] == 100).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_any_mode_of_picture_and_an_empty_mask(mode: str) -> None:
    picture = Image.new("RGB", (30, 20), (10, 200, 30)).convert(mode)
    drawn = viz.overlay(picture, [np.zeros((20, 30), bool)])
    assert drawn.size == (30, 20)
    assert drawn.tobytes() == picture.convert("RGB").tobytes()


def test_a_mask_of_another_size_is_refused_before_anything_is_drawn() -> None:
    with pytest.raises(DataError, match=r"\(20, 30\).*\(30, 20\)"):
        viz.overlay(Image.new("RGB", (20, 30)), [np.zeros((20, 30), bool)])


def test_fit_keeps_a_mask_in_its_place() -> None:
    picture, (mask,) = viz.fit(Image.new("RGB", (64, 32)), [np.tri(32, 64, dtype=bool)], 256)
    assert picture.size == (256, 128)
    assert mask.shape == (128, 256)
    assert abs(mask.mean() - np.tri(32, 64).mean()) < 0.01


def test_captions_wrap_within_the_picture_and_long_words_break() -> None:
    plain = Image.new("RGB", (120, 40))
    short = viz.caption(plain, "short")
    long = viz.caption(plain, "a caption of several words " + "x" * 80)
    assert short.width == long.width == 120
    assert long.height > short.height > 40
    assert (np.asarray(long)[:, -6:] == 255)[40:].all()  # nothing runs over the right edge


def test_a_word_of_any_length_is_broken_at_once() -> None:
    began = time.process_time()
    narrow = viz.caption(Image.new("RGB", (1, 1)), "a" * 2000)
    assert narrow.height > 2000
    assert viz.caption(Image.new("RGB", (600, 4)), "\u7ea2" * 2000).width == 600
    assert time.process_time() - began < 5  # it took minutes


def test_a_sheet_has_a_cell_for_each_panel_and_none_is_an_error() -> None:
    panels = [(Image.new("RGB", (50, 25 * (1 + i)), (i * 40, 0, 0)), f"number {i}") for i in range(5)]
    result = viz.sheet(panels, columns=2, width=100, gap=10)
    assert result.width == 2 * 110 + 10
    found = {tuple(color) for color in np.asarray(result).reshape(-1, 3)}
    assert {(i * 40, 0, 0) for i in range(5)} <= found
    with pytest.raises(DataError, match="at least one"):
        viz.sheet([])


def test_a_mask_grows_by_so_many_pixels_on_every_side() -> None:
    mask = np.zeros((9, 11), bool)
    mask[3, 4] = mask[0, 10] = True
    grown = viz._grown(mask, 2)
    expected = np.zeros_like(mask)
    expected[1:6, 2:7] = expected[0:3, 8:11] = True
    assert np.array_equal(grown, expected)


def test_a_label_has_one_colour_and_two_labels_of_a_picture_have_two() -> None:
    names = ["cup", "kettle", "knife", "handle", "box", "lamp", "car"]
    assert len(set(viz.colors_of(names))) == len(names) == len(viz.PALETTE)
    assert len(set(viz.colors_of([None, None, *names[:5]]))) == 7
    first, second, third = viz.colors_of(["Cup", None, " cup"])
    assert (first, first) == (third, viz.colors_of(["cup"])[0])
    assert second != first
    assert len(viz.colors_of(names * 2)) == 14


def test_letters_are_drawn_or_escaped_never_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fonts.lettering("the cup", 14)[0] == "the cup"
    assert fonts.lettering("a\x1b[31mb\u202ec", 14)[0] == "a\\x1b[31mb\\u202ec"
    monkeypatch.setattr(fonts, "SYSTEM", ())  # as on a machine with no other font than Pillow's
    text, font = fonts.lettering("箱子 caf\u00e9 cup", 14)
    assert text == "\\u7bb1\\u5b50 caf\\xe9 cup"
    drawn = viz.caption(Image.new("RGB", (300, 10)), "箱子")
    other = viz.caption(Image.new("RGB", (300, 10)), "汽车")
    assert not np.array_equal(drawn, other)


def test_a_font_of_the_system_draws_what_pillows_own_lacks() -> None:
    for name in fonts.SYSTEM:
        font = fonts._system(name, 14)
        if font is not None and fonts._draws(font, "é"):
            break
    else:
        pytest.skip("no font of the system has an é")
    assert fonts.lettering("café", 14)[0] == "café"
