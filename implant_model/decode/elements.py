"""A bounded walk over the data elements of a DICOM file (PS3.5 section 7, PS3.10 section 7).

pydicom's reader builds the whole dataset, recurses into sequences, logs values and takes an
element that the file's end cuts for a whole one. This one keeps the values of the wanted tags
alone, walks without recursion to a given depth, touches no pixel and states whether the data end
inside an element; the tests hold its values against pydicom's on every file that pydicom ships.
"""

import struct
import zlib
from dataclasses import dataclass, field

from implant_model.errors import MemberError, Reason
from implant_model.limits import Limits

LONG_VRS = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
TRANSFER_SYNTAX = 0x00020010
ROWS = 0x00280010
PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})  # float, double float, integer
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
HEAD_BYTES = 256 << 10  # hold the header of almost every file: the pixels need no copy then


@dataclass(slots=True)
class PixelElement:
    """Where the pixel data stand.

    Attributes:
        tag: 0x7FE00010, or one of the float tags.
        vr: Its value representation; None in an implicit dataset.
        start: First byte of the value.
        length: Declared length of the value in bytes; None for encapsulated frames.
    """

    tag: int
    vr: bytes | None
    start: int
    length: int | None


DEFLATED_BYTES, INFLATED_BYTES = 64 << 10, 1 << 20
"""Of a deflated dataset, what is put in and taken out at a time."""


@dataclass(slots=True)
class Elements:
    """The wanted elements of one dataset.

    Attributes:
        data: The bytes that hold the dataset (inflated, for a deflated file).
        transfer_syntax: Transfer Syntax UID of the file's meta information; None where it has none.
        little: The dataset is little endian.
        explicit: The dataset's elements carry their value representation.
        values: Value bytes by tag; of an element that occurs twice, the last.
        pixel: Where the pixel data stand; None where there are none.
        whole: False where the data end inside an element in front of the pixel data.
        count: Number of elements met.
    """

    data: bytes | memoryview
    transfer_syntax: str | None
    little: bool = True
    explicit: bool = True
    values: dict[int, bytes] = field(default_factory=dict, repr=False)
    pixel: PixelElement | None = None
    whole: bool = True
    count: int = 0


def read_file(data: bytes | memoryview, wanted: frozenset[int], limits: Limits) -> Elements:
    """Read the elements in front of the pixel data of a DICOM file, with or without preamble.

    Args:
        data: The file, whole.
        wanted: Tags whose values are kept.
        limits: Bounds: header_bytes, sequence_depth, member_bytes for what a deflated file holds.

    Raises:
        MemberError: too_large, truncated or corrupt.
    """
    if len(data) > HEAD_BYTES:
        elements = _read_head(data, wanted, limits)
        if elements is not None:
            return elements
    return _read_whole(bytes(data), wanted, limits)


def _read_head(data: bytes | memoryview, wanted: frozenset[int], limits: Limits) -> Elements | None:
    """Read the first bytes alone, where these hold all in front of the pixel data."""
    try:
        elements = _read_whole(bytes(data[:HEAD_BYTES]), wanted, limits)
    except MemberError:
        return None
    pixel = elements.pixel
    if pixel is None or elements.transfer_syntax == DEFLATED:
        return None
    if ROWS not in elements.values and pixel.length is not None:
        return None  # goes on behind the pixels
    elements.data = data
    return elements


def _read_whole(data: bytes, wanted: frozenset[int], limits: Limits) -> Elements:
    position = 132 if data[128:132] == b"DICM" else 4 * (data[:4] == b"DICM")
    syntax, position = _read_meta(data, position)
    if syntax == DEFLATED:
        data, position = _inflate(data, position, limits), 0
    position = _skip_group(data, position, 0, explicit=False)
    little = syntax != BIG_ENDIAN if syntax else not _looks_big_endian(data, position)
    elements = Elements(data, syntax, little, _has_vr(data, position))
    read_dataset(elements, position, len(data), wanted, limits)
    return elements


def read_item(
    elements: Elements, sequence: bytes, wanted: frozenset[int], limits: Limits
) -> Elements:
    """Read the first item of a sequence whose value bytes are given; empty where it has none."""
    inner = Elements(sequence, None, elements.little, elements.explicit)
    if len(sequence) >= 8:
        tag, length = _tag_length(sequence, 0, elements.little)
        end = len(sequence) if length == UNDEFINED else min(8 + length, len(sequence))
        if tag == ITEM:
            read_dataset(inner, 8, end, wanted, limits)
    return inner


def read_dataset(
    elements: Elements, position: int, end: int, wanted: frozenset[int], limits: Limits
) -> None:
    """Walk `elements.data[position:end]` up to its pixel data and fill `elements`."""
    data, first = bytes(elements.data), position
    while position + 8 <= end:
        tag, vr, length, start = _element(data, position, elements.explicit, elements.little)
        if tag == ITEM_END:
            return
        elements.count += 1
        if start - first > limits.header_bytes:
            raise MemberError(Reason.TOO_LARGE, "The header exceeds limits.header_bytes.")
        if tag in PIXEL_TAGS:
            elements.pixel = PixelElement(tag, vr, start, None if length == UNDEFINED else length)
            if ROWS in elements.values or length == UNDEFINED:
                return
        if length == UNDEFINED:
            position = skip_sequence(data, start, end, elements, limits)
        else:
            position = start + length
            if vr == b"SQ":
                _check_depth(data, start, min(position, end), elements, limits)
        if position > end:
            elements.whole = tag in PIXEL_TAGS
            return
        if tag in wanted:
            elements.values[tag] = data[start:position]
    elements.whole = position >= end or not any(data[position:end])


def skip_sequence(data: bytes, position: int, end: int, elements: Elements, limits: Limits) -> int:
    """Walk the items of a sequence of undefined length.

    Returns:
        The position behind its delimiter; past `end` where the data end before it.

    Raises:
        MemberError: corrupt where no item is, too_large where it nests too deep.
    """
    stack = ["sequence"]
    while stack:
        if position + 8 > end:
            return end + 1
        if stack[-1] == "sequence":
            tag, length = _tag_length(data, position, elements.little)
            position += 8
            if tag == SEQUENCE_END:
                stack.pop()
            elif tag != ITEM:
                raise MemberError(Reason.CORRUPT, "A sequence holds something that is no item.")
            elif length == UNDEFINED:
                stack.append("item")
            else:
                position += length
            continue
        tag, _, length, position = _element(data, position, elements.explicit, elements.little)
        if tag == ITEM_END:
            stack.pop()
        elif length == UNDEFINED:
            stack.append("sequence")
            if len(stack) > 2 * limits.sequence_depth:
                raise MemberError(Reason.TOO_LARGE, "Sequences nest over limits.sequence_depth.")
        else:
            position += length
    return position


def _check_depth(data: bytes, start: int, end: int, elements: Elements, limits: Limits) -> None:
    """Refuse sequences of known length that nest too deep; what is inconsistent is let pass.

    The walk skips such sequences by their length, so depth costs nothing here; it does elsewhere.
    """
    item = b"\xfe\xff\x00\xe0" if elements.little else b"\xff\xfe\xe0\x00"
    if data.count(item, start, end) <= limits.sequence_depth:
        return
    regions = [(start, end, 1)]
    while regions:
        position, stop, depth = regions.pop()
        if depth > limits.sequence_depth:
            raise MemberError(Reason.TOO_LARGE, "Sequences nest over limits.sequence_depth.")
        while position + 8 <= stop:
            tag, vr, length, value = _element(data, position, elements.explicit, elements.little)
            if length == UNDEFINED or value + length > stop:
                break
            if tag == ITEM:
                regions.append((value, value + length, depth))
            elif vr == b"SQ" or (vr is None and data.startswith(item, value)):
                regions.append((value, value + length, depth + 1))
            position = value + length


def _element(
    data: bytes, position: int, explicit: bool, little: bool
) -> tuple[int, bytes | None, int, int]:
    """Tag, value representation, length and start of the value of the element at `position`."""
    order = "<" if little else ">"
    group, number = struct.unpack_from(order + "HH", data, position)
    tag = group << 16 | number
    vr = data[position + 4 : position + 6]
    if explicit and group != 0xFFFE and vr.isalpha() and vr.isupper():
        if vr not in LONG_VRS:
            return tag, vr, struct.unpack_from(order + "H", data, position + 6)[0], position + 8
        if position + 12 > len(data):
            return tag, vr, len(data), position + 8
        return tag, vr, struct.unpack_from(order + "I", data, position + 8)[0], position + 12
    # Some writers switch to implicit elements within explicit ones (pydicom issues 1035, 1067).
    return tag, None, struct.unpack_from(order + "I", data, position + 4)[0], position + 8


def _tag_length(data: bytes, position: int, little: bool) -> tuple[int, int]:
    group, number, length = struct.unpack_from("<HHI" if little else ">HHI", data, position)
    return group << 16 | number, length


def _has_vr(data: bytes, position: int) -> bool:
    vr = data[position + 4 : position + 6]
    return len(vr) == 2 and vr.isalpha() and vr.isupper()


def _looks_big_endian(data: bytes, position: int) -> bool:
    """Without a transfer syntax: group 0x0008 in the other order reads 0x0800 (pydicom's rule)."""
    if position + 8 > len(data):
        return False
    return struct.unpack_from("<H", data, position)[0] >= 0x0400 and _has_vr(data, position)


def _read_meta(data: bytes, position: int) -> tuple[str | None, int]:
    """Return transfer syntax of the file meta information, and where that ends."""
    syntax = None
    while position + 8 <= len(data) and data[position : position + 2] == b"\x02\x00":
        tag, _, length, start = _element(data, position, explicit=True, little=True)
        if start + length > len(data):
            raise MemberError(Reason.TRUNCATED, "The file meta information is cut.")
        if tag == TRANSFER_SYNTAX:
            syntax = data[start : start + length].decode("ascii", "replace").strip("\0 ") or None
        position = start + length
    return syntax, position


def _skip_group(data: bytes, position: int, group: int, *, explicit: bool) -> int:
    """Skip the elements of one group (a command set that a network trace left in the file)."""
    mark = struct.pack("<H", group)
    while position + 8 <= len(data) and data[position : position + 2] == mark:
        _, _, length, start = _element(data, position, explicit, little=True)
        if start + length > len(data):
            return position
        position = start + length
    return position


def _inflate(data: bytes, position: int, limits: Limits) -> bytes:
    """Expand a deflated dataset within `limits.member_bytes`.

    Piece by piece: in one call zlib holds the result twice before its size is known.
    """
    inflater, expanded = zlib.decompressobj(-zlib.MAX_WBITS), bytearray()
    for start in range(position, len(data), DEFLATED_BYTES):
        if inflater.eof:
            break
        piece = data[start : start + DEFLATED_BYTES]
        while not inflater.eof:
            part = inflater.decompress(piece, INFLATED_BYTES)
            piece = inflater.unconsumed_tail
            expanded += part
            if len(expanded) > limits.member_bytes:
                raise MemberError(
                    Reason.TOO_LARGE, "The deflated dataset exceeds limits.member_bytes."
                )
            if not piece and len(part) < INFLATED_BYTES:
                break
    if not inflater.eof:
        raise MemberError(Reason.TRUNCATED, "The deflated dataset ends early.")
    return bytes(expanded)
