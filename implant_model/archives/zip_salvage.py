"""Members of a zip without a readable central directory, from its local headers in file order.

What is lost without the directory: the attributes, so that a symbolic link passes for a file, and
the certainty that no entry is missing; the caller raises an `ArchiveError` in any case.
"""

import struct
import zlib
from collections.abc import Iterator

from implant_model.archives.expand import EXPANDED_BYTES, PIECE_BYTES
from implant_model.archives.members import Member, decode_name, read_member
from implant_model.archives.streams import ByteSource
from implant_model.archives.zip_entry import (
    DEFLATED,
    LOCAL_SIGNATURE,
    SIZES_FOLLOW,
    Entry,
    entry_reason,
    read_content,
    read_local,
)
from implant_model.errors import Reason
from implant_model.limits import Limits

_SPLIT_MARKERS = (b"PK\x07\x08", b"PK00")
_DESCRIPTOR_SIGNATURE = b"PK\x07\x08"


def read_local_entries(source: ByteSource, budget_bytes: int, limits: Limits) -> Iterator[Member]:
    """Yield members up to the first byte that is no local header.

    Args:
        source: The zip from its start on.
        budget_bytes: To how many bytes it may expand.
        limits: `member_bytes` and `name_bytes` apply.
    """
    if source.peek(4) in _SPLIT_MARKERS:
        source.skip(4)
    index = 0
    while source.peek(4) == LOCAL_SIGNATURE:
        entry = read_local(source)
        if entry is None:
            return  # the end cuts its header
        member = _read(index, entry, source, budget_bytes, limits)
        if entry.is_directory and not member.size:
            continue
        yield member
        budget_bytes -= len(member.data or b"")
        index += 1


def _read(
    index: int, entry: Entry, source: ByteSource, budget_bytes: int, limits: Limits
) -> Member:
    name = decode_name(entry.name, limits, entry.encoding)
    reason = entry_reason(entry, name, budget_bytes, limits)
    if entry.flags & SIZES_FOLLOW and not entry.stored_bytes:
        if entry.method == DEFLATED and not entry.is_encrypted:
            return _read_to_descriptor(index, name, reason, source, budget_bytes, limits)
        # The end of the content cannot be known, so this is the last one: no header comes next.
        return Member(index, name, entry.size, None, reason or Reason.CORRUPT)
    if reason is None:
        return read_content(index, name, entry, source)
    source.skip(entry.stored_bytes)
    return Member(index, name, entry.size, None, reason)


def _read_to_descriptor(
    index: int,
    name: str,
    reason: Reason | None,
    source: ByteSource,
    budget_bytes: int,
    limits: Limits,
) -> Member:
    """Read deflated content whose sizes stand behind it; over the budget, it is the last one."""
    most_bytes = min(budget_bytes, limits.member_bytes)
    start = source.position
    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    parts: list[bytes] = []
    crc = size = 0
    try:
        for part in _inflate(inflater, source):
            crc, size = zlib.crc32(part, crc), size + len(part)
            if size > budget_bytes:
                return Member(index, name, size, None, reason or Reason.TOO_LARGE)
            if size <= most_bytes and reason is None:
                parts.append(part)
    except zlib.error:
        return Member(index, name, size, None, reason or Reason.CORRUPT)
    if not inflater.eof:
        return Member(index, name, size, None, reason or Reason.TRUNCATED)
    if not _descriptor_agrees(source, crc, source.position - start, size):
        return Member(index, name, size, None, reason or Reason.CORRUPT)
    if reason is not None or size > most_bytes:
        return Member(index, name, size, None, reason or Reason.TOO_LARGE)
    return read_member(index, name, size, b"".join(parts))


def _inflate(inflater: "zlib._Decompress", source: ByteSource) -> Iterator[bytes]:
    """Yield inflated pieces; leave `source` behind the last deflated byte."""
    while piece := source.peek(PIECE_BYTES):
        yield inflater.decompress(piece, EXPANDED_BYTES)
        source.skip(len(piece) - len(inflater.unused_data or inflater.unconsumed_tail))
        if inflater.eof:
            return


def _descriptor_agrees(source: ByteSource, crc: int, stored_bytes: int, size: int) -> bool:
    """Pass over the data descriptor, with or without signature, of 32 or 64 bits."""
    if source.peek(4) == _DESCRIPTOR_SIGNATURE:
        source.skip(4)
    for layout in ("<3I", "<I2Q"):
        num_bytes = struct.calcsize(layout)
        found = source.peek(num_bytes)
        if len(found) == num_bytes and struct.unpack(layout, found) == (crc, stored_bytes, size):
            source.skip(num_bytes)
            return True
    return False
