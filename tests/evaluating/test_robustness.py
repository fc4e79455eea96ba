"""Poor scans as pure functions, and McNemar's exact test."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from implant_model.decode.preprocess import Preprocessing, preprocess
from implant_model.package.catalogue import ORTHONET
from implant_model.phantoms.render import render
from jobs.evaluating import robustness
from jobs.evaluating.paired import compare_readers, mcnemar_exact
from jobs.evaluating.robustness import Distortion, Images, distortions

ALL = tuple(distortions())


@pytest.fixture(scope="module")
def phantoms() -> Images:
    rng = np.random.default_rng(0)
    spec = Preprocessing(size_px=64)
    drawn = [render(ORTHONET[place], rng, 128).pixels_HW for place in (0, 7, 9)]
    return np.stack([preprocess(pixels_HW, spec) for pixels_HW in drawn])


@pytest.mark.parametrize("distortion", ALL, ids=lambda d: d.name)
def test_each_is_pure_and_changes_the_picture(distortion: Distortion, phantoms: Images) -> None:
    before = phantoms.copy()
    changed = distortion.apply(phantoms)
    assert changed.dtype == np.uint8
    assert changed.shape == phantoms.shape
    assert (changed != phantoms).any(axis=(1, 2)).all(), "every picture is another"
    np.testing.assert_array_equal(phantoms, before)
    np.testing.assert_array_equal(distortion.apply(phantoms), changed)
    assert distortion.apply(phantoms[:0]).shape == (0, 64, 64)


@pytest.mark.parametrize("distortion", ALL, ids=lambda d: d.name)
def test_what_happens_to_one_does_not_depend_on_those_behind_it(
    distortion: Distortion, phantoms: Images
) -> None:
    np.testing.assert_array_equal(distortion.apply(phantoms)[:1], distortion.apply(phantoms[:1]))


def test_mild_comes_before_strong(phantoms: Images) -> None:
    """Of the kinds that have an order, the second is farther from the original."""
    assert len({d.name for d in ALL}) == len(ALL)
    kinds = [kind for kind in dict.fromkeys(d.kind for d in ALL) if kind != "exposure"]
    assert set(kinds) == {"blur", "noise", "rotation", "crop", "JPEG", "downscale"}
    for kind in kinds:
        mild, strong = (d.apply(phantoms).astype(float) for d in ALL if d.kind == kind)
        assert np.abs(strong - phantoms).mean() > 1.2 * np.abs(mild - phantoms).mean()


def test_each_does_what_it_says() -> None:
    dot = np.zeros((1, 65, 65), np.uint8)
    dot[0, 32, 32] = 255
    spread = robustness.blur(dot, 2 / 65)[0]
    assert spread[32, 32] == pytest.approx(255 / (2 * np.pi * 4), abs=1.5)
    grey = np.full((1, 64, 64), 128, np.uint8)
    assert robustness.noise(grey, 0.1)[0].std() == pytest.approx(25.5, rel=0.05)
    assert robustness.noise(np.repeat(grey, 2, 0), 0.1).std(axis=0).any(), "each has its own"
    ramp = np.arange(256, dtype=np.uint8)[None, None].repeat(2, 1)
    assert robustness.exposure(ramp, 2.0)[0, 0, [0, 128, 255]].tolist() == [0, 64, 255]
    right = np.zeros((1, 65, 65), np.uint8)
    right[0, 31:34, 52:55] = 255
    turned = robustness.rotation(right, 90)[0]
    assert np.argwhere(turned > 200).mean(axis=0).tolist() == [11.0, 32.0], "counter-clockwise: up"
    frame = np.full((1, 80, 80), 255, np.uint8)
    frame[0, 10:70, 10:70] = 50
    assert (robustness.crop(frame, 0.25) == 50).all()
    checks = np.indices((64, 64)).sum(axis=0) % 2 * 255
    assert np.ptp(robustness.downscale(checks[None].astype(np.uint8), 2)) <= 1


def test_mcnemar_by_hand() -> None:
    """5 against 0: twice one half to the fifth; 1 against 8: 2 (1 + 9) / 512."""
    assert mcnemar_exact(5, 0) == mcnemar_exact(0, 5) == pytest.approx(2 / 32)
    assert mcnemar_exact(1, 8) == pytest.approx(20 / 512)
    assert mcnemar_exact(0, 0) == 1
    assert mcnemar_exact(4, 4) == 1


def test_mcnemar_of_many_images_neither_overflows_nor_rounds_to_nothing() -> None:
    """Near the normal approximation with its continuity correction, z = (|b - c| - 1) / root."""
    assert mcnemar_exact(5100, 4900) == pytest.approx(0.0466, abs=0.0005)
    assert 0 < mcnemar_exact(0, 1000) < 1e-300


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_readers_are_counted(pairs: list[tuple[bool, bool]]) -> None:
    first_N = np.array([first for first, _ in pairs])
    second_N = np.array([second for _, second in pairs])
    paired = compare_readers(first_N, second_N, np.arange(len(pairs)) // 2)
    assert paired.count == len(pairs)
    assert paired.both + paired.only_first == first_N.sum()
    assert paired.both + paired.only_second == second_N.sum()
    assert paired.difference.value == pytest.approx(first_N.mean() - second_N.mean())
    assert paired.difference.low <= paired.difference.value + 1e-9
    assert paired.difference.value <= paired.difference.high + 1e-9
    assert 0 <= paired.p_value <= 1
    mirrored = compare_readers(second_N, first_N, np.arange(len(pairs)) // 2)
    assert mirrored.p_value == paired.p_value
