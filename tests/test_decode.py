"""Decoding: one generator for each class of bad input, and the files that pydicom ships."""

import io
import logging
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jpeg_ls
import numpy as np
import pydicom
import pydicom.data
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array
from pydicom.sequence import Sequence

from implant_model import decode_dicom
from implant_model.decode import Decoded, decode
from implant_model.decode_elements import read_file
from implant_model.errors import MemberError, Reason
from implant_model.limits import MIB, Limits
from tests.dicom_files import SECONDARY_CAPTURE, dataset, dicom, picture, to_bytes

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


def pixels_of(data: bytes) -> np.ndarray:
    decoded = decode(data, LIMITS)
    assert decoded.reason is None
    assert decoded.pixels_HW is not None
    return decoded.pixels_HW


def encoded(pixels: np.ndarray, file_format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, file_format, **options)
    return out.getvalue()


def grey8() -> np.ndarray:
    return picture(bits=8).astype(np.uint8)


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
        if not decode_dicom.looks_like_dicom(data):
            continue
        source = decode_dicom.DicomSource(data, LIMITS)
        try:
            fmt = decode_dicom._pixel_format(source._attributes)
            source._check_format(fmt)
            stored = source._stored(fmt, None)
        except MemberError:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = pydicom.dcmread(path, force=True)
            if path.name == "badVR.dcm":  # pydicom cannot read its number of frames
                continue
            reference = pixel_array(ds)
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
        if not decode_dicom.looks_like_dicom(data):
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


def nested(depth: int, *, undefined: bool) -> Dataset:
    inner = Dataset()
    inner.PatientComments = "x"
    for _ in range(depth):
        outer = Dataset()
        outer.add_new(0x00081140, "SQ", Sequence([inner]))
        outer[0x00081140].is_undefined_length = undefined
        inner.is_undefined_length_sequence_item = undefined
        inner = outer
    return inner


def with_nested(depth: int, *, undefined: bool) -> bytes:
    ds = dataset(picture())
    ds.update(nested(depth, undefined=undefined))
    return to_bytes(ds)


def deflate_bomb() -> bytes:
    whole = dicom(picture(), DEFLATED)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packer.compress(bytes(64 * MIB)) + packer.flush()
    return whole[: -len(headless(whole))] + body


def without_syntax() -> bytes:
    whole = dicom(picture())
    return bytes(128) + b"DICM" + whole[whole.index(b"\x08\x00\x16\x00UI") :]


def relabelled(data: bytes, old: bytes, new: bytes) -> bytes:
    assert len(old) == len(new)
    assert old in data
    return data.replace(old, new, 1)


def implicit_label_on_explicit() -> bytes:
    return relabelled(dicom(picture()), b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0")


CONTAINERS: dict[str, tuple[Callable[[], bytes], Reason | None]] = {
    "1 zero bytes": (lambda: b"", Reason.EMPTY),
    "2 preamble only": (lambda: bytes(128) + b"DICM", Reason.NON_IMAGE_OBJECT),
    "3 no preamble": (lambda: dicom(picture())[132:], None),
    "4 no meta": (lambda: without_syntax()[132:], None),
    "4 no meta, big endian": (lambda: headless(dicom(picture(), BIG_ENDIAN)), None),
    "4 no meta, implicit": (lambda: headless(dicom(picture(), IMPLICIT)), None),
    "5 no transfer syntax": (without_syntax, None),
    "6 private syntax": (
        lambda: relabelled(dicom(picture()), b"1.2.840.10008.1.2.1\0", b"1.2.840.113619.5.2\0\0"),
        Reason.UNSUPPORTED_ENCODING,
    ),
    "7 explicit labelled implicit": (implicit_label_on_explicit, None),
    "8 big endian": (lambda: dicom(picture().byteswap(), BIG_ENDIAN), None),
    "9 deflated": (lambda: dicom(picture(), DEFLATED), None),
    "9 deflated, cut": (lambda: dicom(picture(), DEFLATED)[:-40], Reason.TRUNCATED),
    "11 cut in an element": (lambda: dicom(picture())[:420], Reason.TRUNCATED),
    "11 cut in the meta": (lambda: dicom(picture())[:150], Reason.TRUNCATED),
    "11 cut at an element": (
        lambda: dicom(picture())[: dicom(picture()).index(b"\xe0\x7f\x10\x00")],
        Reason.TRUNCATED,
    ),
    "12 element longer than the file": (
        lambda: relabelled(dicom(picture()), b"\x20\0LO\x06\0PAT", b"\x20\0LO\xff\xffPAT"),
        Reason.TRUNCATED,
    ),
    "14 sequences of 32": (lambda: with_nested(31, undefined=True), None),
    "14 sequences of 40": (lambda: with_nested(40, undefined=True), Reason.TOO_LARGE),
    "14 sequences of 40, lengths": (lambda: with_nested(40, undefined=False), Reason.TOO_LARGE),
    "14 sequences of 3000": (lambda: sequence_bomb(3000), Reason.TOO_LARGE),
    "19 executable preamble": (lambda: b"MZ\x90\x00" + dicom(picture())[4:], None),
    "19 TIFF preamble": (lambda: b"II*\x00" + dicom(picture())[4:], None),
    "20 trailing junk": (lambda: dicom(picture()) + b"junk" * 99, None),
    "21 two in one": (lambda: dicom(picture()) * 2, None),
    "22 HTML": (lambda: b"<!doctype html><html><body>scan</body></html>", Reason.NOT_AN_IMAGE),
    "22 PDF": (lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + bytes(200), Reason.NOT_AN_IMAGE),
    "22 zip": (lambda: b"PK\x03\x04" + bytes(60), Reason.NESTED_ARCHIVE),
    "23 gzip": (lambda: b"\x1f\x8b\x08" + bytes(60), Reason.NESTED_ARCHIVE),
    "24 DICOM JSON": (lambda: b'{"00080060": {"vr": "CS"}}', Reason.NOT_AN_IMAGE),
    "24 DICOM XML": (lambda: b'<?xml version="1.0"?><NativeDicomModel/>', Reason.NOT_AN_IMAGE),
    "zeros": (lambda: bytes(4096), Reason.NOT_AN_IMAGE),
}  # fmt: skip


def headless(data: bytes) -> bytes:
    """The dataset alone: behind the last element of group 2."""
    position = 132
    while data[position : position + 2] == b"\x02\x00":
        long_form = data[position + 4 : position + 6] == b"OB"
        size, at = ("<I", 8) if long_form else ("<H", 6)
        length = struct.unpack_from(size, data, position + at)[0]
        position += (12 if long_form else 8) + length
    return data[position:]


def sequence_bomb(depth: int) -> bytes:
    opening = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return bytes(128) + b"DICM" + opening * depth


@pytest.mark.parametrize("name", CONTAINERS)
def test_container(name: str) -> None:
    make, reason = CONTAINERS[name]
    assert reason_of(make()) is reason


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


def stream_of(pixels: np.ndarray, **options: Any) -> bytes:
    return encoded(pixels, "JPEG2000", no_jp2=True, irreversible=False, **options)


def compressed(syntax: str, frame: bytes | list[bytes], pixels: np.ndarray, **more: Any) -> bytes:
    return to_bytes(dataset(pixels, **more), syntax, frame)


def rle_bomb() -> bytes:
    frame = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00" * 100_000
    return compressed(RLE, frame, grey8())


def lying_j2k() -> bytes:
    stream = bytearray(stream_of(grey8()))
    struct.pack_into(">I", stream, 8, 60_000)
    return compressed(J2K, bytes(stream), grey8())


DESCRIPTIONS: dict[str, tuple[Callable[[], bytes], Reason | None]] = {
    "40 no rows": (lambda: dicom(picture(), Rows=None), Reason.CORRUPT),
    "40 rows 0": (lambda: dicom(picture(), Rows=0), Reason.CORRUPT),
    "40 rows 1": (lambda: dicom(picture(), Rows=1), None),
    "40 rows 65535": (lambda: dicom(picture(), Rows=65535), Reason.TRUNCATED),
    "40 rows and columns 65535": (
        lambda: dicom(picture(), Rows=65535, Columns=65535), Reason.TOO_LARGE),
    "41 too short": (lambda: dicom(picture(), PixelData=bytes(96 * 80 * 2 - 2)), Reason.TRUNCATED),
    "41 too long": (lambda: dicom(picture(), PixelData=picture().tobytes() + b"12"), None),
    "41 file cut": (lambda: dicom(picture())[:-100], Reason.TRUNCATED),
    "42 bits 12": (lambda: dicom(picture(), BitsAllocated=12), Reason.UNSUPPORTED_ENCODING),
    "42 bits 1": (lambda: dicom(picture(), BitsAllocated=1), Reason.UNSUPPORTED_ENCODING),
    "42 bits 64": (lambda: dicom(picture(), BitsAllocated=64), Reason.UNSUPPORTED_ENCODING),
    "42 bits 32": (lambda: dicom(picture().astype(np.uint32), BitsStored=32, HighBit=31), None),
    "43 stored over allocated": (lambda: dicom(picture(), BitsStored=20, HighBit=19), None),
    "43 stored 0": (lambda: dicom(picture(), BitsStored=0), None),
    "44 high bit": (lambda: dicom(picture(), HighBit=15), None),
    "50 unknown colours": (
        lambda: dicom(picture(), PhotometricInterpretation="ARGB"), Reason.UNSUPPORTED_ENCODING),
    "50 no colours": (lambda: dicom(picture(), PhotometricInterpretation=None), None),
    "50 grey of 3 samples": (lambda: dicom(picture(), SamplesPerPixel=3), Reason.CORRUPT),
    "51 two frames": (
        lambda: dicom(picture(), NumberOfFrames=2, PixelData=picture().tobytes() * 2),
        Reason.MULTI_FRAME),
    "51 1e9 frames": (lambda: dicom(picture(), NumberOfFrames=10**9), Reason.TOO_LARGE),
    "51 frames 1": (lambda: dicom(picture(), NumberOfFrames=1), None),
    "51 frames 0": (lambda: dicom(picture(), NumberOfFrames=0), None),
    "52 JPEG of another size": (
        lambda: compressed(JPEG, encoded(grey8()[:50], "JPEG"), grey8()), Reason.CORRUPT),
    "53 fragments": (
        lambda: compressed(J2K, [stream_of(grey8())], grey8()), None),
    "53 no fragment": (lambda: no_fragment(), Reason.CORRUPT),
    "53 cut in a fragment": (
        lambda: compressed(J2K, stream_of(grey8()), grey8())[:-300], Reason.TRUNCATED),
    "54 PNG in a JPEG syntax": (
        lambda: compressed(JPEG, encoded(grey8(), "PNG"), grey8()), Reason.UNSUPPORTED_ENCODING),
    "54 JPEG 2000 in a JPEG syntax": (lambda: compressed(JPEG, stream_of(grey8()), grey8()), None),
    "56 JPEG XL": (
        lambda: relabelled(
            compressed("1.2.840.10008.1.2.4.201", b"\xff\x0a" + bytes(50), grey8()),
            b"2.4.201", b"2.4.110"),
        Reason.UNSUPPORTED_ENCODING),
    "37 video": (
        lambda: compressed("1.2.840.10008.1.2.4.102", bytes(60), grey8()),
        Reason.NON_IMAGE_OBJECT),
    "57 absurd J2K": (lying_j2k, Reason.CORRUPT),
    "57 J2K cut": (
        lambda: compressed(J2K, stream_of(grey8())[:-400], grey8()), Reason.TRUNCATED),
    "58 RLE bomb": (rle_bomb, None),
    "58 RLE short": (
        lambda: compressed(RLE, struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00", grey8()),
        Reason.TRUNCATED),
    "58 RLE planes": (
        lambda: compressed(RLE, struct.pack("<16I", 3, 64, *[0] * 14) + bytes(64), grey8()),
        Reason.CORRUPT),
    "59 float pixels": (lambda: float_pixels(), Reason.UNSUPPORTED_ENCODING),
    "JPEG syntax, native pixels": (
        lambda: relabelled(dicom(picture()), b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0"),
        Reason.CORRUPT),
}  # fmt: skip


def no_fragment() -> bytes:
    data = compressed(J2K, stream_of(grey8()), grey8())
    start = data.index(b"\xe0\x7f\x10\x00OB") + 12
    return data[:start] + b"\xfe\xff\x00\xe0" + bytes(4) + b"\xfe\xff\xdd\xe0" + bytes(4)


def float_pixels() -> bytes:
    ds = dataset(picture(), PixelData=None)
    ds.add_new(0x7FE00008, "OF", picture().astype("<f4").tobytes())
    return to_bytes(ds)


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_pixel_description(name: str) -> None:
    make, reason = DESCRIPTIONS[name]
    assert reason_of(make()) is reason


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


def test_signed_pixels() -> None:
    signed = picture().astype(np.int16) - np.int16(2048)
    np.testing.assert_array_equal(pixels_of(dicom(signed)), pixels_of(dicom(picture())))


def test_signed_pixels_of_12_bits_extend_their_sign() -> None:
    signed = (picture().astype(np.int16) - np.int16(2048)) & np.int16(0x0FFF)
    np.testing.assert_array_equal(pixels_of(dicom(signed)), pixels_of(dicom(picture())))


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
    assert reason_of(dicom(colour)) is None  # a CR says that it is one


def palette(entries: int, **more: Any) -> bytes:
    ramp = np.linspace(0, 65535, 256).astype("<u2")[:entries]
    luts = {f"{c}PaletteColorLookupTableData": ramp.tobytes() for c in ("Red", "Green", "Blue")}
    shape = {
        f"{c}PaletteColorLookupTableDescriptor": [entries, 0, 16] for c in ("Red", "Green", "Blue")
    }
    return dicom(grey8(), PhotometricInterpretation="PALETTE COLOR", **(luts | shape | more))


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


def test_monochrome1_is_inverted_once() -> None:
    """48 and 66."""
    positive = pixels_of(dicom(picture()))
    negative = np.uint16(4095) - picture()
    for more in ({}, {"PresentationLUTShape": "INVERSE"}):
        data = dicom(negative, PhotometricInterpretation="MONOCHROME1", **more)
        np.testing.assert_array_equal(pixels_of(data), positive)
    data = dicom(negative, PresentationLUTShape="INVERSE")
    np.testing.assert_array_equal(pixels_of(data), positive)


def test_slope_and_intercept_move_the_window() -> None:
    reference = pixels_of(dicom(picture(), WindowCenter=2048, WindowWidth=1001))
    window: dict[str, Any] = {"WindowCenter": 3096, "WindowWidth": 2001}
    moved = dicom(picture(), RescaleSlope=2, RescaleIntercept=-1000, **window)
    np.testing.assert_allclose(pixels_of(moved), reference, atol=40)


def lut_item(entries: np.ndarray, first: int) -> Sequence:
    item = Dataset()
    item.add_new(0x00283002, "US", [len(entries), first, 16])
    item.add_new(0x00283006, "OW", entries.astype("<u2").tobytes())
    return Sequence([item])


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
    np.testing.assert_array_equal(grey[20:116, 20:100], pixels_of(dicom(inner)))


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


def chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def png_of(width: int, height: int, bits: int = 8, colour: int = 0, extra: bytes = b"") -> bytes:
    """A PNG of zeros that is honest about nothing but its header."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + header + extra + body + chunk(b"IEND", b"")


def png16_colour() -> bytes:
    """A 16-bit RGB PNG of the 12-bit picture, written by hand: Pillow has no such mode."""
    values = np.repeat(picture().astype(">u2")[..., None], 3, axis=-1)
    lines = b"".join(b"\0" + line.tobytes() for line in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 80, 96, 16, 2, 0, 0, 0))
    end = chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(lines)) + end


def apng() -> bytes:
    first, second = Image.fromarray(grey8()), Image.fromarray(grey8()[::-1])
    out = io.BytesIO()
    first.save(out, "PNG", save_all=True, append_images=[second])
    return out.getvalue()


def palette_png() -> bytes:
    image = Image.fromarray(grey8()).convert("P")
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


TEXT_BOMB = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(80 * MIB), 9))
RASTERS: dict[str, tuple[Callable[[], bytes], Reason | None]] = {
    "71 PNG 16 bit": (lambda: encoded(picture(), "PNG"), None),
    "72 PNG 1 bit": (lambda: encoded(grey8() > 100, "PNG"), None),
    "72 PNG palette": (palette_png, None),
    "74 PNG bit flip": (lambda: flipped(encoded(grey8(), "PNG"), 300), Reason.CORRUPT),
    "75 APNG": (apng, Reason.MULTI_FRAME),
    "76 PNG bomb": (lambda: png_of(14_000, 14_000), Reason.TOO_LARGE),
    "76 PNG bomb of 2e9": (lambda: png_of(2**31 - 1, 2**31 - 1), Reason.TOO_LARGE),
    "76 PNG empty": (lambda: png_of(0, 10), Reason.CORRUPT),
    "77 text bomb": (lambda: png_of(10, 9, extra=TEXT_BOMB), Reason.TOO_LARGE),
    "78 CMYK": (lambda: cmyk(), None),
    "80 progressive": (lambda: encoded(grey8(), "JPEG", progressive=True), None),
    "80 JPEG 12 bit": (lambda: other_sof(b"\xff\xc0", 12), Reason.UNSUPPORTED_ENCODING),
    "80 JPEG lossless": (lambda: other_sof(b"\xff\xc3", 8), Reason.UNSUPPORTED_ENCODING),
    "81 PNG without end": (lambda: encoded(grey8(), "PNG")[:-12], Reason.TRUNCATED),
    "82 TIFF": (lambda: encoded(grey8(), "TIFF"), Reason.UNSUPPORTED_ENCODING),
    "82 BMP": (lambda: encoded(grey8(), "BMP"), Reason.UNSUPPORTED_ENCODING),
    "82 GIF": (lambda: encoded(grey8(), "GIF"), Reason.UNSUPPORTED_ENCODING),
    "82 WebP": (lambda: encoded(grey8(), "WEBP"), Reason.UNSUPPORTED_ENCODING),
    "82 JP2": (lambda: encoded(grey8(), "JPEG2000"), Reason.UNSUPPORTED_ENCODING),
    "82 MPO": (lambda: mpo(), None),
    "83 SVG": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', Reason.NOT_AN_IMAGE),
}


def flipped(data: bytes, place: int) -> bytes:
    damaged = bytearray(data)
    damaged[place] ^= 4
    return bytes(damaged)


def other_sof(marker: bytes, bits: int) -> bytes:
    data = bytearray(encoded(grey8(), "JPEG"))
    start = data.index(b"\xff\xc0")
    data[start : start + 2] = marker
    data[start + 4] = bits
    return bytes(data)


def cmyk() -> bytes:
    out = io.BytesIO()
    Image.fromarray(grey8()).convert("CMYK").save(out, "JPEG", quality=95)
    return out.getvalue()


def mpo() -> bytes:
    out = io.BytesIO()
    first, second = Image.fromarray(grey8()), Image.fromarray(grey8()[::-1])
    first.save(out, "MPO", save_all=True, append_images=[second], quality=95)
    return out.getvalue()


@pytest.mark.parametrize("name", RASTERS)
def test_raster(name: str) -> None:
    make, reason = RASTERS[name]
    assert reason_of(make()) is reason


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
