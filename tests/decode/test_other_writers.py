"""Pictures as other programs write them: padded, without an end, with spacings, of absurd size."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from imagecodecs import jpeg2k_encode, jpegls_encode
from PIL import Image

from implant_model.decode.prepare import Decoded, decode
from implant_model.decode.preprocess import Preprocessing
from implant_model.decode.sandbox import DecodeProcess
from implant_model.errors import Reason
from implant_model.limits import Limits
from tests.support.dicom_edits import dicom, picture
from tests.torture.cases.files import compressed, grey8

JPEG, J2K, JPEG_LS = (f"1.2.840.10008.1.2.4.{n}" for n in (50, 90, 80))


def jpeg(size: tuple[int, int] = (96, 80), **options: object) -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(0).random(size[::-1]) * 255
    Image.fromarray(noise.astype(np.uint8)).save(out, "JPEG", **options)
    return out.getvalue()


def grey(data: bytes) -> np.ndarray:
    decoded = decode(data, Limits())
    assert decoded.pixels_HW is not None, decoded.reason
    return decoded.pixels_HW


def reason(data: bytes) -> Reason | None:
    found: Decoded = decode(data, Limits())
    return found.reason


@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 4}, {"quality": 30}])
@pytest.mark.parametrize("size", [(96, 80), (97, 81), (333, 500)])
def test_jpeg_that_lacks_its_end_marker_alone_is_whole(
    size: tuple[int, int], options: dict[str, object]
) -> None:
    whole = jpeg(size, **options)
    for cut in (whole[:-2], whole[:-1]):
        np.testing.assert_array_equal(grey(cut), grey(whole))
    for missing in (8, 12, 20, 200, len(whole) // 2):
        assert reason(whole[:-missing]) is Reason.TRUNCATED, missing
        assert reason(whole[:-missing] + b"\0" * 20) is Reason.TRUNCATED


def test_progressive_jpeg_without_its_end_may_lack_a_scan() -> None:
    assert reason(jpeg(progressive=True)[:-2]) is Reason.TRUNCATED


def test_jpeg_in_dicom_that_lacks_its_end_marker_alone_is_whole() -> None:
    out = io.BytesIO()
    Image.fromarray(grey8()).save(out, "JPEG")
    frame = out.getvalue()
    reference = grey(compressed(JPEG, frame, grey8()))
    np.testing.assert_array_equal(grey(compressed(JPEG, frame[:-2], grey8())), reference)
    assert reason(compressed(JPEG, frame[:-12], grey8())) is Reason.TRUNCATED


@pytest.mark.parametrize("padding", [b"", b"\0", b"\0\0"])
@pytest.mark.parametrize("states_length", [True, False])
def test_jpeg_2000_that_ends_before_its_padding(padding: bytes, states_length: bool) -> None:
    """Psot 0: the last tile-part goes on to the end marker, which a pad byte is not part of."""
    pixels = picture()
    frame = bytes(jpeg2k_encode(pixels, level=0, codecformat="j2k", bitspersample=12))
    if not states_length:
        at = frame.index(b"\xff\x90") + 6
        frame = frame[:at] + bytes(4) + frame[at + 4 :]
    found = grey(compressed(J2K, frame + padding, pixels))
    np.testing.assert_array_equal(found, grey(dicom(pixels)))


@pytest.mark.parametrize("at_the_end", [True, False])
def test_jpeg_ls_with_a_pad_byte(at_the_end: bool) -> None:
    pixels = picture()
    frame = bytes(jpegls_encode(pixels))
    padded = frame + b"\0" if at_the_end else frame[:-2] + b"\0" + frame[-2:]
    found = grey(compressed(JPEG_LS, padded, pixels))
    np.testing.assert_array_equal(found, grey(dicom(pixels)))


@pytest.mark.parametrize(
    "attributes",
    [
        {"PixelSpacing": ["0.2", "0.1"]},
        {"ImagerPixelSpacing": ["0.2", "0.1"]},
        {"PixelAspectRatio": ["2", "1"]},
        {"PixelSpacing": ["0.2", "0.1"], "PixelAspectRatio": ["1", "2"]},
        {"PixelSpacing": ["", ""], "ImagerPixelSpacing": ["0.28", "0.14"]},
    ],
)
def test_pixels_that_are_twice_as_high_as_wide(attributes: dict[str, Any]) -> None:
    height, width = picture().shape
    stretched = grey(dicom(picture(), **attributes))
    assert stretched.shape in ((2 * height, width), (height, width // 2))


@pytest.mark.parametrize(
    "attributes",
    [
        {"PixelSpacing": ["0.143", "0.143"]},
        {"PixelSpacing": ["0.143", "0.1431"], "PixelAspectRatio": ["2", "1"]},
        {"ImagerPixelSpacing": ["0", "0.1"]},
        {"PixelSpacing": ["100", "0.1"]},
        {"PixelSpacing": ["0.1"]},
    ],
)
def test_pixels_that_are_square_or_senseless(attributes: dict[str, Any]) -> None:
    assert grey(dicom(picture(), **attributes)).shape == picture().shape


@pytest.mark.parametrize("side", [2**31 - 1, 2**31, 2**32 - 1])
def test_png_of_an_absurd_side_is_too_large_and_costs_no_child(side: int) -> None:
    header = struct.pack(">IIBBBBB", side, 3, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header
    chunk += struct.pack(">I", zlib.crc32(b"IHDR" + header))
    data = b"\x89PNG\r\n\x1a\n" + chunk + bytes(20)
    with DecodeProcess(Preprocessing(size_px=32), Limits()) as decoder:
        decoder.start()
        child = decoder.pid
        assert decoder.prepare(data).reason is Reason.TOO_LARGE
        assert decoder.pid == child
