"""RLE frames of DICOM (PS3.5 annex G): PackBits in one segment a byte plane.

Whole frames are read by pylibjpeg-rle (Rust; 13 ms for 2500 x 2048 of 16 bits, the loop here takes
240). What it refuses is read again here, which tells what is wrong, and takes a segment that goes
on behind its plane. The output of both is bounded by the size of the picture.
"""

import struct

import numpy as np
from rle.rle import decode_frame

from implant_model.errors import MemberError, Reason

LARGEST_SEGMENT_COUNT = 15  # PS3.5 G.5


def decode_rle(stream: bytes, num_pixels: int, samples: int, size: int) -> np.ndarray:
    """Decodes an RLE frame.

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
    except Exception:  # of Rust: whatever it says, the loop below finds the reason
        planes = decode_planes(stream, num_pixels, samples * size)
        joined = np.moveaxis(planes.reshape(samples, size, num_pixels), 1, -1)
        big_endian = np.ascontiguousarray(joined).view(f">u{size}")[..., 0]
        return big_endian.astype(f"u{size}")
    values = np.frombuffer(raw, f"<u{size}")
    if len(values) != samples * num_pixels:
        raise MemberError(Reason.CORRUPT, "The RLE frame has another number of byte planes.")
    return values.reshape(samples, num_pixels)


def decode_planes(stream: bytes, plane_bytes: int, num_planes: int) -> np.ndarray:
    """Decodes the byte planes of an RLE frame.

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
    """Expands one PackBits segment to exactly `size` bytes."""
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
