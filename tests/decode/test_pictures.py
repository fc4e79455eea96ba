"""The networks' picture of a member: the same from a reduced decode as from a full one."""

from typing import Any

import numpy as np
import pytest

from implant_model.classifier import Classifier
from implant_model.decode.prepare import decode, picture_of
from implant_model.decode.preprocess import Preprocessing, preprocess, shrink, trim
from implant_model.errors import Reason
from implant_model.limits import Limits
from implant_model.package.catalogue import ORTHONET
from implant_model.package.load import load_package
from implant_model.phantoms.dicom_files import TRANSFER_SYNTAXES, write_dicom
from implant_model.phantoms.picture_files import write_jpeg
from implant_model.phantoms.render import Phantom, render
from tests.support.dicom_edits import dicom
from tests.support.paths import ROOT
from tests.support.pictures import encoded

SPEC = Preprocessing(size_px=96)
LARGEST, MEAN = 2, 0.3
"""Levels of 255 that a fast path may be off."""


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return render(ORTHONET.implants[0], np.random.default_rng(20), 1000)


@pytest.mark.parametrize("syntax", [*TRANSFER_SYNTAXES, "JPEG"])
def test_each_encoding_gives_the_picture_of_the_full_decode(phantom: Phantom, syntax: str) -> None:
    rng = np.random.default_rng(1)
    data = write_jpeg(phantom) if syntax == "JPEG" else write_dicom(
        phantom, rng, transfer_syntax=syntax
    )  # fmt: skip
    full = decode(data, Limits()).pixels_HW
    found = picture_of(data, SPEC, Limits())
    assert full is not None
    assert found.image is not None
    apart = np.abs(found.image.astype(int) - preprocess(full, SPEC))
    assert apart.max() <= LARGEST
    assert apart.mean() <= MEAN


@pytest.mark.parametrize(
    ("attributes", "as_stored"),
    [
        ({}, True),
        ({"WindowCenter": 2000, "WindowWidth": 900}, False),
        ({"PhotometricInterpretation": "MONOCHROME1"}, False),
        ({"RescaleSlope": 0.5, "RescaleIntercept": -1024}, True),
    ],
)
def test_greys_that_are_left_as_stored_give_the_same_picture(
    attributes: dict[str, Any], *, as_stored: bool
) -> None:
    ramp_HW = np.add.outer(np.arange(900), np.arange(700)) * 2 + 300
    noise_HW = np.random.default_rng(5).normal(0, 40, ramp_HW.shape)
    data = dicom((ramp_HW + noise_HW).clip(0, 4095).astype(np.uint16), **attributes)
    scaled = decode(data, Limits()).pixels_HW
    stored = decode(data, Limits(), unscaled=True).pixels_HW
    found = picture_of(data, SPEC, Limits()).image
    assert scaled is not None
    assert stored is not None
    assert found is not None
    assert scaled.max() == 65535
    assert bool(stored.max() < 4096) is as_stored
    apart = np.abs(found.astype(int) - preprocess(scaled, SPEC))
    assert apart.max() <= 1
    assert apart.mean() <= 0.1


@pytest.mark.parametrize("shape", [(1003, 805), (1008, 805), (1003, 808), (1008, 808)])
def test_averages_equal_those_in_float64(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(4).integers(0, 65536, shape, np.uint16)
    fill = ((0, 1008 - shape[0]), (0, 808 - shape[1]))
    padded = np.pad(pixels, fill, mode="edge").astype(np.float64)
    wanted = padded.reshape(126, 8, 101, 8).mean(axis=(1, 3))
    np.testing.assert_allclose(shrink(pixels, 100), wanted, atol=2)
    np.testing.assert_allclose(shrink((pixels >> 8).astype(np.uint8), 100), wanted / 256, atol=2)
    assert shrink(pixels, 405) is pixels


def test_a_member_in_foreign_memory_is_read_where_it_lies(phantom: Phantom) -> None:
    data = write_dicom(phantom, np.random.default_rng(1))
    room = memoryview(bytearray(len(data) + 999))[: len(data)]
    room[:] = data
    first, second = picture_of(room, SPEC, Limits()), picture_of(data, SPEC, Limits())
    assert first.header == second.header
    np.testing.assert_array_equal(first.image, second.image)
    assert picture_of(room[: len(data) // 2], SPEC, Limits()).reason is Reason.TRUNCATED


def test_a_constant_picture_has_a_reason() -> None:
    data = encoded(np.full((200, 200), 7, np.uint8))
    assert picture_of(data, SPEC, Limits()).reason is Reason.BAD_PIXELS


@pytest.mark.real_data
def test_real_radiographs_keep_their_labels(
    shoulder_radiographs: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All 477, against a decode in full and no average before the percentiles."""
    package = load_package(str(ROOT / "models" / "shoulder"))
    spec, members = package.preprocessing, shoulder_radiographs.values()
    fast = [picture_of(data, spec, Limits()).image for data in members]
    monkeypatch.setattr("implant_model.decode.preprocess.shrink", lambda pixels, _: pixels)
    full = [decode(data, Limits()).pixels_HW for data in members]
    pairs = [
        (image, preprocess(pixels, spec))
        for image, pixels in zip(fast, full, strict=True)
        if image is not None and pixels is not None
    ]
    assert len(pairs) == len(shoulder_radiographs)
    # Equal pictures have equal labels: only the large radiographs can differ.
    changed = [pair for pair in pairs if not np.array_equal(*pair)]
    assert 1 <= len(changed) <= 40
    classifier = Classifier(package)
    found, wanted = (classifier.classify(np.stack(images)) for images in zip(*changed, strict=True))
    np.testing.assert_array_equal(
        found.probabilities_NC.argmax(axis=1), wanted.probabilities_NC.argmax(axis=1)
    )
    assert found.outcomes == wanted.outcomes


def test_a_jpeg_with_a_border_is_cut_to_the_pixel() -> None:
    """A reduced decode would move the edge by up to 8 pixels."""
    phantom = render(ORTHONET.implants[1], np.random.default_rng(7), 1200)
    grey = (phantom.pixels_HW >> 4).astype(np.uint8)
    data = encoded(np.pad(grey, ((0, 0), (61, 30))), "JPEG", quality=95)
    full = decode(data, Limits()).pixels_HW
    assert full is not None
    assert trim(full).shape != full.shape
    found = picture_of(data, SPEC, Limits()).image
    np.testing.assert_array_equal(found, preprocess(full, SPEC))
