"""A PNG whose pixels are deflated > the same PNG with its pixels stored.

Inflating takes most of the time to read a PNG, and Pillow does it by zlib: 38 ms of 59 for 2500 x
2048 pixels of 16 bits. Intel's ISA-L does it in 17, and Pillow, which knows filters, palettes and
transparency, does what is left. ISA-L takes some damaged streams for whole that zlib refuses (39 of
60,000 with a byte changed): here the stream's own check sum finds them. What is deflated without
one, or in a process that holds credentials, is inflated by zlib.
"""

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from isal import igzip_lib, isal_zlib

from implant_model.decode.markers import PngFrame, png_chunks
from implant_model.limits import MIB

CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By colour type: grey, RGB, palette, grey with alpha, RGBA."""
MOST_STORED_BYTES: Final = 64 * MIB
BLOCK_BYTES: Final = 0xFFFF
"""The longest stored block of deflate (RFC 1951, 3.2.4)."""
INPUT_BYTES: Final = 64 << 10
"""Given to ISA-L at a time: what it cannot use at once it copies."""
_BLOCK: Final = struct.Struct("<BHH")


def store_pixels(data: bytes, frame: PngFrame) -> bytes:
    """Inflates the pixels of a whole PNG.

    Args:
        data: The file.
        frame: What `png_frame` read of it; its `whole` is true.

    Returns:
        A file of the same pixels and attributes, the check sum of its IDAT chunk left 0 (Pillow
        does not read that). The file itself where it is interlaced, larger than
        `MOST_STORED_BYTES`, or in any way not as the standard wants it.
    """
    expected = _filtered_bytes(data, frame)
    span = _pixel_chunks(data)
    if not 0 < expected <= MOST_STORED_BYTES or span is None:
        return data
    start, end, deflated = span
    pieces = inflate(deflated, expected)
    if pieces is None:
        return data
    stored = list(_stored(pieces))
    head = struct.pack(">I4s", sum(map(len, stored)), b"IDAT")
    return b"".join([data[:start], head, *stored, bytes(4), data[end:]])


def _filtered_bytes(data: bytes, frame: PngFrame) -> int:
    """Bytes of all lines with their filters; 0 where it is interlaced or of no colour type."""
    colour, interlaced = data[25], data[28]
    if interlaced:
        return 0
    line = -(-frame.columns * frame.bits * CHANNELS.get(colour, 0) // 8)
    return frame.rows * (1 + line) if line else 0


def _pixel_chunks(data: bytes) -> tuple[int, int, bytes] | None:
    """Start and end of the IDAT chunks and their content; None if they do not follow each other."""
    spans = [(start, end) for kind, start, end in png_chunks(data) if kind == b"IDAT"]
    if not spans or any(one[1] != following[0] for one, following in pairwise(spans)):
        return None
    view = memoryview(data)
    return spans[0][0], spans[-1][1], b"".join(view[start + 8 : end - 4] for start, end in spans)


def inflate(data: bytes, size: int) -> list[bytes] | None:
    """Inflates a zlib stream (RFC 1950).

    Args:
        data: The stream; what follows its end is left alone.
        size: Bytes that it holds.

    Returns:
        The content in pieces of `BLOCK_BYTES`, the last one shorter and maybe empty; None where the
        stream is damaged, ends early, or holds fewer or more.
    """
    inflater = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_ZLIB)
    position, parts, missing = 0, list[bytes](), BLOCK_BYTES
    pieces: list[bytes] = []
    while not inflater.eof and len(pieces) * BLOCK_BYTES <= size:
        fresh = data[position : position + INPUT_BYTES] if inflater.needs_input else b""
        if inflater.needs_input and not fresh:
            return None
        position += len(fresh)
        try:
            part = inflater.decompress(fresh, missing)
        except igzip_lib.IsalError:  # type: ignore[misc]  # its stub has an instance
            return None
        parts.append(part)
        missing -= len(part)
        if not missing:
            pieces.append(b"".join(parts))
            parts, missing = [], BLOCK_BYTES
    pieces.append(b"".join(parts))
    return pieces if inflater.eof and sum(map(len, pieces)) == size else None


def _stored(pieces: list[bytes]) -> Iterator[bytes]:
    """A zlib stream (RFC 1950) of stored blocks."""
    yield b"\x78\x01"
    checksum = 1
    for number, piece in enumerate(pieces, 1):
        yield _BLOCK.pack(number == len(pieces), len(piece), len(piece) ^ BLOCK_BYTES)
        yield piece
        checksum = isal_zlib.adler32(piece, checksum)
    yield checksum.to_bytes(4, "big")
