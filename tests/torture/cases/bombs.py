"""Bombs: a few bytes that stand for many; classes 10, 57, 58, 76, 77, 91, 92, 93 and 103."""

import gzip
import struct
import sys
import zlib

import numpy as np

from implant_model.errors import ArchiveReason, Reason
from implant_model.limits import MIB
from tests.support.archive_samples import END, RawEntry, deflated_entry, entry, header, pax, raw_zip
from tests.support.dicom_edits import dataset, dicom, picture, to_bytes
from tests.support.pictures import encoded
from tests.torture.cases.case import ArchiveCase, Case
from tests.torture.cases.files import (
    DEFLATED,
    IMPLICIT,
    J2K,
    JPEG,
    RLE,
    chunk,
    compressed,
    grey8,
    headless,
    png,
    png_of,
    stream_of,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TOO_LARGE, CORRUPT, BAD = Reason.TOO_LARGE, Reason.CORRUPT, Reason.BAD_PIXELS
UNSUPPORTED = ArchiveReason.UNSUPPORTED
GIB = 1024


def deflated_zeros(mebibytes: int) -> bytes:
    """A raw deflate stream of zeros, 1 kB for each MiB."""
    packer = zlib.compressobj(9, wbits=-15)
    unit = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return unit * mebibytes + b"\x03\x00"


def deflated_dicom(head: bytes, mebibytes: int) -> bytes:
    """A deflated DICOM file: a dataset's beginning, and then zeros without end."""
    whole = dicom(picture(), DEFLATED)
    packer = zlib.compressobj(9, wbits=-15)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    return whole[: -len(headless(whole))] + start + deflated_zeros(mebibytes)


def rle(frame: bytes, segments: int = 1, rows: int | None = None) -> bytes:
    offsets = [64] * segments + [0] * (15 - segments)
    stream = struct.pack("<16I", segments, *offsets) + frame
    more = {} if rows is None else {"Rows": rows, "Columns": rows}
    return compressed(RLE, stream, grey8(), **more)


def large_j2k(side: int) -> bytes:
    """A JPEG 2000 stream whose header claims a square of that side, and a dataset that agrees."""
    stream = bytearray(stream_of(grey8()))
    struct.pack_into(">II", stream, 8, side, side)
    struct.pack_into(">II", stream, 24, side, side)
    return compressed(J2K, bytes(stream), grey8(), Rows=side, Columns=side)


def zeros_j2k() -> bytes:
    """9 million pixels in 300 bytes."""
    zeros = np.zeros((3000, 3000), np.uint8)
    return compressed(J2K, stream_of(zeros), zeros)


def large_jpeg(side: int) -> bytes:
    """The same with a JPEG."""
    stream = bytearray(encoded(grey8(), "JPEG"))
    start = bytes(stream).index(b"\xff\xc0")
    struct.pack_into(">HH", stream, start + 5, side, side)
    return compressed(JPEG, bytes(stream), grey8(), Rows=side, Columns=side)


def png_idat_bomb() -> bytes:
    """A small picture whose data expand to 4 GB."""
    header_chunk = chunk(b"IHDR", struct.pack(">IIBBBBB", 80, 96, 8, 0, 0, 0, 0))
    data = b"\x78\xda" + deflated_zeros(4 * GIB) + bytes(4)
    return b"\x89PNG\r\n\x1a\n" + header_chunk + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def png_large() -> bytes:
    """9,999 x 9,999 zeros, honestly: 100 million pixels are within the limits."""
    side = 9_999
    lines = b"\x78\xda" + deflated_zeros(side * (side + 1) // MIB + 1) + bytes(4)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def text_bomb(kind: bytes, start: bytes) -> bytes:
    content = start + b"\x78\xda" + deflated_zeros(600) + bytes(4)
    return png_of(10, 9, extra=chunk(kind, content))


def deep_items(depth: int) -> bytes:
    """Items of a sequence in a sequence, implicit, all of undefined length."""
    opening = b"\x08\x00\x40\x11\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    whole = dicom(picture(), IMPLICIT)
    return whole[: -len(headless(whole))] + opening * depth


def long_header() -> bytes:
    ds = dataset(picture())
    ds.add_new(0x0009FFFE, "UN", bytes(70 * MIB))
    return to_bytes(ds)


def many_frames() -> bytes:
    return compressed(JPEG, encoded(grey8(), "JPEG"), grey8(), NumberOfFrames=2**31 - 1)


MEMBERS = (
    Case(10, "deflated DICOM of 600 MB", lambda: deflated_dicom(b"", 600), TOO_LARGE, heavy=True),
    Case(10, "deflated DICOM of 8 GB", lambda: deflated_dicom(b"", 8 * GIB), TOO_LARGE, heavy=True),
    Case(
        10,
        "deflated pixels of 2 GB",
        lambda: deflated_dicom(headless(dicom(picture()))[:-2], 2 * GIB),
        TOO_LARGE,
        heavy=True,
    ),
    Case(14, "items 100000 deep", lambda: deep_items(100_000), TOO_LARGE),
    Case(14, "header of 70 MB", long_header, TOO_LARGE),
    Case(51, "compressed frames of 2 billion", many_frames, TOO_LARGE),
    Case(57, "JPEG 2000 of 60000 x 60000", lambda: large_j2k(60_000), TOO_LARGE),
    Case(57, "JPEG 2000 of 16000 x 16000", lambda: large_j2k(16_000), TOO_LARGE),
    Case(57, "JPEG 2000 of 9 million zeros", zeros_j2k, BAD),
    Case(52, "JPEG of 65000 x 65000", lambda: large_jpeg(65_000), TOO_LARGE),
    Case(58, "RLE of one byte repeated", lambda: rle(b"\x81\x00" * 100_000), BAD),
    Case(58, "RLE of 10 MB for 8 kB", lambda: rle(b"\x81\x07" * 5_000_000), BAD),
    Case(58, "RLE of 65535 x 65535", lambda: rle(b"\x81\x00", rows=65_535), TOO_LARGE),
    Case(58, "RLE of 15 planes at one place", lambda: rle(b"\x81\x00" * 99, 15), CORRUPT),
    Case(76, "PNG of 4 billion pixels", lambda: png_of(2**31 - 1, 2**31 - 1), TOO_LARGE),
    Case(76, "PNG of 9500 x 12000 without data", lambda: png_of(9_500, 12_000), TOO_LARGE),
    Case(76, "PNG of 9999 x 9999 zeros", png_large, BAD, heavy=True),
    Case(76, "PNG data of 4 GB for 8 kB", png_idat_bomb, BAD),
    Case(77, "zTXt of 600 MB", lambda: text_bomb(b"zTXt", b"k\0\0"), TOO_LARGE),
    Case(77, "iTXt of 600 MB", lambda: text_bomb(b"iTXt", b"k\0\1\0\0\0"), TOO_LARGE),
    Case(77, "iCCP of 600 MB", lambda: text_bomb(b"iCCP", b"k\0\0"), TOO_LARGE),
)


def tar_bomb() -> bytes:
    """What a compressed tar begins with: one member, then one that is said to be 40 GB."""
    size = pax((b"size", b"%d" % (40 << 30)))
    return entry(png(1), b"one.png") + size + header(b"bomb.dcm", 0)


def gzip_bomb(mebibytes: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    start = packer.compress(tar_bomb()) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + deflated_zeros(mebibytes)


def zstd_bomb(mebibytes: int) -> bytes:
    return zstd.compress(tar_bomb()) + zstd.compress(bytes(MIB)) * mebibytes


def zip_of_zeros(size: int, mebibytes: int) -> bytes:
    """An entry of zeros that declares a size."""
    bomb = RawEntry(b"bomb", deflated_zeros(mebibytes), b"", method=8, size=size, crc=1)
    return raw_zip(RawEntry(b"one.png", png(1)), bomb, RawEntry(b"two.png", png(2)))


def overlapping(count: int) -> bytes:
    """So many entries of a directory that all stand for the same bytes."""
    body = zlib.compressobj(9, wbits=-15)
    kernel = RawEntry(b"x", body.compress(bytes(MIB)) + body.flush(), bytes(MIB), method=8)
    local, records = kernel.local(), kernel.record(0) * count
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, len(records), len(local), 0)
    return local + records + end


def many_small(count: int) -> bytes:
    """Entries of 8 MB each, so many that the archive's budget ends before them."""
    entries = [deflated_entry(b"%d" % i, bytes(8 * MIB)) for i in range(count)]
    return raw_zip(*entries)


ARCHIVES = (
    ArchiveCase(91, "gzip of 600 MB", lambda: gzip_bomb(600), (None, TOO_LARGE), UNSUPPORTED),
    ArchiveCase(91, "gzip of 8 GB", lambda: gzip_bomb(8 * GIB), (None, TOO_LARGE), UNSUPPORTED),
    ArchiveCase(92, "zstd of 600 MB", lambda: zstd_bomb(600), (None, TOO_LARGE), UNSUPPORTED),
    ArchiveCase(92, "zstd of 8 GB", lambda: zstd_bomb(8 * GIB), (None, TOO_LARGE), UNSUPPORTED),
    ArchiveCase(
        92,
        "gzip in gzip",
        lambda: gzip.compress(gzip_bomb(8 * GIB)),
        (),
        UNSUPPORTED,
    ),
    ArchiveCase(
        93,
        "pax header of 4 GB",
        lambda: entry(png(1), b"one.png") + header(b"pax", 4 << 30, b"x") + bytes(512),
        (None,),
        UNSUPPORTED,
    ),
    ArchiveCase(
        93,
        "member of 8 GB in a small tar",
        lambda: entry(png(1), b"one.png") + header(b"big", b"\x80" + (8 << 30).to_bytes(11, "big")),
        (None, TOO_LARGE),
        ArchiveReason.TRUNCATED,
    ),
    ArchiveCase(
        103, "zip entry of 600 MB", lambda: zip_of_zeros(600 * MIB, 600), (None, TOO_LARGE, None)
    ),
    ArchiveCase(
        103, "zip entry that hides 4 GB", lambda: zip_of_zeros(1000, 4096), (None, CORRUPT, None)
    ),
    ArchiveCase(
        103,
        "zip of overlapping entries",
        lambda: overlapping(500),
        (CORRUPT,) * 499 + (Reason.NOT_AN_IMAGE,),
    ),
    ArchiveCase(
        103,
        "zip of many members",
        lambda: many_small(12),
        (Reason.NOT_AN_IMAGE,) * 8 + (TOO_LARGE,) * 4,
    ),
    ArchiveCase(
        103,
        "zip in a zip",
        lambda: raw_zip(RawEntry(b"inner.zip", zip_of_zeros(1000, 4096))),
        (Reason.NESTED_ARCHIVE,),
    ),
    ArchiveCase(
        103,
        "tar of a gzip bomb",
        lambda: entry(gzip_bomb(600), b"inner.tar.gz") + END,
        (Reason.NESTED_ARCHIVE,),
    ),
)
