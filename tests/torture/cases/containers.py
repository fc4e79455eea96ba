"""Classes 1 to 24: the DICOM container."""

import gzip
import struct

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from implant_model.errors import Reason
from tests.support.dicom_edits import dataset, dicom, picture, to_bytes
from tests.support.pictures import encoded
from tests.torture.cases.case import Case
from tests.torture.cases.files import (
    BIG_ENDIAN,
    DEFLATED,
    IMPLICIT,
    PIXELS,
    grey8,
    headless,
    png,
    relabelled,
    without_syntax,
)

PRIVATE_SYNTAX = b"1.2.840.113619.5.2\0\0"
EXPLICIT_SYNTAX = b"1.2.840.10008.1.2.1\0"


def nested(depth: int, *, undefined: bool) -> Dataset:
    """Sequences in sequences, so many deep."""
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


def sequence_bomb(depth: int) -> bytes:
    opening = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return bytes(128) + b"DICM" + opening * depth


def unknown_sequence(*, defined: bool) -> bytes:
    """A private sequence whose VR is written UN, of either kind of length (PS3.5 6.2.2)."""
    item = b"\x09\x00\x02\x10\x04\x00\x00\x00abcd"
    body = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(item)) + item
    end = b"" if defined else b"\xfe\xff\xdd\xe0\0\0\0\0"
    length = len(body) if defined else 0xFFFFFFFF
    element = b"\x09\x00\x01\x10UN\0\0" + struct.pack("<I", length) + body + end
    data = dicom(picture())
    start = data.index(b"\x10\x00\x10\x00PN")
    return data[:start] + element + data[start:]


def unordered() -> bytes:
    """The pixels first, their description behind them."""
    data = dicom(picture())
    start, end = data.index(b"\x28\x00\x02\x00US"), data.index(PIXELS + b"OW")
    return data[:start] + data[end:] + data[start:end]


def odd_length() -> bytes:
    data = dicom(picture())
    return data.replace(b"\x10\0\x20\0LO\x06\0PAT-17", b"\x10\0\x20\0LO\x05\0PAT-1", 1)


def twice() -> bytes:
    """An identifier that comes twice."""
    return dicom(picture()).replace(
        b"\x10\0\x20\0LO\x06\0PAT-17", b"\x10\0\x20\0LO\x06\0PAT-17" * 2, 1
    )


def with_charset(charset: str, name: bytes) -> bytes:
    """A patient's ID of these bytes in that character set."""
    data = relabelled(dicom(picture()), b"PAT-17", name)
    field = charset.encode() + b" " * (len(charset) % 2)
    element = b"\x08\x00\x05\x00CS" + struct.pack("<H", len(field)) + field
    start = data.index(b"\x08\x00\x16\x00UI")
    return data[:start] + element + data[start:]


def group_length(value: bytes) -> bytes:
    """A file that declares this length of its group 2, right or wrong."""
    data = dicom(picture())
    return data[:132] + b"\x02\x00\x00\x00UL\x04\x00" + value + data[132:]


def pixels_beyond_the_file() -> bytes:
    """The pixels' element claims more bytes than there are; all that the picture needs is there."""
    data = bytearray(dicom(picture()))
    at = bytes(data).index(PIXELS + b"OW") + 8
    data[at : at + 4] = struct.pack("<I", len(data))
    return bytes(data)


EMPTY, TRUNCATED, TOO_LARGE = Reason.EMPTY, Reason.TRUNCATED, Reason.TOO_LARGE
NON_IMAGE, NOT_AN_IMAGE = Reason.NON_IMAGE_OBJECT, Reason.NOT_AN_IMAGE
NESTED, UNSUPPORTED = Reason.NESTED_ARCHIVE, Reason.UNSUPPORTED_ENCODING

CASES = (
    Case(1, "zero bytes", lambda: b"", EMPTY),
    Case(2, "preamble only", lambda: bytes(128) + b"DICM", NON_IMAGE),
    Case(2, "preamble cut", lambda: bytes(128) + b"DIC", NOT_AN_IMAGE),
    Case(3, "no preamble", lambda: dicom(picture())[132:]),
    Case(4, "no meta", lambda: without_syntax()[132:]),
    Case(4, "no meta, big endian", lambda: headless(dicom(picture(), BIG_ENDIAN))),
    Case(4, "no meta, implicit", lambda: headless(dicom(picture(), IMPLICIT))),
    Case(5, "no transfer syntax", without_syntax),
    Case(
        6,
        "private syntax",
        lambda: relabelled(dicom(picture()), EXPLICIT_SYNTAX, PRIVATE_SYNTAX),
        UNSUPPORTED,
    ),
    Case(
        7,
        "explicit labelled implicit",
        lambda: relabelled(dicom(picture()), EXPLICIT_SYNTAX, b"1.2.840.10008.1.2\0\0\0"),
    ),
    Case(8, "big endian", lambda: dicom(picture().byteswap(), BIG_ENDIAN)),
    Case(9, "deflated", lambda: dicom(picture(), DEFLATED)),
    Case(9, "deflated, cut", lambda: dicom(picture(), DEFLATED)[:-40], TRUNCATED),
    Case(11, "cut in an element", lambda: dicom(picture())[:420], TRUNCATED),
    Case(11, "cut in the meta", lambda: dicom(picture())[:150], TRUNCATED),
    Case(
        11,
        "cut at an element",
        lambda: dicom(picture())[: dicom(picture()).index(PIXELS)],
        TRUNCATED,
    ),
    Case(
        12,
        "element longer than the file",
        lambda: relabelled(dicom(picture()), b"\x20\0LO\x06\0PAT", b"\x20\0LO\xff\xffPAT"),
        TRUNCATED,
    ),
    Case(12, "pixels claim more than the file", pixels_beyond_the_file),
    Case(
        13,
        "wrong VR of an identifier",
        lambda: relabelled(dicom(picture()), b"\x20\0LO\x06\0", b"\x20\0DS\x06\0"),
    ),
    Case(
        13,
        "wrong VR of the rows",
        lambda: relabelled(dicom(picture()), b"\x28\0\x10\0US", b"\x28\0\x10\0SS"),
    ),
    Case(14, "sequences of 32", lambda: with_nested(31, undefined=True)),
    Case(14, "sequences of 40", lambda: with_nested(40, undefined=True), TOO_LARGE),
    Case(14, "sequences of 40, lengths", lambda: with_nested(40, undefined=False), TOO_LARGE),
    Case(14, "sequences of 3000", lambda: sequence_bomb(3000), TOO_LARGE),
    Case(15, "private sequence as UN", lambda: unknown_sequence(defined=True)),
    Case(15, "UN of undefined length", lambda: unknown_sequence(defined=False)),
    Case(16, "odd length", odd_length),
    Case(16, "unordered tags", unordered),
    Case(16, "duplicate tags", twice),
    Case(17, "group length wrong", lambda: group_length(b"\x07\0\0\0")),
    Case(17, "group length of 4 GB", lambda: group_length(b"\xff\xff\xff\xff")),
    Case(17, "group length missing", lambda: dicom(picture())),
    Case(18, "unknown character set", lambda: with_charset("ISO_IR 999", b"\xc4\xd6x\xff\xfe1")),
    Case(18, "empty character set", lambda: with_charset("", b"\xc4\xd6x\xff\xfe1")),
    Case(18, "UTF-8 that is none", lambda: with_charset("ISO_IR 192", b"\xc4\xd6x\xff\xfe1")),
    Case(
        18,
        "mixed escapes",
        lambda: with_charset("ISO 2022 IR 87\\nonsense", b"\x1b$B\xff\x1b("),
    ),
    Case(19, "executable preamble", lambda: b"MZ\x90\x00" + dicom(picture())[4:]),
    Case(19, "ELF preamble", lambda: b"\x7fELF" + dicom(picture())[4:]),
    Case(19, "script preamble", lambda: b"#!/bin/sh\n" + dicom(picture())[10:]),
    Case(19, "PDF preamble", lambda: b"%PDF-1.7" + dicom(picture())[8:]),
    Case(19, "TIFF preamble", lambda: b"II*\x00" + dicom(picture())[4:]),
    Case(20, "trailing junk", lambda: dicom(picture()) + b"junk" * 99),
    Case(21, "two in one", lambda: dicom(picture()) * 2),
    Case(22, "HTML", lambda: b"<!doctype html><html><body>scan</body></html>", NOT_AN_IMAGE),
    Case(22, "PDF", lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + bytes(200), NOT_AN_IMAGE),
    Case(22, "zip", lambda: b"PK\x03\x04" + bytes(60), NESTED),
    Case(22, "PNG named dcm", lambda: png(), inside="a.dcm"),
    Case(22, "JPEG named dcm", lambda: encoded(grey8(), "JPEG"), inside="a.dcm"),
    Case(22, "DICOM named png", lambda: dicom(picture()), inside="a.png"),
    Case(22, "zeros", lambda: bytes(4096), NOT_AN_IMAGE),
    Case(23, "gzip of a DICOM", lambda: gzip.compress(dicom(picture())), NESTED),
    Case(24, "DICOM JSON", lambda: b'{"00080060": {"vr": "CS"}}', NOT_AN_IMAGE),
    Case(24, "DICOM XML", lambda: b'<?xml version="1.0"?><NativeDicomModel/>', NOT_AN_IMAGE),
)
