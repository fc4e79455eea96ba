"""The central directory of a zip: found from the end, parsed record by record.

Source: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3.12 (central directory), 4.3.14 and 4.3.15 (zip64
end records), 4.3.16 (end record), 4.5.3 (zip64 extra field), 4.6.9 (Unicode path extra field).

Python's `zipfile` is not used: it gives up the whole archive for one record that it does not
understand, takes any end record for the right one, does not compare its counts, and before 3.11.8
lets entries overlap; and its list of entries takes 500 bytes for each (measured, 3.11.7).
"""

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import numpy.typing as npt

from implant_model.archives.streams import ByteSource, RandomReader
from implant_model.archives.zip_entry import (
    LOCAL_BYTES,
    LOCAL_SIGNATURE,
    Entry,
    unicode_name,
    widen,
)
from implant_model.errors import ArchiveError, ArchiveReason
from implant_model.limits import MIB

_RECORD = struct.Struct("<4sBB3H4x3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_RECORD_SIGNATURE, _END_SIGNATURE = b"PK\x01\x02", b"PK\x05\x06"
_END64_SIGNATURE, _END64_LOCATOR_SIGNATURE = b"PK\x06\x06", b"PK\x06\x07"
_FULL_2, _FULL_4 = 0xFFFF, 0xFFFF_FFFF
_WRAP = 1 << 32
# A comment may hold the signature again and again.
_MAX_END_RECORDS = 64
# Entries that are this near follow each other: data descriptors and padding lie between them.
NEAR_BYTES = 64 << 10

# The end record, its longest comment, and the directory of some 10,000 entries.
TAIL_BYTES = MIB
# A zip up to this size comes whole with the first chunk of a stream.
SMALL_ZIP_BYTES = 8 * MIB
# 5 million entries of 100 bytes each.
LONGEST_DIRECTORY_BYTES = 512 * MIB
_REQUEST_BYTES = 16 * MIB


@dataclass(frozen=True, slots=True)
class Directory:
    """A central directory whose every record was parsed once.

    Attributes:
        records: Its bytes.
        offsets_N: Where each entry's local header begins in the file.
        bounds_N: Where each entry has to end: where the next one or the directory begins.
        problem: What does not agree with it; None where all does.
    """

    records: bytes
    offsets_N: npt.NDArray[np.int64]
    bounds_N: npt.NDArray[np.int64]
    problem: str | None

    def entries(self) -> Iterator[Entry]:
        """Yield the entries in the directory's order."""
        records = _parse_records(self.records)
        for entry, offset in zip(records, self.offsets_N, strict=True):
            yield replace(entry, offset=int(offset))


@dataclass(frozen=True, slots=True)
class _End:
    """What the end records say, zip64 or not."""

    num_entries: int
    num_bytes: int
    offset: int
    start: int
    is_zip64: bool
    has_rest: bool
    agrees: bool


def ends_as_zip(reader: RandomReader) -> bool:
    """Return whether an object that begins as nothing known ends as a zip.

    Its first bytes are damaged, or those of a program that unpacks it. An end record may have a
    comment of up to 64 KiB behind it, or bytes that are none; it counts if the directory is where
    it says, or right before it.
    """
    tail_start = max(0, reader.size - _END.size - _FULL_2)
    file = _Parts(reader, tail_start, reader.read_at(tail_start, reader.size - tail_start))
    return any(_has_directory(file, tail_start + at) for at in _end_records(file.tail))


def _end_records(tail: bytes) -> Iterator[int]:
    """Yield the places of what may be an end record and its comment, the last one first."""
    lowest = max(0, len(tail) - _END.size - _FULL_2)
    at = tail.rfind(_END_SIGNATURE, lowest)
    while at >= 0:
        if len(tail) - at - _END.size >= 0:
            comment_bytes = _END.unpack_from(tail, at)[-1]
            if len(tail) - at - _END.size >= comment_bytes:
                yield at
        at = tail.rfind(_END_SIGNATURE, lowest, at + 3)


def _has_directory(file: "_Parts", start: int) -> bool:
    """Return whether an end record's directory begins where it says, or where it must."""
    *_, num_bytes, offset, _ = _END.unpack(file.read(start, _END.size))
    try:
        wide = _end64(file, start)
    except ArchiveError:  # it is of several files
        return False
    if wide is not None:
        start, (*_, num_bytes, offset) = wide
    places = {offset, start - num_bytes} if num_bytes else set()
    return any(
        place >= 0 and file.read(place, len(_RECORD_SIGNATURE)) == _RECORD_SIGNATURE
        for place in places
    )


def read_directory(reader: RandomReader, source: ByteSource) -> Directory | ArchiveReason:
    """Return the central directory, or why there is none that can be parsed whole.

    Args:
        reader: The zip.
        source: The zip from its first byte on; if it is small, its end is looked for there.

    Raises:
        ArchiveError: The zip is split over several files, or its directory is too large.
    """
    if reader.size <= SMALL_ZIP_BYTES:
        tail_start, tail = 0, source.peek(reader.size)
    else:
        tail_start = reader.size - TAIL_BYTES
        tail = reader.read_at(tail_start, TAIL_BYTES)
    file = _Parts(reader, tail_start, tail)
    end = _find_end(file, reader.size)
    if end is None:
        return ArchiveReason.TRUNCATED
    if end.num_bytes > LONGEST_DIRECTORY_BYTES:
        raise ArchiveError(
            ArchiveReason.UNSUPPORTED,
            f"The zip's directory has {end.num_bytes} bytes; at most {LONGEST_DIRECTORY_BYTES} are "
            "accepted. Split the archive.",
        )
    start = _directory_start(file, end)
    records = file.read(start, end.num_bytes)
    try:
        return _directory(file, records, start, end)
    except ValueError:
        return ArchiveReason.CORRUPT


class _Parts:
    """Reads parts of a file whose last bytes are in memory."""

    def __init__(self, reader: RandomReader, tail_start: int, tail: bytes) -> None:
        self._reader = reader
        self._tail_start = tail_start
        self.tail = tail

    def read(self, offset: int, size: int) -> bytes:
        if offset >= self._tail_start:
            start = offset - self._tail_start
            return self.tail[start : start + size]
        end = min(offset + size, self._tail_start)
        parts = [
            self._reader.read_at(start, min(_REQUEST_BYTES, end - start))
            for start in range(offset, end, _REQUEST_BYTES)
        ]
        return b"".join([*parts, self.tail[: max(0, offset + size - self._tail_start)]])


def _find_end(file: _Parts, file_bytes: int) -> _End | None:
    """Look for the end record whose comment ends the file, else for the last that fits in it.

    One whose directory is there comes before one that has none, as in a comment.
    """
    tail = file.tail
    candidates = sorted(
        (
            not _has_directory(file, file_bytes - len(tail) + at),
            bool(tail[at + _END.size + _END.unpack_from(tail, at)[-1] :].strip(b"\0")),
            -at,
        )
        for at in islice(_end_records(tail), _MAX_END_RECORDS)
    )
    if not candidates:
        return None
    _, has_rest, at = candidates[0]
    return _end(file, file_bytes - len(tail) - at, has_rest)


def _end(file: _Parts, start: int, has_rest: bool) -> _End:
    """Read the end record at `start`, and the zip64 one before it where there is one."""
    _, disk, first_disk, here, total, num_bytes, offset, _ = _END.unpack(
        file.read(start, _END.size)
    )
    plain = (total, num_bytes, offset)
    found = _end64(file, start)
    if found is None:
        _refuse_split(disk, first_disk, here, total)
        return _End(*plain, start, is_zip64=False, has_rest=has_rest, agrees=True)
    start, (disk, first_disk, here, total, num_bytes, offset) = found
    _refuse_split(disk, first_disk, here, total)
    wide = (total, num_bytes, offset)
    agrees = all(
        small in (full, large)
        for small, large, full in zip(plain, wide, (_FULL_2, _FULL_4, _FULL_4), strict=True)
    )
    return _End(*wide, start, is_zip64=True, has_rest=has_rest, agrees=agrees)


def _end64(file: _Parts, end_start: int) -> tuple[int, tuple[int, ...]] | None:
    """Return where the zip64 end record is, and its six numbers from the disk's on."""
    locator_start = end_start - _END64_LOCATOR.size
    if locator_start < _END64.size:
        return None
    locator = file.read(locator_start, _END64_LOCATOR.size)
    signature, _, offset, num_disks = _END64_LOCATOR.unpack(locator)
    if signature != _END64_LOCATOR_SIGNATURE:
        return None
    if num_disks > 1:
        _refuse_split(1, 0, 0, 0)
    for start in (offset, locator_start - _END64.size):
        record = file.read(start, _END64.size) if start <= locator_start - _END64.size else b""
        if record.startswith(_END64_SIGNATURE):
            return start, _END64.unpack(record)[4:]
    return None


def _refuse_split(disk: int, first_disk: int, here: int, total: int) -> None:
    if disk in (0, _FULL_2) and first_disk in (0, _FULL_2) and here == total:
        return
    raise ArchiveError(
        ArchiveReason.UNSUPPORTED,
        "The zip is split over several files; join them into one (`zip -s 0 split.zip --out "
        "whole.zip`).",
    )


def _directory_start(file: _Parts, end: _End) -> int:
    """Where the directory is: as declared, or right before its end, if bytes precede the zip."""
    declared_end = end.offset + end.num_bytes
    if declared_end == end.start:
        return end.offset
    signature = file.read(end.offset, 4) if declared_end < end.start else b""
    if signature == _RECORD_SIGNATURE:
        return end.offset
    return max(0, end.start - end.num_bytes)


def _directory(file: _Parts, records: bytes, start: int, end: _End) -> Directory:
    """Parse all records once; raise ValueError where one is damaged."""
    shift = start - end.offset
    if shift and shift % _WRAP == 0 and not end.is_zip64:
        shift, found = 0, _unwrapped(file, records, start)
    else:
        found = (entry.offset + shift for entry in _parse_records(records))
    # 8 bytes an entry; an offset behind the directory is as wrong as one at its start.
    offsets = array("q", (max(-1, min(offset, start)) for offset in found))
    if len(records) != end.num_bytes or min(offsets, default=0) < 0:
        raise ValueError("the directory is cut, or its offsets lie before the file")
    problem = _problem(len(offsets), min(offsets, default=start), shift, end)
    offsets_N = np.frombuffer(offsets, dtype=np.int64)
    return Directory(records, offsets_N, _bounds(offsets_N, start), problem)


def _unwrapped(file: _Parts, records: bytes, start: int) -> Iterator[int]:
    """Yield where the entries of a zip over 4 GiB without zip64 are.

    Their offsets and sizes are modulo 2**32 (macOS writes them so), in the order of the file. Each
    is taken to be the next place behind the entry before it; where that would leave a gap, the
    local headers at this place and at those 2**32 bytes on are asked.
    """
    behind = 0
    for entry in _parse_records(records):
        least = entry.offset + max(0, behind - entry.offset + _WRAP - 1) // _WRAP * _WRAP
        offset = least
        if least - behind > NEAR_BYTES:
            places = range(least, start, _WRAP)
            held = (place for place in places if _is_local_header(file, place, entry.raw_name))
            offset = next(held, least)
        yield offset
        behind = offset + LOCAL_BYTES + len(entry.raw_name) + entry.stored_bytes


def _is_local_header(file: _Parts, offset: int, name: bytes) -> bool:
    header = file.read(offset, LOCAL_BYTES + len(name))
    return header.startswith(LOCAL_SIGNATURE) and header[LOCAL_BYTES:] == name


def _problem(num_entries: int, first_offset: int, shift: int, end: _End) -> str | None:
    """State what speaks against a directory that could be parsed."""
    # Writers without zip64 let the count of 65,536 entries and more wrap around.
    counted = num_entries if end.is_zip64 else num_entries % (_FULL_2 + 1)
    if counted != end.num_entries or not end.agrees:
        return f"its end records and its directory of {num_entries} entries do not agree"
    if shift or first_offset > 4:
        return "bytes come before its first entry, as where one zip was put behind another"
    return "bytes follow its end" if end.has_rest else None


def _bounds(offsets_N: npt.NDArray[np.int64], start: int) -> npt.NDArray[np.int64]:
    """Return the next larger or equal offset for each one; of equal ones the last has room."""
    order_N = np.argsort(offsets_N, kind="stable")
    bounds_N = np.empty_like(offsets_N)
    bounds_N[order_N] = np.append(offsets_N[order_N][1:], start)[: len(offsets_N)]
    return bounds_N


def _parse_records(records: bytes) -> Iterator[Entry]:
    at = 0
    while at < len(records):
        if len(records) - at < _RECORD.size or not records.startswith(_RECORD_SIGNATURE, at):
            raise ValueError("no record where one belongs")
        (_, _, system, _, flags, method, crc, stored_bytes, size, name_bytes, extra_bytes,
         comment_bytes, _, _, attributes, offset) = _RECORD.unpack_from(records, at)  # fmt: skip
        at += _RECORD.size
        name = records[at : at + name_bytes]
        extra = records[at + name_bytes : at + name_bytes + extra_bytes]
        at += name_bytes + extra_bytes + comment_bytes
        size, stored_bytes, offset = widen(extra, size, stored_bytes, offset)
        yield Entry(unicode_name(extra, name), name, flags, method, crc, stored_bytes, size,
                    offset, system, attributes)  # fmt: skip
    if at > len(records):
        raise ValueError("the last record is cut")
