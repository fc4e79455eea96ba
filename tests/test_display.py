"""Stored values to grey: a part of a large picture decides as all of it would."""

import numpy as np
import pytest

from implant_model import display
from implant_model.display import Display, to_grey


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
