"""Stored values to grey: a part of a large picture decides as all of it would."""

import numpy as np
import pytest

from implant_model.decode import display
from implant_model.decode.display import Display, Lut, to_grey


def large(seed: int) -> np.ndarray:
    """12-bit values of 1.5 million pixels; the least and the greatest occur once each."""
    rng = np.random.default_rng(seed)
    stored_HW = rng.normal(2000, 300, (1500, 1000)).clip(500, 3500).astype(np.uint16)
    stored_HW[701, 3], stored_HW[903, 8] = 17, 4001
    return stored_HW


@pytest.mark.parametrize(
    "chain",
    [
        Display(),
        Display(inverted=True),
        Display(center=2000.0, width=800.0),
        Display(center=2000.0, width=800.0, function="SIGMOID", inverted=True),
        Display(center=100.0, width=50.0),  # senseless: all white
        Display(center=9000.0, width=10.0),  # senseless: all black
        Display(slope=2.0, intercept=-1024.0),
        Display(padding=(17, 17)),
    ],
)
@pytest.mark.parametrize("kind", [np.uint16, np.int16])
def test_a_part_of_the_rows_decides_as_all_would(
    monkeypatch: pytest.MonkeyPatch, chain: Display, kind: type[np.generic]
) -> None:
    stored_HW = large(1).astype(kind)
    few = to_grey(stored_HW, chain)
    monkeypatch.setattr(display, "SAMPLE_PIXELS", stored_HW.size + 1)
    assert (few == to_grey(stored_HW, chain)).all()
    assert few.min() < few.max()


def test_the_ends_of_a_picture_that_few_rows_do_not_show_are_black_and_white() -> None:
    stored_HW = np.full((3000, 1000), 1000, np.uint16)
    stored_HW[:, ::2] = 1001
    stored_HW[1, 1], stored_HW[2, 2] = 0, 4000
    grey_HW = to_grey(stored_HW, Display())
    assert grey_HW[1, 1] == 0
    assert grey_HW[2, 2] == 65535


def looked_up(stored_HW: np.ndarray, chain: Display, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    with monkeypatch.context() as patch:
        patch.setattr(display, "_line", lambda _table: None)
        return to_grey(stored_HW, chain)


LINES = [
    Display(),
    Display(inverted=True),
    Display(slope=-2.0, intercept=900.0),
    Display(center=2000.0, width=800.0),
    Display(center=2000.25, width=801.5, function="LINEAR_EXACT", inverted=True),
    Display(center=1500.0, width=3.0),
    Display(voi_lut=Lut(1000, np.arange(2000, dtype=np.uint16))),
]
CURVES = [
    Display(center=2000.0, width=800.0, function="SIGMOID"),
    Display(padding=(1990, 2010)),
    Display(voi_lut=Lut(1000, np.arange(2000, dtype=np.uint16) // 8)),
]


@pytest.mark.parametrize("chain", LINES)
@pytest.mark.parametrize("kind", [np.uint16, np.int16])
def test_a_line_is_what_a_look_up_gives(
    monkeypatch: pytest.MonkeyPatch, chain: Display, kind: type[np.generic]
) -> None:
    stored_HW = large(2).astype(kind)
    exact = looked_up(stored_HW, chain, monkeypatch)
    grey = to_grey(stored_HW, chain)
    assert np.abs(grey.astype(int) - exact).max() <= 1
    np.testing.assert_array_equal(grey == 0, exact == 0)
    np.testing.assert_array_equal(grey == 65535, exact == 65535)


@pytest.mark.parametrize(
    ("chain", "left"),
    [
        (Display(), True),
        (Display(slope=2.0, intercept=-1024.0), True),
        (Display(center=2000.0, width=4200.0), True),
        (Display(voi_lut=Lut(0, np.arange(4096, dtype=np.uint16))), True),
        (Display(center=2000.0, width=2600.0), False),  # clips the one value at 4001
        (Display(inverted=True), False),
        (Display(slope=-1.0), False),
        (Display(padding=(17, 17)), False),  # it is darker than black
        (Display(padding=(2000, 2000)), False),
        (CURVES[0], False),
    ],
)
@pytest.mark.parametrize("kind", [np.uint16, np.int16])
def test_what_a_stretch_undoes_is_left_out(
    chain: Display, kind: type[np.generic], *, left: bool
) -> None:
    stored_HW = large(5).astype(kind)
    unscaled = to_grey(stored_HW, chain, unscaled=True)
    if left:
        np.testing.assert_array_equal(np.diff(unscaled), np.diff(large(5)))
    else:
        np.testing.assert_array_equal(unscaled, to_grey(stored_HW, chain))


def test_few_greys_are_scaled_before_they_are_averaged() -> None:
    stored_HW = large(6) // 4
    assert to_grey(stored_HW, Display(), unscaled=True).max() == 65535


@pytest.mark.parametrize("chain", CURVES)
def test_a_curve_is_looked_up(monkeypatch: pytest.MonkeyPatch, chain: Display) -> None:
    stored_HW = large(3)
    exact = looked_up(stored_HW, chain, monkeypatch)
    np.testing.assert_array_equal(to_grey(stored_HW, chain), exact)


def test_a_steep_line_far_from_zero_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """24 bits of precision would be some levels off."""
    stored_HW = (large(4) // 64 + 65400).astype(np.uint16)
    chain = Display()
    exact = looked_up(stored_HW, chain, monkeypatch)
    np.testing.assert_array_equal(to_grey(stored_HW, chain), exact)
