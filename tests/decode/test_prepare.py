"""Decoding: what the pictures are, and the files that pydicom ships; bad input: `tests.torture`."""

import io
import logging
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import jpeg_ls
import numpy as np
import pydicom
import pydicom.data
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from imagecodecs import jpeg8_encode, jpegls_encode
from PIL import Image
from pydicom.pixels.utils import pixel_array
from pydicom.uid import JPEGExtended12Bit

from implant_model.decode import codecs
from implant_model.decode import dicom as dicom_module
from implant_model.decode.elements import read_file
from implant_model.decode.frames import PixelFormat
from implant_model.decode.prepare import Decoded, decode
from implant_model.errors import MemberError, Reason
from implant_model.limits import MIB, Limits
from tests.support.dicom_edits import SECONDARY_CAPTURE, dataset, dicom, picture, to_bytes
from tests.support.pictures import encoded
from tests.torture.cases.displays import lut_item
from tests.torture.cases.files import (
    compressed,
    grey8,
    headless,
    png16_colour,
    relabelled,
    stream_of,
)
from tests.torture.cases.pixels import palette

LIMITS = Limits()
PYDICOM_FILES = Path(pydicom.data.__file__).parent
SHIPPED = sorted(
    path
    for path in PYDICOM_FILES.rglob("*")
    if path.is_file() and path.suffix not in (".py", ".pyc")
)
JPEG, J2K, J2K_LOSSY = (f"1.2.840.10008.1.2.4.{n}" for n in (50, 90, 91))
JPEG_LS, RLE = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.5"
DEFLATED, BIG_ENDIAN, IMPLICIT = (
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2",
)


def reason_of(data: bytes, limits: Limits = LIMITS) -> Reason | None:
    decoded = decode(data, limits)
    assert (decoded.reason is None) != (decoded.pixels_HW is None)
    return decoded.reason


def pixels_of(data: bytes | memoryview) -> np.ndarray:
    decoded = decode(data, LIMITS)
    assert decoded.reason is None
    assert decoded.pixels_HW is not None
    return decoded.pixels_HW


# --- files that pydicom ships -------------------------------------------------------------------


def test_every_shipped_file_gives_one_answer_in_silence(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert len(SHIPPED) >= 176
    filters = list(warnings.filters)
    with caplog.at_level(logging.DEBUG):
        answers = [decode(path.read_bytes(), LIMITS) for path in SHIPPED]
    assert all(isinstance(answer, Decoded) for answer in answers)
    assert all((answer.pixels_HW is None) == (answer.reason is not None) for answer in answers)
    assert warnings.filters == filters
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


SHIPPED_REASONS = {
    "CR1/6154": None,
    "JPEGLSNearLossless_16.dcm": None,
    "CT_small.dcm": Reason.NOT_A_RADIOGRAPH,
    "MR_truncated.dcm": Reason.NOT_A_RADIOGRAPH,
    "JPGExtended.dcm": Reason.NOT_A_RADIOGRAPH,
    "examples_palette.dcm": Reason.NOT_A_RADIOGRAPH,
    "examples_ybr_color.dcm": Reason.NOT_A_RADIOGRAPH,
    "SC_rgb_jpeg.dcm": Reason.NOT_A_RADIOGRAPH,
    "chrJapMulti.dcm": Reason.TRUNCATED,
    "waveform_ecg.dcm": Reason.NON_IMAGE_OBJECT,
    "test-SR.dcm": Reason.NON_IMAGE_OBJECT,
    "rtdose.dcm": Reason.NON_IMAGE_OBJECT,
    "rtplan_truncated.dcm": Reason.NON_IMAGE_OBJECT,
    "rtstruct.dcm": Reason.NON_IMAGE_OBJECT,
    "badVR.dcm": Reason.NON_IMAGE_OBJECT,
    "liver_1frame.dcm": Reason.NON_IMAGE_OBJECT,
    "ExplVR_BigEndNoMeta.dcm": Reason.NON_IMAGE_OBJECT,
    "DICOMDIR-nooffset": Reason.NON_IMAGE_OBJECT,
    "UN_sequence.dcm": Reason.NON_IMAGE_OBJECT,
    "zipMR.gz": Reason.NESTED_ARCHIVE,
    "test1.json": Reason.NOT_AN_IMAGE,
    "crayons.icc": Reason.NOT_AN_IMAGE,
}


@pytest.mark.parametrize("name", SHIPPED_REASONS)
def test_reason_of_a_shipped_file(name: str) -> None:
    path = next(path for path in SHIPPED if str(path).endswith(name))
    assert reason_of(path.read_bytes()) is SHIPPED_REASONS[name]


def test_stored_values_equal_pydicoms() -> None:
    """Every codec and pixel description among pydicom's files, the radiograph rule aside."""
    compared = 0
    for path in SHIPPED:
        data = path.read_bytes()
        if not dicom_module.looks_like_dicom(data):
            continue
        source = dicom_module.DicomSource(data, LIMITS)
        try:
            fmt = dicom_module._pixel_format(source._attributes)
            source._check_format(fmt)
            frame = source._stored(fmt, None)
        except MemberError:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = pydicom.dcmread(path, force=True)
            if path.name == "badVR.dcm":  # pydicom cannot read its number of frames
                continue
            if ds.file_meta.get("TransferSyntaxUID") == JPEGExtended12Bit:  # no plugin here can
                continue
            reference = pixel_array(ds)
        stored = frame.values
        assert frame.ends in (None, (stored.min(), stored.max()))
        if stored.ndim == 2 and reference.ndim == 3:  # YBR_FULL_422: the luminance alone
            assert stored.shape == reference.shape[:2]
            continue
        np.testing.assert_array_equal(stored, reference, err_msg=path.name)
        compared += 1
    assert compared >= 90


def test_header_values_equal_pydicoms() -> None:
    wanted = frozenset({0x00280010, 0x00280011, 0x00080060, 0x00080016, 0x00100020, 0x0020000D})
    checked = 0
    for path in SHIPPED:
        data = path.read_bytes()
        if not dicom_module.looks_like_dicom(data):
            continue
        elements = read_file(data, wanted, LIMITS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = pydicom.dcmread(path, force=True, stop_before_pixels=True)
        raw = {tag: ds.get_item(tag) for tag in wanted if tag in ds}
        expected = {tag: item.value or b"" for tag, item in raw.items()}
        assert elements.values == expected, path.name
        checked += len(expected)
    assert checked > 500


# --- DICOM container (1 to 24) ------------------------------------------------------------------


def deflate_bomb() -> bytes:
    whole = dicom(picture(), DEFLATED)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packer.compress(bytes(64 * MIB)) + packer.flush()
    return whole[: -len(headless(whole))] + body


def test_deflate_bomb_is_too_large() -> None:
    assert reason_of(deflate_bomb(), Limits(member_bytes=8 * MIB)) is Reason.TOO_LARGE


def test_header_over_its_limit_is_too_large() -> None:
    ds = dataset(picture())
    ds.add_new(0x0008FFFE, "UN", bytes(60_000))
    data = to_bytes(ds)
    assert reason_of(data, Limits(header_bytes=10_000)) is Reason.TOO_LARGE


@pytest.mark.parametrize("syntax", [IMPLICIT, BIG_ENDIAN, DEFLATED, "1.2.840.10008.1.2.1"])
def test_native_syntaxes_give_the_same_picture(syntax: str) -> None:
    stored = picture().byteswap() if syntax == BIG_ENDIAN else picture()
    reference = pixels_of(dicom(picture()))
    np.testing.assert_array_equal(pixels_of(dicom(stored, syntax)), reference)
    assert reference.min() == 0
    assert reference.max() == 65535


def test_elements_behind_the_pixels_are_found() -> None:
    """16: unordered tags."""
    data = dicom(picture())
    start, end = data.index(b"\x28\x00\x02\x00US"), data.index(b"\xe0\x7f\x10\x00OW")
    moved = data[:start] + data[end:] + data[start:end]
    np.testing.assert_array_equal(pixels_of(moved), pixels_of(data))


@pytest.mark.parametrize("charset", ["ISO_IR 999", "", "ISO 2022 IR 87\\nonsense", "ISO_IR 192"])
def test_no_character_set_costs_a_picture(charset: str) -> None:
    """18."""
    data = dicom(picture())
    field = charset.encode() + b" " * (len(charset) % 2)
    element = b"\x08\x00\x05\x00CS" + struct.pack("<H", len(field)) + field
    start = data.index(b"\x08\x00\x16\x00UI")
    data = data[:start] + element + data[start:]
    decoded = decode(relabelled(data, b"PAT-17", b"\xc4\xd6\x1b$B\xff"), LIMITS)
    assert decoded.reason is None
    assert decoded.header.patient
    decoded.header.patient.encode("utf-8")


# --- what is a radiograph (25 to 39) ------------------------------------------------------------

STORAGE = "1.2.840.10008.5.1.4.1.1."
KINDS: list[tuple[dict[str, Any], Reason | None]] = [
    ({"Modality": "DX", "SOPClassUID": STORAGE + "1.1"}, None),
    ({"Modality": "RG", "SOPClassUID": SECONDARY_CAPTURE}, None),
    ({"Modality": "DR"}, None),
    ({"Modality": None}, None),
    ({"Modality": "OT"}, None),
    ({"Modality": "CR", "SOPClassUID": SECONDARY_CAPTURE}, None),
    ({"Modality": None, "SOPClassUID": None}, None),
    ({"Modality": None, "SOPClassUID": SECONDARY_CAPTURE}, None),
    ({"Modality": "OT", "SOPClassUID": SECONDARY_CAPTURE}, None),  # it has a View Position
    (
        {"Modality": "OT", "SOPClassUID": SECONDARY_CAPTURE, "ViewPosition": None},
        Reason.NOT_A_RADIOGRAPH,
    ),
    (
        {
            "Modality": "OT",
            "SOPClassUID": SECONDARY_CAPTURE,
            "ViewPosition": None,
            "ConversionType": "DF",
        },
        None,
    ),
    (
        {"Modality": None, "SOPClassUID": SECONDARY_CAPTURE, "ConversionType": "SD"},
        Reason.NOT_A_RADIOGRAPH,
    ),
    ({"Modality": "CR", "ConversionType": "SD"}, Reason.NOT_A_RADIOGRAPH),
    *(
        ({"Modality": modality}, Reason.NOT_A_RADIOGRAPH)
        for modality in ("CT", "MR", "US", "NM", "PT", "MG", "RF", "XA", "PX", "IO", "BMD", "XC")
    ),
    ({"SOPClassUID": STORAGE + "2"}, Reason.NOT_A_RADIOGRAPH),
    ({"SOPClassUID": STORAGE + "12.2", "Modality": "RF"}, Reason.NOT_A_RADIOGRAPH),
    ({"SOPClassUID": STORAGE + "481.1", "Modality": "RTIMAGE"}, Reason.NOT_A_RADIOGRAPH),
    *(
        ({"SOPClassUID": STORAGE + family}, Reason.NON_IMAGE_OBJECT)
        for family in (
            *("88.11", "88.59", "104.1", "104.2", "11.1", "481.2", "481.3", "481.5", "66", "66.4"),
            *("30", "67", "9.1.1", "77.1.1.1", "88.67", "131"),
        )
    ),
    *(
        ({"Modality": modality}, Reason.NON_IMAGE_OBJECT)
        for modality in ("SR", "PR", "KO", "DOC", "SEG", "RTDOSE", "ECG", "REG")
    ),
    ({"SOPClassUID": "1.2.840.10008.1.3.10"}, Reason.NON_IMAGE_OBJECT),
]


@pytest.mark.parametrize(("attributes", "reason"), KINDS)
def test_kind(attributes: dict[str, Any], reason: Reason | None) -> None:
    assert reason_of(dicom(picture(), **attributes)) is reason


def test_a_rejected_object_keeps_its_header() -> None:
    decoded = decode(dicom(picture(), Modality="CT"), LIMITS)
    assert decoded.reason is Reason.NOT_A_RADIOGRAPH
    assert decoded.header.modality == "CT"
    assert decoded.header.patient == "PAT-17"
    assert (decoded.header.rows, decoded.header.columns) == (96, 80)


def test_only_defined_terms_reach_the_header() -> None:
    data = dicom(picture(), BodyPartExamined="SMITH", ViewPosition="JOHN", ImageLaterality="X")
    header = decode(data, LIMITS).header
    assert (header.body_part, header.view, header.laterality) == (None, None, None)
    assert decode(dicom(picture(), Modality="DR"), LIMITS).header.modality is None
    assert "PAT-17" not in repr(decode(dicom(picture()), LIMITS))


# --- pixel description (40 to 59) ---------------------------------------------------------------


def test_data_above_bits_stored_are_masked() -> None:
    """45 and 46: an overlay in the unused bits."""
    overlay = picture() | np.uint16(0x8000) * (picture() > 2000)
    np.testing.assert_array_equal(pixels_of(dicom(overlay)), pixels_of(dicom(picture())))


def test_high_bit_moves_the_value() -> None:
    """44: 12 bits in the upper part of the word."""
    shifted = picture() << np.uint16(4)
    np.testing.assert_array_equal(
        pixels_of(dicom(shifted, HighBit=15)), pixels_of(dicom(picture()))
    )


def assert_same_grey(actual: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for a rounding: another order of stored values is another line to grey."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1)


def test_signed_pixels() -> None:
    signed = picture().astype(np.int16) - np.int16(2048)
    assert_same_grey(pixels_of(dicom(signed)), pixels_of(dicom(picture())))


def test_signed_pixels_of_12_bits_extend_their_sign() -> None:
    signed = (picture().astype(np.int16) - np.int16(2048)) & np.int16(0x0FFF)
    assert_same_grey(pixels_of(dicom(signed)), pixels_of(dicom(picture())))


@pytest.mark.parametrize("bits", [8, 12])
def test_lossless_codecs_equal_native(bits: int) -> None:
    """55."""
    pixels = grey8() if bits == 8 else picture()
    reference = pixels_of(dicom(pixels))
    frames = {JPEG_LS: bytes(jpeg_ls.encode_pixel_data(
        pixels.tobytes(), rows=pixels.shape[0], columns=pixels.shape[1], samples_per_pixel=1,
        bits_allocated=8 * pixels.itemsize, bits_stored=bits, photometric_interpretation=2,
        pixel_representation=0, lossy_error=0, interleave_mode=0))}  # fmt: skip
    if bits == 8:
        frames[J2K] = stream_of(pixels)
    for syntax, frame in frames.items():
        np.testing.assert_array_equal(pixels_of(compressed(syntax, frame, pixels)), reference)
    ds = dataset(pixels)
    to_bytes(ds)
    ds.compress(RLE, generate_instance_uid=False)
    out = io.BytesIO()
    ds.save_as(out)
    np.testing.assert_array_equal(pixels_of(out.getvalue()), reference)


def test_jpeg_of_12_bits() -> None:
    """Two values of pydicom's file are those that its own tests have of it, by IJG's code."""
    path = next(path for path in SHIPPED if path.name == "JPEG-lossy.dcm")
    source = dicom_module.DicomSource(path.read_bytes(), LIMITS)
    stored = source._stored(dicom_module._pixel_format(source._attributes), None).values
    assert (stored[420, 140], stored[230, 120]) == (244, 95)
    pixels = picture()
    frame = jpeg8_encode(pixels, level=100, bitspersample=12)
    found = pixels_of(compressed(JPEGExtended12Bit, bytes(frame), pixels)).astype(np.int64)
    assert np.abs(found - pixels_of(dicom(pixels))).max() < 16 * 16  # of 65536 greys
    cut = compressed(JPEGExtended12Bit, bytes(frame[: len(frame) // 2]), pixels)
    assert reason_of(cut) is Reason.TRUNCATED
    colour = jpeg8_encode(np.dstack([pixels] * 3), level=90, bitspersample=12)
    assert reason_of(compressed(JPEGExtended12Bit, bytes(colour), pixels)) is not None


def test_jpeg_ls_with_a_size_of_its_own_is_refused() -> None:
    """CharLS would take it unseen, of any size (GHSA-mqrg-gfc8-73ff)."""
    pixels = picture()
    frame = bytes(jpegls_encode(pixels))
    assert reason_of(compressed(JPEG_LS, frame, pixels)) is None
    own = b"\xff\xf8" + struct.pack(">HBBII", 12, 4, 4, 2**31, 2**31)
    assert reason_of(compressed(JPEG_LS, frame[:2] + own + frame[2:], pixels)) is (
        Reason.UNSUPPORTED_ENCODING
    )


@pytest.mark.parametrize("interleave", [1, 2])
def test_jpeg_ls_in_colour_of_each_interleave_mode(interleave: int) -> None:
    pixels = np.dstack([picture(bits=8).astype(np.uint8) // part for part in (1, 2, 3)])
    frame = jpeg_ls.encode_pixel_data(
        pixels.tobytes(), rows=96, columns=80, samples_per_pixel=3, bits_allocated=8,
        bits_stored=8, photometric_interpretation=3, pixel_representation=0, lossy_error=0,
        interleave_mode=interleave)  # fmt: skip
    fmt = PixelFormat(96, 80, 3, "RGB", False, 8, 8, 7, False, True)
    np.testing.assert_array_equal(codecs.compressed(bytes(frame), fmt, None), pixels)


def test_jpeg_ls_in_colour_plane_by_plane() -> None:
    """Three scans of one component each, put together of three grey streams."""
    planes = [picture(bits=8).astype(np.uint8) // part for part in (1, 2, 3)]
    frame = b"\xff\xd8\xff\xf7" + struct.pack(">HBHHB", 17, 8, 96, 80, 3)
    frame += b"\x01\x11\x00\x02\x11\x00\x03\x11\x00"
    for number, plane in enumerate(planes, 1):
        grey = bytes(jpegls_encode(plane))
        scan = grey.index(b"\xff\xda") + 10
        frame += b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, number, 0, 0, 0, 0) + grey[scan:-2]
    fmt = PixelFormat(96, 80, 3, "RGB", True, 8, 8, 7, False, True)
    found = codecs.compressed(frame + b"\xff\xd9", fmt, None)
    np.testing.assert_array_equal(found, np.dstack(planes))


def test_lossless_jpeg_by_gdcm() -> None:
    path = next(path for path in SHIPPED if path.name == "SC_rgb_jpeg_gdcm.dcm")
    ds = pydicom.dcmread(path)
    ds.Modality, ds.SOPClassUID = "CR", SECONDARY_CAPTURE
    out = io.BytesIO()
    ds.save_as(out)
    whole = out.getvalue()
    assert reason_of(whole) is None
    scan = whole.index(b"\xff\xda") + 40
    hollow = whole[:scan] + whole[scan + 400 : -8] + bytes(400) + whole[-8:]  # the length stays
    assert reason_of(hollow) is Reason.CORRUPT


@pytest.mark.parametrize("columns", range(400, 408))
def test_jpeg_2000_of_any_size_at_a_reduced_size(columns: int) -> None:
    """Pillow rounds the reduced size to the nearest, and then refuses the stream as broken."""
    pixels = picture(513, columns, bits=8).astype(np.uint8)
    data = compressed(J2K_LOSSY, stream_of(pixels, num_resolutions=5), pixels)
    decoded = decode(data, LIMITS, 50)
    assert decoded.pixels_HW is not None, decoded.reason
    assert decoded.pixels_HW.shape == (65, -(-columns // 8))


def test_jpeg_2000_at_a_reduced_size() -> None:
    pixels = picture(512, 400, bits=8).astype(np.uint8)
    data = compressed(J2K_LOSSY, stream_of(pixels, num_resolutions=5), pixels)
    decoded = decode(data, LIMITS, 100)
    assert decoded.pixels_HW is not None
    assert decoded.pixels_HW.shape == (128, 100)
    assert (decoded.header.rows, decoded.header.columns) == (512, 400)


@pytest.mark.parametrize("planar", [0, 1])
def test_grey_in_three_samples(planar: int) -> None:
    """50."""
    colour = np.repeat(grey8()[..., None], 3, axis=-1)
    stored = np.ascontiguousarray(np.moveaxis(colour, -1, 0)) if planar else colour
    data = dicom(colour, PlanarConfiguration=planar, PixelData=stored.tobytes())
    np.testing.assert_array_equal(pixels_of(data), grey8())


def test_native_ybr_is_its_luminance() -> None:
    grey = grey8()
    ybr = np.stack([grey, np.full_like(grey, 128), np.full_like(grey, 128)], axis=-1)
    data = dicom(ybr, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_array_equal(pixels_of(data), grey)
    pairs = np.full((*grey.shape, 2), 128, np.uint8)
    pairs.reshape(-1, 4)[:, :2] = grey.reshape(-1, 2)
    data = dicom(ybr, PhotometricInterpretation="YBR_FULL_422", PixelData=pairs.tobytes())
    np.testing.assert_array_equal(pixels_of(data), grey)


def test_a_colourful_capture_without_modality_is_no_radiograph() -> None:
    colour = np.stack([grey8(), grey8()[::-1], grey8()[:, ::-1]], axis=-1)
    data = dicom(colour, Modality=None, SOPClassUID=SECONDARY_CAPTURE)
    assert reason_of(data) is Reason.NOT_A_RADIOGRAPH
    assert reason_of(dicom(colour)) is None  # a CR states that it is one


def test_palette_colour() -> None:
    """49."""
    np.testing.assert_allclose(pixels_of(palette(256)) / 257.0, grey8(), atol=1)
    assert pixels_of(palette(128)).max() < 33_000  # an index outside gets the last entry
    short = palette(256, BluePaletteColorLookupTableData=b"\0\0")
    assert reason_of(short) is Reason.CORRUPT


# --- display (60 to 70) -------------------------------------------------------------------------


def test_a_window_clamps_and_scales() -> None:
    grey = pixels_of(dicom(picture(), WindowCenter=2048, WindowWidth=1001))
    stored = picture().astype(float)
    expected = np.clip((stored - 2047.5) / 1000 + 0.5, 0, 1) * 65535
    np.testing.assert_allclose(grey, expected, atol=0.51)


@pytest.mark.parametrize(
    ("center", "width"),
    [
        (b"2048", b"0 "),
        (b"2048", b"0.5 "),
        (b"2048", b"-300"),
        (b"nan ", b"4000"),
        (b"2048", b"inf "),
        (b"", b""),
        (b"x ", b"y "),
        (b"-9999 ", b"100 "),
        (b"127 ", b"255 "),
        (b"90000 ", b"10"),
    ],
)
def test_a_senseless_window_shows_the_full_range(center: bytes, width: bytes) -> None:
    """60, 61 and 68."""
    plain = dicom(picture())
    start = plain.index(b"\xe0\x7f\x10\x00OW")
    window = b"".join(
        b"\x28\x00" + tag + b"DS" + struct.pack("<H", len(value)) + value
        for tag, value in ((b"\x50\x10", center), (b"\x51\x10", width))
    )
    data = plain[:start] + window + plain[start:]
    np.testing.assert_array_equal(pixels_of(data), pixels_of(plain))


def test_windows_of_unequal_number_and_a_decimal_comma() -> None:
    reference = pixels_of(dicom(picture(), WindowCenter=2048.5, WindowWidth=1001))
    plain = dicom(picture())
    start = plain.index(b"\xe0\x7f\x10\x00OW")
    window = b"\x28\x00\x50\x10DS\x0c\x002048,5\\300\\1" + b"\x28\x00\x51\x10DS\x04\x001001"
    np.testing.assert_array_equal(pixels_of(plain[:start] + window + plain[start:]), reference)


@pytest.mark.parametrize("slope", ["0", "nan", "1e400", "abc", ""])
def test_a_senseless_slope_is_passed_over(slope: str) -> None:
    """63."""
    plain = dicom(picture())
    start = plain.index(b"\xe0\x7f\x10\x00OW")
    value = slope.encode() + b" " * (len(slope) % 2)
    element = b"\x28\x00\x53\x10DS" + struct.pack("<H", len(value)) + value
    data = plain[:start] + element + plain[start:]
    np.testing.assert_array_equal(pixels_of(data), pixels_of(plain))


@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("more", [{}, {"WindowCenter": 90, "WindowWidth": 40}])
def test_memory_that_may_be_written_is_used_for_the_picture(
    bits: int, more: dict[str, Any]
) -> None:
    pixels = picture(700, 600, bits).astype(np.uint8 if bits == 8 else np.uint16)
    data = dicom(pixels, **more)
    expected = pixels_of(data)
    kept, scratch = memoryview(bytearray(data)).toreadonly(), memoryview(bytearray(data))
    np.testing.assert_array_equal(pixels_of(kept), expected)
    assert kept == data
    grey = pixels_of(scratch)
    np.testing.assert_array_equal(grey, expected)
    assert np.shares_memory(grey, np.frombuffer(scratch, np.uint8))


def test_monochrome1_is_inverted_once() -> None:
    """48 and 66."""
    positive = pixels_of(dicom(picture()))
    negative = np.uint16(4095) - picture()
    for more in ({}, {"PresentationLUTShape": "INVERSE"}):
        data = dicom(negative, PhotometricInterpretation="MONOCHROME1", **more)
        assert_same_grey(pixels_of(data), positive)
    data = dicom(negative, PresentationLUTShape="INVERSE")
    assert_same_grey(pixels_of(data), positive)


def test_slope_and_intercept_move_the_window() -> None:
    reference = pixels_of(dicom(picture(), WindowCenter=2048, WindowWidth=1001))
    window: dict[str, Any] = {"WindowCenter": 3096, "WindowWidth": 2001}
    moved = dicom(picture(), RescaleSlope=2, RescaleIntercept=-1000, **window)
    np.testing.assert_allclose(pixels_of(moved), reference, atol=40)


def test_lut_sequences() -> None:
    """62 and 63: a VOI LUT that squares, and the same as a modality LUT."""
    squared = np.rint(np.linspace(0, 1, 4096) ** 2 * 65535)
    expected = (picture() / 4095.0) ** 2 * 65535
    voi = dicom(picture(), VOILUTSequence=lut_item(squared, 0), WindowCenter=1, WindowWidth=2)
    np.testing.assert_allclose(pixels_of(voi), expected, atol=2)
    modality = dicom(picture(), ModalityLUTSequence=lut_item(squared, 0))
    np.testing.assert_allclose(pixels_of(modality), expected, atol=2)


def test_sigmoid_and_exact_windows() -> None:
    """64."""
    stored = picture().astype(float)
    more: dict[str, Any] = {"WindowCenter": 2000, "WindowWidth": 1000}
    sigmoid = pixels_of(dicom(picture(), VOILUTFunction="SIGMOID", **more))
    expected = 65535 / (1 + np.exp(-4 * (stored - 2000) / 1000))
    np.testing.assert_allclose(sigmoid, expected, atol=0.51)
    exact = pixels_of(dicom(picture(), VOILUTFunction="LINEAR_EXACT", **more))
    expected = np.clip((stored - 2000) / 1000 + 0.5, 0, 1) * 65535
    np.testing.assert_allclose(exact, expected, atol=0.51)


def test_padding_is_black_and_does_not_stretch_the_range() -> None:
    """67."""
    inner = picture() // 4 + 1000
    padded = np.full((140, 120), 4095, np.uint16)
    padded[20:116, 20:100] = inner
    ds = dataset(padded)
    ds.add_new(0x00280120, "US", 4095)
    grey = pixels_of(to_bytes(ds))
    assert not grey[:20].any()
    assert_same_grey(grey[20:116, 20:100], pixels_of(dicom(inner)))


def test_pixels_that_are_not_square_are_stretched() -> None:
    """69."""
    assert pixels_of(dicom(picture(), PixelAspectRatio=[2, 1])).shape == (192, 80)
    assert pixels_of(dicom(picture(), PixelAspectRatio=[1, 2])).shape == (96, 160)
    assert pixels_of(dicom(picture(), PixelAspectRatio=[1, 1000])).shape == (96, 80)


def test_a_constant_picture_stays_constant() -> None:
    """65: `preprocess` rejects it."""
    flat = np.full((96, 80), 700, np.uint16)
    assert np.ptp(pixels_of(dicom(flat, WindowCenter=700, WindowWidth=0))) == 0


# --- PNG and JPEG (71 to 84) --------------------------------------------------------------------


def cmyk() -> bytes:
    return encoded(Image.fromarray(grey8()).convert("CMYK"), "JPEG", quality=95)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 0.99])
@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_a_cut_picture_is_never_half_grey(file_format: str, share: float) -> None:
    """81."""
    whole = encoded(grey8(), file_format)
    assert reason_of(whole[: int(len(whole) * share)]) is Reason.TRUNCATED


def test_16_bits_are_scaled_and_never_clipped() -> None:
    """71: Pillow's own conversion turns nearly all of this white."""
    ramp = np.linspace(0, 65535, 200 * 100).reshape(200, 100).astype(np.uint16)
    np.testing.assert_array_equal(pixels_of(encoded(ramp, "PNG")), ramp)
    np.testing.assert_array_equal(pixels_of(png16_colour()), picture())


def test_transparency_is_black() -> None:
    """73."""
    alpha = np.where(np.arange(80) < 40, 255, 0).astype(np.uint8)
    layers = np.stack([grey8(), np.broadcast_to(alpha, (96, 80))], axis=-1)
    grey = pixels_of(encoded(layers, "PNG"))
    np.testing.assert_array_equal(grey[:, :40], grey8()[:, :40])
    assert not grey[:, 40:].any()


def test_cmyk_is_not_inverted() -> None:
    """78."""
    np.testing.assert_allclose(pixels_of(cmyk()).astype(int), grey8().astype(int), atol=12)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    """79: against Pillow's own."""
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    for file_format in ("JPEG", "PNG"):
        data = encoded(grey8(), file_format, exif=exif)
        upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        np.testing.assert_array_equal(pixels_of(data), upright)
        header = decode(data, LIMITS).header
        assert (header.rows, header.columns) == (96, 80)


def test_jpeg_at_a_reduced_size() -> None:
    data = encoded(picture(512, 400, bits=8).astype(np.uint8), "JPEG")
    decoded = decode(data, LIMITS, 100)
    assert decoded.pixels_HW is not None
    assert decoded.pixels_HW.shape == (128, 100)
    assert decoded.header.rows == 512


def test_a_member_over_its_limit_is_too_large() -> None:
    assert reason_of(encoded(grey8(), "PNG"), Limits(member_bytes=100)) is Reason.TOO_LARGE
    assert reason_of(dicom(picture()), Limits(frame_pixels=100)) is Reason.TOO_LARGE


# --- damage that nobody listed ------------------------------------------------------------------

SEEDS = [
    dicom(picture(40, 32)),
    dicom(picture(40, 32), IMPLICIT),
    dicom(picture(40, 32), DEFLATED),
    encoded(picture(40, 32), "PNG"),
    encoded(picture(40, 32, 8).astype(np.uint8), "JPEG"),
]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.sampled_from(SEEDS),
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
)
def test_damaged_bytes_give_one_answer(
    seed: bytes, cut: float, flips: list[tuple[float, int]]
) -> None:
    data = bytearray(seed[: int(len(seed) * cut)] if cut < 0.7 else seed)
    for place, value in flips:
        if data:
            data[int(place * len(data))] = value
    decoded = decode(bytes(data), LIMITS)
    assert (decoded.pixels_HW is None) == (decoded.reason is not None)
    if decoded.pixels_HW is not None:
        assert decoded.pixels_HW.dtype in (np.uint8, np.uint16)
        assert decoded.pixels_HW.ndim == 2


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=600))
def test_any_bytes_give_one_answer(data: bytes) -> None:
    for start in (b"", bytes(128) + b"DICM", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"):
        decoded = decode(start + data, LIMITS)
        assert decoded.reason is not None
