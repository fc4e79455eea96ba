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
from implant_model.errors import Doubt, Reason
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


def exposed(border: int = 60) -> np.ndarray:
    """A picture within a large unexposed border that is not quite uniform, as a CR plate has it."""
    inside = picture(200, 160)
    noise = np.random.default_rng(1).integers(0, 60, (200 + 2 * border, 160 + 2 * border))
    plate = (3900 + noise).astype(np.uint16)
    plate[border:-border, border:-border] = inside
    return plate


RECTANGULAR = {
    "ShutterShape": "RECTANGULAR",
    "ShutterLeftVerticalEdge": "61",
    "ShutterRightVerticalEdge": "220",
    "ShutterUpperHorizontalEdge": "61",
    "ShutterLowerHorizontalEdge": "260",
}


def test_rectangular_shutter_leaves_what_it_leaves_open() -> None:
    found = grey(dicom(exposed(), **RECTANGULAR))
    alone = grey(dicom(exposed()))[60:-60, 60:-60]
    np.testing.assert_array_equal(found, alone)
    spec = Preprocessing(size_px=64)
    with DecodeProcess(spec, Limits()) as decoder:
        shut = decoder.prepare(dicom(exposed(), **RECTANGULAR)).image
        cut = decoder.prepare(dicom(picture(200, 160))).image
    assert shut is not None
    assert cut is not None
    assert np.abs(shut.astype(int) - cut).max() <= 2


def test_circular_and_polygonal_shutters_cover_what_is_outside() -> None:
    circle: dict[str, Any] = {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": ["161", "141"]}
    found = grey(dicom(exposed(), **circle, RadiusOfCircularShutter="80"))
    assert found.shape == (161, 161)
    assert found[0, 0] == found[80, 80:].min() or found[0, 0] == found.min()
    reference = grey(dicom(exposed()))
    np.testing.assert_array_equal(found[80, :], reference[160, 60:221])
    corners = ["61", "61", "61", "220", "260", "140"]
    polygon: dict[str, Any] = {
        "ShutterShape": "POLYGONAL",
        "VerticesOfThePolygonalShutter": corners,
    }
    found = grey(dicom(exposed(), **polygon))
    assert found.shape == (200, 160)
    assert found[-1, 0] == found.min()
    np.testing.assert_array_equal(found[0, :], reference[60, 60:220])


def test_shutters_of_two_shapes_are_both_honoured() -> None:
    both: dict[str, Any] = {**RECTANGULAR, "ShutterShape": ["RECTANGULAR", "CIRCULAR"]}
    both |= {"CenterOfCircularShutter": ["161", "141"], "RadiusOfCircularShutter": "90"}
    assert grey(dicom(exposed(), **both)).shape == (181, 160)


@pytest.mark.parametrize(
    "attributes",
    [
        {**RECTANGULAR, "ShutterLowerHorizontalEdge": "62"},
        {**RECTANGULAR, "ShutterLeftVerticalEdge": "5000", "ShutterRightVerticalEdge": "6000"},
        {**RECTANGULAR, "ShutterRightVerticalEdge": None},
        {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": ["1", "1"]},
        {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": ["1", "1", "2"]},
        {"ShutterShape": "BITMAP"},
    ],
)
def test_senseless_shutter_is_passed_over(attributes: dict[str, Any]) -> None:
    given = {name: value for name, value in attributes.items() if value is not None}
    assert grey(dicom(exposed(), **given)).shape == exposed().shape


PGM = {
    "16 bits": b"P5\n# a scanner of 1999\n80 96\n65535\n%s",
    "12 bits": b"P5 80 96 4095\n%s",
    "8 bits": b"P5\t80\n96 255 %s",
}


@pytest.mark.parametrize("kind", [*PGM, "text"])
def test_pgm_of_a_film_scanner(kind: str) -> None:
    values = (np.arange(96 * 80).reshape(96, 80) * 8).astype(np.uint16)
    stored = {"12 bits": values >> 4, "8 bits": values >> 8}.get(kind, values)
    if kind == "text":
        data = b"P2\n80 96 65535\n" + b" ".join(b"%d" % value for value in stored.ravel()) + b"\n"
    else:
        data = PGM[kind] % stored.astype("u1" if kind == "8 bits" else ">u2").tobytes()
    found = grey(data)
    top = {"12 bits": 4095, "8 bits": 255}.get(kind, 65535)
    expected = stored / top * (255 if kind == "8 bits" else 65535)
    assert np.abs(found - expected).max() < 1
    assert reason(data[: len(data) // 2]) is Reason.TRUNCATED


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"P5 99999 99999 255\n" + bytes(100), Reason.TOO_LARGE),
        (b"P5 0 10 255\n" + bytes(100), Reason.CORRUPT),
        (b"P2 2 2 255\n1 2 3 999\n", Reason.CORRUPT),
        (b"P2 is the name of a ward", Reason.NOT_AN_IMAGE),
        (b"P6 2 2 255\n" + bytes(12), Reason.UNSUPPORTED_ENCODING),
        (b"P7\nWIDTH 2\n", Reason.UNSUPPORTED_ENCODING),
        (b"\0\0\1\0\1\0\x10\x10" + bytes(40), Reason.UNSUPPORTED_ENCODING),
        (b"\0\0\2" + bytes(9) + b"\x10\0\x10\0\x18\0" + bytes(768), Reason.UNSUPPORTED_ENCODING),
    ],
)
def test_other_maps_have_a_reason_of_their_own(data: bytes, expected: Reason) -> None:
    assert reason(data) is expected


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


@pytest.mark.parametrize(
    ("attributes", "doubts"),
    [
        ({}, ()),
        ({"PresentationIntentType": "FOR PRESENTATION"}, ()),
        ({"PresentationIntentType": "FOR PROCESSING"}, (Doubt.FOR_PROCESSING,)),
        ({"PresentationLUTShape": "IDENTITY"}, ()),
        ({"PresentationLUTShape": "INVERSE"}, (Doubt.POLARITY,)),
        ({"PresentationLUTShape": "LIN OD"}, ()),
        ({"PhotometricInterpretation": "MONOCHROME1"}, ()),
        (
            {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
            (),
        ),
        (
            {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "IDENTITY"},
            (Doubt.POLARITY,),
        ),
        ({"PixelIntensityRelationshipSign": -1}, ()),
        ({"PixelIntensityRelationshipSign": 1}, (Doubt.POLARITY,)),
        ({"PixelIntensityRelationshipSign": 0}, ()),
        ({"PixelIntensityRelationshipSign": 1, "RescaleSlope": "-1"}, ()),
        (
            {"PixelIntensityRelationshipSign": 1, "PhotometricInterpretation": "MONOCHROME1"},
            (),
        ),
        (
            {"PixelIntensityRelationshipSign": 1, "PresentationIntentType": "FOR PROCESSING"},
            (Doubt.FOR_PROCESSING, Doubt.POLARITY),
        ),
    ],
)
def test_doubts_of_polarity_and_presentation_are_told(
    attributes: dict[str, Any], doubts: tuple[Doubt, ...]
) -> None:
    data = dicom(picture(), **attributes)
    assert decode(data, Limits()).header.doubts == doubts
    with DecodeProcess(Preprocessing(size_px=64), Limits()) as decoder:
        assert decoder.prepare(data).header.doubts == doubts
