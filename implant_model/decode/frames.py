"""Pixel data of one DICOM frame > stored values (PS3.5 section 8 and annexes A and G).

Native and RLE pixel data, and the fragments of compressed ones; `decode_codecs` takes those from
there. Every size is checked before a pixel is touched.
"""

import struct
from dataclasses import dataclass
from typing import cast

import numpy as np
from rle.rle import decode_frame

from implant_model.decode.display import ends_of
from implant_model.decode.elements import ITEM, SEQUENCE_END, UNDEFINED
from implant_model.errors import MemberError, Reason


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """The image pixel description (PS3.3 C.7.6.3).

    Attributes:
        rows: Height in pixels.
        columns: Width in pixels.
        samples: Samples of a pixel, 1 or 3.
        photometric: Photometric Interpretation, upper case.
        planar: Samples are stored plane by plane.
        allocated: Bits of a stored sample: 8, 16 or 32.
        stored: Bits of it that hold the value.
        high_bit: Position of the value's highest bit.
        signed: Values are two's complement.
        little: Native samples are little endian.
    """

    rows: int
    columns: int
    samples: int
    photometric: str
    planar: bool
    allocated: int
    stored: int
    high_bit: int
    signed: bool
    little: bool

    @property
    def frame_bytes(self) -> int:
        """Return bytes of one native frame; YBR_FULL_422 shares its colours among two pixels."""
        samples = 2 if self.photometric == "YBR_FULL_422" else self.samples
        return self.rows * self.columns * samples * (self.allocated // 8)


@dataclass(frozen=True, slots=True)
class Stored:
    """Stored values of a frame.

    Attributes:
        values: (rows, columns) or (rows, columns, 3).
        ends: The least and the greatest of them, where they were looked for on the way; of one
            sample a pixel only.
    """

    values: np.ndarray
    ends: tuple[int, int] | None = None


def native(data: memoryview, fmt: PixelFormat) -> Stored:
    """Return stored values of a native frame.

    Args:
        data: The pixel data's value, or as much of it as there is.
        fmt: Its description.

    Returns:
        Values of the allocated type. Only the luminance of YBR_FULL_422 is returned.

    Raises:
        MemberError: truncated where there are fewer bytes than the description asks for.
    """
    if len(data) < fmt.frame_bytes:
        raise MemberError(Reason.TRUNCATED, "The pixel data are shorter than rows x columns.")
    order = "<" if fmt.little else ">"
    kind = np.dtype(f"{order}u{fmt.allocated // 8}")
    flat = np.frombuffer(data, kind, fmt.frame_bytes // kind.itemsize)
    values: np.ndarray
    if fmt.photometric == "YBR_FULL_422":
        values = flat.reshape(-1, 4)[:, :2].reshape(fmt.rows, fmt.columns)
    elif fmt.samples == 1:
        values = flat.reshape(fmt.rows, fmt.columns)
    elif fmt.planar:
        values = flat.reshape(fmt.samples, fmt.rows, fmt.columns).transpose(1, 2, 0)
    else:
        values = flat.reshape(fmt.rows, fmt.columns, fmt.samples)
    return stored_values(values.astype(kind.newbyteorder("="), copy=False), fmt)


def swapped_words(data: bytes | memoryview) -> bytes:
    """Bytes in their order out of the 16-bit words of a big-endian OW (PS3.5 section 8.1.1)."""
    return np.frombuffer(data, np.uint16, len(data) // 2).byteswap().tobytes()


def stored_values(samples: np.ndarray, fmt: PixelFormat) -> Stored:
    """Mask what is outside of Bits Stored (overlays, junk) and extend the sign."""
    bits = 8 * samples.itemsize
    stored = fmt.stored if 0 < fmt.stored < bits else bits
    ends = None
    if stored < bits:
        least, greatest = ends_of(samples)
        over = greatest >> stored
        shift = fmt.high_bit + 1 - stored
        if over and 0 < shift <= bits - stored:
            samples = samples >> samples.dtype.type(shift)
        if over:
            samples = samples & samples.dtype.type((1 << stored) - 1)
        elif samples.ndim == 2:
            ends = least, greatest
    if not fmt.signed:
        return Stored(samples, ends)
    gap = bits - stored
    kind = np.dtype(f"i{samples.itemsize}").type
    raised = (samples << samples.dtype.type(gap)) if gap else samples
    return Stored(cast(np.ndarray, raised.view(kind) >> kind(gap)))


def encapsulated(data: bytes | memoryview, position: int) -> bytes:
    """Join the fragments of the one frame of encapsulated pixel data (PS3.5 A.4).

    The offset table is skipped: it is wrong in many files, and one frame needs none. A fragment is
    taken by its length, so that a delimiter among its bytes ends nothing.

    Raises:
        MemberError: truncated where the data end inside a fragment, corrupt where there is none.
    """
    fragments: list[bytes] = []
    items, ended = 0, False
    while position + 8 <= len(data):
        group, number, length = struct.unpack_from("<HHI", data, position)
        tag, position = group << 16 | number, position + 8
        if tag != ITEM or length == UNDEFINED:
            if tag != SEQUENCE_END and not fragments:
                raise MemberError(Reason.CORRUPT, "The pixel data hold something that is no item.")
            ended = True
            break
        if position + length > len(data):
            raise MemberError(Reason.TRUNCATED, "The file ends inside a fragment of pixel data.")
        items += 1
        if items > 1:
            fragments.append(bytes(data[position : position + length]))
        position += length
    if not any(fragments):
        reason = Reason.CORRUPT if ended else Reason.TRUNCATED
        raise MemberError(reason, "The pixel data hold no fragment.")
    return fragments[0] if len(fragments) == 1 else b"".join(fragments)


def rle(stream: bytes, fmt: PixelFormat) -> Stored:
    """Return stored values of an RLE frame (PS3.5 annex G).

    Raises:
        MemberError: corrupt or truncated.
    """
    flat = decode_rle(stream, fmt.rows * fmt.columns, fmt.samples, fmt.allocated // 8)
    values = flat.reshape(fmt.samples, fmt.rows, fmt.columns)
    return stored_values(values[0] if fmt.samples == 1 else np.moveaxis(values, 0, -1), fmt)


LARGEST_SEGMENT_COUNT = 15  # PS3.5 G.5


def decode_rle(stream: bytes, num_pixels: int, samples: int, size: int) -> np.ndarray:
    """Decode an RLE frame.

    Args:
        stream: The frame, with its header of 64 bytes.
        num_pixels: Rows x columns.
        samples: Samples of a pixel.
        size: Bytes of a sample.

    Returns:
        Unsigned samples of shape (samples, num_pixels).

    Raises:
        MemberError: truncated where the stream ends early, corrupt where its header or a segment
            contradicts the pixel description.
    """
    try:
        raw = decode_frame(stream, num_pixels, 8 * size, "<")
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # of Rust, a panic too: whatever it states, the loop finds the reason
        planes = decode_planes(stream, num_pixels, samples * size)
        joined = np.moveaxis(planes.reshape(samples, size, num_pixels), 1, -1)
        big_endian = np.ascontiguousarray(joined).view(f">u{size}")[..., 0]
        return big_endian.astype(f"u{size}")
    values = np.frombuffer(raw, f"<u{size}")
    if len(values) != samples * num_pixels:
        raise MemberError(Reason.CORRUPT, "The RLE frame has another number of byte planes.")
    return values.reshape(samples, num_pixels)


def decode_planes(stream: bytes, plane_bytes: int, num_planes: int) -> np.ndarray:
    """Decode the byte planes of an RLE frame.

    Args:
        stream: The frame, with its header of 64 bytes.
        plane_bytes: Bytes of one plane (rows x columns).
        num_planes: Planes that the pixel description asks for.

    Returns:
        uint8 of shape (num_planes, plane_bytes), most significant byte of a sample first.

    Raises:
        MemberError: truncated where the stream ends early, corrupt where its header or a segment
            contradicts the pixel description.
    """
    if len(stream) < 64:
        raise MemberError(Reason.TRUNCATED, "The RLE frame ends inside its header.")
    count, *offsets = struct.unpack_from("<16I", stream)
    if count != num_planes or count > LARGEST_SEGMENT_COUNT:
        raise MemberError(Reason.CORRUPT, "The RLE frame has another number of byte planes.")
    ends = [*offsets[1:count], len(stream)]
    planes = np.empty((count, plane_bytes), np.uint8)
    for plane, start, end in zip(planes, offsets, ends, strict=False):
        if start < 64 or start > end:
            raise MemberError(Reason.CORRUPT, "The RLE frame's offsets are out of order.")
        if end > len(stream):
            raise MemberError(Reason.TRUNCATED, "The RLE frame ends before its last segment.")
        plane[:] = np.frombuffer(_unpack(stream, start, end, plane_bytes), np.uint8)
    return planes


def _unpack(stream: bytes, position: int, end: int, size: int) -> bytearray:
    """Expand one PackBits segment to exactly `size` bytes."""
    unpacked = bytearray()
    while len(unpacked) < size and position + 1 < end:
        control = stream[position]
        if control < 128:
            stop = position + 2 + control
            unpacked += stream[position + 1 : min(stop, end)]
            position = stop
        else:
            if control > 128:
                unpacked += stream[position + 1 : position + 2] * (257 - control)
            position += 2 if control > 128 else 1
    if len(unpacked) < size:
        raise MemberError(Reason.TRUNCATED, "An RLE segment ends before its plane is full.")
    del unpacked[size:]
    return unpacked
