"""What the headers of PNG, JPEG, JPEG-LS and JPEG 2000 streams say, before any decoder sees them.

Bounded walks over chunk and marker lengths; no pixel is touched. Sources: PNG (ISO/IEC 15948)
chunk layout, ITU-T T.81 annex B, ITU-T T.87 annex C, ITU-T T.800 annex A.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from implant_model.content import PGM_START
from implant_model.errors import MemberError, Reason

# Start-of-frame markers: T.81 table B.1 (C4, C8 and CC are not frames) and T.87's F7.
FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
END = b"\xff\xd9"  # of an image or a codestream
_PGM = re.compile(PGM_START.pattern + rb"(?:\s+|#[^\n\r]*[\n\r])+(\d{1,10})(?=\s)")
LONE_MARKERS = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length


@dataclass(frozen=True, slots=True)
class PngFrame:
    """A PNG's IHDR, and whether the chunks go on to IEND.

    Attributes:
        rows: Height in pixels.
        columns: Width in pixels.
        bits: Bits of a sample: 1, 2, 4, 8 or 16.
        animated: It is an APNG of more than one frame.
        whole: The IEND chunk was reached.
    """

    rows: int
    columns: int
    bits: int
    animated: bool
    whole: bool


@dataclass(frozen=True, slots=True)
class PgmFrame:
    """The header of a PGM.

    Attributes:
        rows: Height in pixels.
        columns: Width in pixels.
    """

    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class JpegFrame:
    """The frame header of a JPEG or JPEG-LS stream.

    Attributes:
        rows: Height in pixels.
        columns: Width in pixels.
        bits: Bits of a sample, 2 to 16.
        components: Samples of a pixel.
        process: Second byte of the frame marker: 0xC0 baseline, 0xC3 lossless, 0xF7 JPEG-LS, ...
        adobe: The Adobe colour transform (0 none, 1 YCbCr, 2 YCCK); None without that segment.
        whole: An end-of-image marker follows the first scan.
    """

    rows: int
    columns: int
    bits: int
    components: int
    process: int
    adobe: int | None
    whole: bool


@dataclass(frozen=True, slots=True)
class J2kFrame:
    """The SIZ and COD segments of a JPEG 2000 codestream.

    Attributes:
        rows: Height of the image area.
        columns: Width of the image area.
        bits: Largest number of bits of a component.
        components: Number of components.
        signed: The first component is signed.
        tiles: Number of tiles.
        levels: Number of wavelet decompositions; 0 where no COD was found.
        start: Where the codestream starts in the data (a JP2 box may be in front).
        whole: The end-of-codestream marker closes it.
        tiles_found: Number of tiles that the stream has a part of.
    """

    rows: int
    columns: int
    bits: int
    components: int
    signed: bool
    tiles: int
    levels: int
    start: int
    whole: bool
    tiles_found: int


def png_frame(data: bytes) -> PngFrame:
    """Walk a PNG's chunks.

    Raises:
        MemberError: truncated where IHDR is cut, corrupt where another chunk is first.
    """
    if len(data) < 33:
        raise MemberError(Reason.TRUNCATED, "The PNG ends inside its IHDR chunk.")
    if data[8:16] != b"\x00\x00\x00\rIHDR":
        raise MemberError(Reason.CORRUPT, "The PNG does not start with an IHDR chunk.")
    columns, rows, bits = struct.unpack_from(">IIB", data, 16)
    animated = whole = False
    for kind, start, end in png_chunks(data):
        if kind == b"acTL" and end - start >= 16 and end <= len(data):
            animated = struct.unpack_from(">I", data, start + 8)[0] > 1
        whole = kind == b"IEND"
    return PngFrame(rows, columns, bits, animated, whole)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and declared end of each chunk after IHDR, to IEND or to where the data end."""
    position, kind = 33, b""
    while kind != b"IEND" and position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind, position, position + 12 + length
        position += 12 + length


def pgm_frame(data: bytes) -> PgmFrame:
    """Read the sides of a PGM.

    Raises:
        MemberError: truncated where its header is cut, or is of more than 4 KiB.
    """
    found = _PGM.match(data[:4096])
    if found is None:
        raise MemberError(Reason.TRUNCATED, "The PGM ends inside its header.")
    return PgmFrame(rows=int(found[2]), columns=int(found[1]))


def jpeg_frame(data: bytes) -> JpegFrame:
    """Walk a JPEG's segments to its first scan.

    Raises:
        MemberError: truncated where the data end before the first scan, corrupt where there is no
            frame or a segment is impossible.
    """
    frame: tuple[int, int, int, int, int] | None = None
    adobe: int | None = None
    for marker, start, end in _jpeg_segments(data):
        if marker in FRAME_MARKERS and end - start >= 6:
            bits, rows, columns, components = struct.unpack_from(">BHHB", data, start)
            frame = rows, columns, bits, components, marker
        elif marker == 0xEE and data[start : start + 5] == b"Adobe" and end - start >= 12:
            adobe = data[start + 11]
        elif marker == 0xDA:
            if frame is None:
                raise MemberError(Reason.CORRUPT, "The JPEG holds a scan before any frame header.")
            return JpegFrame(*frame, adobe, data.rfind(b"\xff\xd9") >= end)
    raise MemberError(Reason.TRUNCATED, "The JPEG ends before its first scan.")


def holds_one_scan(data: bytes) -> bool:
    """Return whether the first scan of a JPEG has all components, and no other follows."""
    marker, start, end = _jpeg_segments(data)[-1]
    is_whole = marker == 0xDA and data[start] == jpeg_frame(data).components
    return is_whole and data.find(b"\xff\xda", end) < 0


def has_own_size(data: bytes) -> bool:
    """Return whether a JPEG-LS stream states a size beside its frame header's (T.87 C.2.4.1.4).

    Its codec would believe that one, which nothing has held against the limits: CharLS up to 2.4.3
    takes any (GHSA-mqrg-gfc8-73ff).
    """
    return any(
        marker == 0xF8 and start < end and data[start] == 4
        for marker, start, end in _jpeg_segments(data)
    )


def _jpeg_segments(data: bytes) -> "list[tuple[int, int, int]]":
    """Return marker, start and end of the content of each segment up to the first scan's header."""
    segments, position = [], 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            raise MemberError(Reason.CORRUPT, "The JPEG holds no marker where one must stand.")
        marker = data[position + 1]
        if marker == 0xFF or marker in LONE_MARKERS:
            position += 1 if marker == 0xFF else 2
            continue
        length = struct.unpack_from(">H", data, position + 2)[0]
        if marker in (0x00, 0xD8, 0xD9) or length < 2:
            raise MemberError(Reason.CORRUPT, "The JPEG holds an impossible marker segment.")
        end = position + 2 + length
        if end > len(data):
            break
        segments.append((marker, position + 4, end))
        if marker == 0xDA:
            break
        position = end
    return segments


def j2k_frame(data: bytes) -> J2kFrame:
    """Read the main header of a JPEG 2000 codestream, raw or in a JP2 box.

    Raises:
        MemberError: corrupt where there is no codestream, truncated where its header is cut.
    """
    start = data.find(b"\xff\x4f\xff\x51", 0, 65536)
    if start < 0:
        raise MemberError(Reason.CORRUPT, "The data hold no JPEG 2000 codestream.")
    if len(data) < start + 45:
        raise MemberError(Reason.TRUNCATED, "The JPEG 2000 main header is cut.")
    size = struct.unpack_from(">IIIIIIIIH", data, start + 8)
    right, bottom, left, top, tile_x, tile_y, tile_left, tile_top, components = size
    depths = [data[start + 42 + 3 * i] for i in range(components) if start + 42 + 3 * i < len(data)]
    if not tile_x or not tile_y or not depths:
        raise MemberError(Reason.CORRUPT, "The JPEG 2000 size segment is impossible.")
    tiles = -((tile_left - right) // tile_x) * -((tile_top - bottom) // tile_y)
    return J2kFrame(
        rows=bottom - top,
        columns=right - left,
        bits=max(depth & 0x7F for depth in depths) + 1,
        components=components,
        signed=bool(depths[0] & 0x80),
        tiles=tiles,
        levels=_j2k_levels(data, start + 4 + struct.unpack_from(">H", data, start + 4)[0]),
        start=start,
        whole=data.rfind(b"\xff\xd9", max(start, len(data) - 64)) >= 0,
        tiles_found=len(set(_j2k_tile_parts(data, start + 2))),
    )


def _j2k_tile_parts(data: bytes, position: int) -> Iterator[int]:
    """Tile of each tile-part from the main header's first segment on (T.800 A.4.2: Isot, Psot)."""
    while data[position : position + 2] not in (b"\xff\x90", b"") and position + 4 <= len(data):
        position += 2 + max(2, struct.unpack_from(">H", data, position + 2)[0])
    while data[position : position + 2] == b"\xff\x90" and position + 10 <= len(data):
        tile, num_bytes = struct.unpack_from(">HI", data, position + 4)
        yield tile
        if num_bytes < 14:  # 0: it is the last, and ends with the stream
            return
        position += num_bytes


def _j2k_levels(data: bytes, position: int) -> int:
    """Decomposition levels of the COD segment, the least of any COC; 0 where there is none."""
    levels: list[int] = []
    while position + 14 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0x52:
            levels.append(data[position + 9])
        elif marker == 0x53:
            return 0  # components differ: no reduced decode
        elif marker in (0x90, 0x93):
            break
        position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    return min(levels, default=0)
