"""Preprocessing: the same picture gives the same input, whatever carried it."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from implant_model.decode.prepare import decode
from implant_model.decode.preprocess import Preprocessing, preprocess, trim
from implant_model.errors import MemberError, PackageError, Reason
from implant_model.limits import Limits
from tests.support.dicom_edits import dataset, dicom, picture, to_bytes
from tests.support.pictures import encoded

SPEC = Preprocessing(size_px=64)


def radiograph() -> np.ndarray:
    """512 x 400 of 12 bits, with the noise of a detector."""
    noise = np.random.default_rng(5).normal(0, 12, (512, 400))
    return np.clip(picture(512, 400) * 0.9 + 150 + noise, 0, 4095).astype(np.uint16)


STORED = radiograph()
EIGHT = np.rint((STORED - STORED.min()) / np.ptp(STORED) * 255).astype(np.uint8)
CARRIERS = {
    "MONOCHROME2, 12 bits": dicom(STORED),
    "MONOCHROME1": dicom(np.uint16(4095) - STORED, PhotometricInterpretation="MONOCHROME1"),
    "signed": dicom(STORED.astype(np.int16) - np.int16(2048)),
    "slope": dicom(STORED, RescaleSlope=0.5, RescaleIntercept=-700),
    "16 bits": dicom(STORED * np.uint16(16), BitsStored=16, HighBit=15),
    "big endian": dicom(STORED.byteswap(), "1.2.840.10008.1.2.2"),
    "8 bits": dicom(EIGHT),
    "8 bits, MONOCHROME1": dicom(np.uint8(255) - EIGHT, PhotometricInterpretation="MONOCHROME1"),
    "window of the full range": dicom(STORED, WindowCenter=2047.5, WindowWidth=4096),
    "PNG 16 bits": encoded(STORED * np.uint16(16), "PNG"),
    "PNG 12 in 16 bits": encoded(STORED, "PNG"),
    "PNG 8 bits": encoded(EIGHT, "PNG"),
    "PNG RGB": encoded(np.repeat(EIGHT[..., None], 3, axis=-1), "PNG"),
    "JPEG": encoded(EIGHT, "JPEG", quality=98),
    "JPEG 2000": to_bytes(
        dataset(EIGHT), "1.2.840.10008.1.2.4.90", encoded(EIGHT, "JPEG2000", no_jp2=True)
    ),
}


def image_of(data: bytes, spec: Preprocessing = SPEC, size_px: int | None = None) -> np.ndarray:
    decoded = decode(data, Limits(), size_px)
    assert decoded.pixels_HW is not None, decoded.reason
    return preprocess(decoded.pixels_HW, spec)


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("size_px", [None, 128])
def test_one_picture_one_input(carrier: str, size_px: int | None) -> None:
    reference = image_of(CARRIERS["MONOCHROME2, 12 bits"]).astype(int)
    image = image_of(CARRIERS[carrier], size_px=size_px).astype(int)
    difference = np.abs(image - reference)
    # A wavelet's low-resolution image is no box average: hard edges differ by a little more.
    assert difference.max() <= (6 if size_px and carrier == "JPEG 2000" else 2)
    assert difference.mean() <= 0.6
    assert np.ptp(reference) > 230


@pytest.mark.parametrize("carrier", ["MONOCHROME2, 12 bits", "JPEG", "PNG 8 bits"])
def test_borders_are_no_cue(carrier: str) -> None:
    """Black and white padding, on some sides or all, leaves the input nearly as it was."""
    reference = image_of(CARRIERS[carrier]).astype(int)
    pixels = decode(CARRIERS[carrier], Limits()).pixels_HW
    assert pixels is not None
    peak = np.iinfo(pixels.dtype).max
    for level in (0, peak):
        for sides in (((40, 0), (0, 0)), ((0, 30), (25, 25)), ((60, 60), (60, 60))):
            padded = np.pad(pixels, sides, constant_values=level)
            image = preprocess(padded, SPEC).astype(int)
            assert np.abs(image - reference).max() <= 2, (level, sides)


@pytest.mark.parametrize("sigma", [1.0, 4.0, 10.0, 60.0])
def test_a_noisy_collimated_edge_is_cut_alike_in_8_and_12_bits(sigma: float) -> None:
    """8 bits hide the noise of 12; single pixels would say that one has a border, one not."""
    noise = np.abs(np.random.default_rng(2).normal(0, sigma, (712, 640)))
    framed = noise.astype(np.uint16)
    framed[100:612, 120:520] = STORED
    reference = preprocess(framed, SPEC).astype(int)
    for eight in (framed >> 4, np.rint(framed / 4095.0 * 255)):
        image = preprocess(eight.astype(np.uint8), SPEC).astype(int)
        assert np.abs(image - reference).max() <= 2
    assert (trim(framed).shape == STORED.shape) is (sigma < 20)


def test_a_band_of_white_across_bars_of_black_is_cut() -> None:
    framed = np.pad(EIGHT, ((0, 0), (30, 30)))
    framed = np.pad(framed, ((20, 0), (0, 0)), constant_values=255)
    assert trim(framed).shape == EIGHT.shape


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("width", [3, 7, 61, 62])
def test_a_collimator_in_a_frame_is_cut_alike_in_full_and_at_a_reduced_size(
    level: int, width: int
) -> None:
    """The wavelet leaves ripples of a frame, before and behind what is even."""
    film = np.zeros((1500, 1300), np.uint8)
    film[250:1274, 250:1050] = np.kron(EIGHT, np.ones((2, 2), np.uint8))
    film = np.pad(film, ((width, 0), (width, width + 1)), constant_values=level)
    stream = encoded(film, "JPEG2000", no_jp2=True)
    data = to_bytes(dataset(film), "1.2.840.10008.1.2.4.90", stream)
    reduced = image_of(data, size_px=256).astype(int)
    difference = np.abs(reduced - image_of(data))
    assert difference.mean() <= 2
    assert np.abs(reduced - image_of(CARRIERS["8 bits"])).mean() <= 3


def test_trim_leaves_what_is_no_border() -> None:
    grey = np.full((50, 40), 128, np.uint8)
    grey[20:30, 10:30] = np.arange(200, dtype=np.uint8).reshape(10, 20)
    assert trim(grey).shape == (50, 40)  # even, but neither black nor white
    speck = np.zeros((200, 200), np.uint8)
    speck[100:103, 100:103] = [[255, 9, 80], [3, 200, 70], [90, 14, 160]]
    assert trim(speck).shape == (200, 200)  # less than a tenth of a side would be left
    assert trim(np.zeros((9, 9), np.uint8)).shape == (9, 9)
    padded = preprocess(np.pad(EIGHT, 50), Preprocessing(size_px=64, trim_borders=False))
    assert not padded[:4].any()


def test_fit() -> None:
    wide = np.tile(np.linspace(0, 255, 200).astype(np.uint8), (50, 1))
    wide[::2] ^= 1
    padded = preprocess(wide, Preprocessing(size_px=64, trim_borders=False))
    assert padded.shape == (64, 64)
    assert not padded[:24].any()
    assert not padded[-24:].any()
    assert padded[32].max() > 250
    squashed = preprocess(wide, Preprocessing(size_px=64, trim_borders=False, fit="squash"))
    assert squashed[0].max() > 250


def test_outliers_do_not_set_the_contrast() -> None:
    marked = STORED.copy()
    marked[:8, :8] = 65535  # a marker, 0.03 % of the pixels
    reference = preprocess(STORED, SPEC).astype(int)
    image = preprocess(marked, SPEC).astype(int)
    assert np.abs(image - reference)[4:, 12:].max() <= 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_constant_picture_is_bad_pixels(dtype: type[np.uint8 | np.uint16]) -> None:
    for level in (0, 7, np.iinfo(dtype).max):
        with pytest.raises(MemberError, match="constant") as caught:
            preprocess(np.full((30, 40), level, dtype), SPEC)
        assert caught.value.reason is Reason.BAD_PIXELS


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((9, 9), np.nan),
        np.zeros((0, 4), np.uint8),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((4, 4), np.float32),
    ],
)
def test_what_is_no_grey_picture_is_bad_pixels(pixels: np.ndarray) -> None:
    with pytest.raises(MemberError, match="no grey picture"):
        preprocess(pixels, SPEC)


@settings(max_examples=100, deadline=None)
@given(
    pixels=arrays(
        st.sampled_from([np.uint8, np.uint16]), st.tuples(st.integers(1, 40), st.integers(1, 40))
    ),
    trim_borders=st.booleans(),
    fit=st.sampled_from(["squash", "pad"]),
)
def test_any_picture_gives_an_input_or_bad_pixels(
    pixels: np.ndarray, trim_borders: bool, fit: Any
) -> None:
    spec = Preprocessing(size_px=32, trim_borders=trim_borders, fit=fit)
    if pixels.min() == pixels.max():
        with pytest.raises(MemberError, match="constant"):
            preprocess(pixels, spec)
        return
    image = preprocess(pixels, spec)
    assert image.shape == (32, 32)
    assert image.dtype == np.uint8
    assert np.ptp(image) > 0


def test_a_change_of_scale_and_offset_changes_nothing() -> None:
    base = preprocess(STORED, SPEC)
    moved = preprocess(STORED * np.uint16(7) + np.uint16(900), SPEC)
    assert np.abs(moved.astype(int) - base).max() <= 1


def test_the_input_is_not_written_to() -> None:
    frozen = STORED.copy()
    frozen.setflags(write=False)
    preprocess(frozen, SPEC)
    np.testing.assert_array_equal(frozen, STORED)


def test_json_round_trip() -> None:
    spec = Preprocessing(size_px=384, trim_borders=False, fit="squash", low_percent=1)
    assert Preprocessing.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size_px": 0}, "size_px is 0"),
        ({"size_px": "224"}, "size_px is '224'"),
        ({"size_px": True}, "size_px is True"),
        ({"trim_borders": 1}, "trim_borders is 1"),
        ({"fit": "crop"}, "fit is 'crop'"),
        ({"low_percent": 99.5, "high_percent": 0.5}, "percentile 99.5 to 0.5"),
        ({"high_percent": float("nan")}, "percentile"),
        ({"more": 1}, "exactly"),
    ],
)
def test_impossible_preprocessing_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PackageError, match=message):
        Preprocessing.from_json(SPEC.to_json() | change)
    with pytest.raises(PackageError, match="exactly"):
        Preprocessing.from_json({"size_px": 224})
    with pytest.raises(PackageError, match="list"):
        Preprocessing.from_json([])
