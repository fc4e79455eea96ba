"""Small files that the cases are made of, and ways to damage them."""

import struct
import zlib
from typing import Any

import numpy as np

from tests.support.dicom_edits import dataset, dicom, picture, to_bytes
from tests.support.pictures import encoded

IMPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
DEFLATED, RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"
JPEG, JPEG_EXTENDED, J2K, J2K_LOSSY = (f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 90, 91))
JPEG_LS = "1.2.840.10008.1.2.4.80"
PIXELS = b"\xe0\x7f\x10\x00"


def grey8() -> np.ndarray:
    return picture(bits=8).astype(np.uint8)


def png(seed: int = 0, rows: int = 60, columns: int = 50) -> bytes:
    """A picture that gets a prediction, another one for each seed."""
    pixels = picture(rows, columns, 8).astype(np.uint8)
    pixels[:8, :8] = np.random.default_rng(seed).integers(0, 255, (8, 8), dtype=np.uint8)
    return encoded(pixels, "PNG")


def relabelled(data: bytes, old: bytes, new: bytes) -> bytes:
    """Another value of the same length."""
    if len(old) != len(new) or old not in data:
        raise ValueError("The value to be replaced is not there, or of another length.")
    return data.replace(old, new, 1)


def with_element(data: bytes, tag: int, vr: bytes, value: bytes) -> bytes:
    """An explicit little endian file with one more element in front of its pixels."""
    value += b"\0" * (len(value) % 2)
    start = data.index(PIXELS)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    long_form = vr in (b"OB", b"OW", b"SQ", b"UN", b"UT")
    length = struct.pack("<2xI" if long_form else "<H", len(value))
    return data[:start] + head + length + value + data[start:]


def headless(data: bytes) -> bytes:
    """The dataset alone: behind the last element of group 2."""
    position = 132
    while data[position : position + 2] == b"\x02\x00":
        long_form = data[position + 4 : position + 6] == b"OB"
        size, at = ("<I", 8) if long_form else ("<H", 6)
        length = struct.unpack_from(size, data, position + at)[0]
        position += (12 if long_form else 8) + length
    return data[position:]


def without_syntax() -> bytes:
    whole = dicom(picture())
    return bytes(128) + b"DICM" + whole[whole.index(b"\x08\x00\x16\x00UI") :]


def compressed(syntax: str, frame: bytes | list[bytes], pixels: np.ndarray, **more: Any) -> bytes:
    """A DICOM file of one compressed frame."""
    return to_bytes(dataset(pixels, **more), syntax, frame)


def stream_of(pixels: np.ndarray, **options: Any) -> bytes:
    """A lossless JPEG 2000 code stream."""
    return encoded(pixels, "JPEG2000", no_jp2=True, irreversible=False, **options)


def flipped(data: bytes, place: int, bits: int = 4) -> bytes:
    damaged = bytearray(data)
    damaged[place] ^= bits
    return bytes(damaged)


def chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of a PNG."""
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
