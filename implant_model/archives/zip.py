"""Members of a zip, entry by entry, in the order of its central directory.

Each entry is proven: local header and directory agree, the size is counted while it is inflated,
the CRC-32 is compared, and no two entries share bytes. A zip without a readable directory is read
from its local headers, in the order of the file, and ends with an `ArchiveError`.
"""

from collections.abc import Iterator

from implant_model.archives.expand import expansion_budget
from implant_model.archives.members import Member, decode_name
from implant_model.archives.streams import ByteSource, RandomReader
from implant_model.archives.zip_directory import NEAR_BYTES, Directory, read_directory
from implant_model.archives.zip_entry import LOCAL_BYTES, Entry, entry_reason, read_entry
from implant_model.archives.zip_salvage import read_local_entries
from implant_model.errors import ArchiveError, ArchiveReason, Reason
from implant_model.limits import MIB, Limits

# To read past this much costs less than a request: 10 ms at 100 MB/s.
SKIP_BYTES = MIB
# Local headers may have extra fields that the directory does not tell of.
_SPARE_BYTES = 256
_REQUEST_BYTES = 16 * MIB


def read_zip(reader: RandomReader, source: ByteSource, limits: Limits) -> Iterator[Member]:
    """Yield the members of a zip, directories left out.

    Args:
        reader: The zip. Its directory takes one or two requests; entries that follow each other
            are read as a stream, others each with a request of their own.
        source: All of it, from its first byte on, as far as it is not read otherwise.
        limits: `member_bytes`, `name_bytes` and those on the archive's expansion apply: entries
            that declare more get reason `too_large`, those that hold more `corrupt`.

    Raises:
        ArchiveError: After the last member, where the zip is not whole, holds something that its
            directory does not tell of, or is encrypted throughout.
    """
    directory = read_directory(reader, source)
    cursor = _Cursor(reader, source)
    try:
        if isinstance(directory, Directory):
            yield from _read_entries(directory, cursor, reader.size, limits)
        else:
            budget_bytes = expansion_budget(reader.size, limits)
            yield from read_local_entries(cursor.at(0, 0), budget_bytes, limits)
            raise _without_directory(directory)
    finally:
        cursor.close()


def _read_entries(
    directory: Directory, cursor: "_Cursor", archive_bytes: int, limits: Limits
) -> Iterator[Member]:
    budget_bytes = expansion_budget(archive_bytes, limits)
    index = num_encrypted = num_clutter = 0
    for entry, bound in zip(directory.entries(), directory.bounds_N, strict=True):
        if entry.is_directory:
            continue
        member = _read(index, entry, int(bound), cursor, budget_bytes, limits)
        yield member
        budget_bytes -= len(member.data or b"")
        num_encrypted += member.reason is Reason.ENCRYPTED
        num_clutter += member.reason is Reason.CLUTTER
        index += 1
    if directory.problem:
        raise ArchiveError(
            ArchiveReason.CORRUPT,
            f"The zip does not prove that all of it was read: {directory.problem}. "
            "Send the archive again.",
        )
    if num_encrypted and num_encrypted + num_clutter == index:
        raise ArchiveError(
            ArchiveReason.ENCRYPTED,
            "All of the zip is encrypted, and passwords are not accepted; send it without one.",
        )


def read_zip_entry(
    directory: Directory,
    reader: RandomReader,
    source: ByteSource,
    index: int,
    budget_bytes: int,
    limits: Limits,
) -> Member | None:
    """Return the member at one position of a directory; None where there is none."""
    place = 0
    for entry, bound in zip(directory.entries(), directory.bounds_N, strict=True):
        if entry.is_directory:
            continue
        if place == index:
            cursor = _Cursor(reader, source)
            try:
                return _read(index, entry, int(bound), cursor, budget_bytes, limits)
            finally:
                cursor.close()
        place += 1
    return None


def _read(
    index: int, entry: Entry, bound: int, cursor: "_Cursor", budget_bytes: int, limits: Limits
) -> Member:
    name = decode_name(entry.name, limits, entry.encoding)
    reason = entry_reason(entry, name, budget_bytes, limits)
    least_bytes = LOCAL_BYTES + len(entry.raw_name) + entry.stored_bytes
    if reason is None and entry.offset + least_bytes > bound:
        reason = Reason.CORRUPT
    if reason is not None:
        return Member(index, name, entry.size, None, reason)
    source = cursor.at(entry.offset, least_bytes + _SPARE_BYTES)
    return read_entry(index, name, entry, bound, source)


class _Cursor:
    """Stands at one entry after the other, ahead of whose use the file is read in a stream.

    An entry elsewhere takes a request of its own, and the stream stays where it is, unless the next
    entry follows that one.
    """

    def __init__(self, reader: RandomReader, stream: ByteSource) -> None:
        self._reader = reader
        self._stream = stream
        self._single = ByteSource(iter(()), reader.size)

    def at(self, offset: int, size: int) -> ByteSource:
        """Return a source at `offset`, from which some `size` bytes will be read."""
        if 0 <= (gap := offset - self._stream.position) <= SKIP_BYTES:
            self._stream.skip(gap)
            return self._stream
        if 0 <= offset - self._single.position <= NEAR_BYTES:
            self._stream.close()
            self._stream = ByteSource(self._reader.stream(offset), offset, self._reader)
            return self._stream
        self._single = ByteSource(self._ranges(offset, size), offset)
        return self._single

    def close(self) -> None:
        """End the stream."""
        self._stream.close()

    def _ranges(self, offset: int, size: int) -> Iterator[bytes]:
        end = offset + size
        while offset < self._reader.size:
            left = end - offset if end > offset else MIB
            chunk = self._reader.read_at(offset, min(_REQUEST_BYTES, left))
            offset += len(chunk)
            yield chunk


def _without_directory(reason: ArchiveReason) -> ArchiveError:
    what = "ends without" if reason is ArchiveReason.TRUNCATED else "has a damaged"
    return ArchiveError(
        reason,
        f"The zip {what} central directory; what its local headers tell of was read. "
        "Send the archive again.",
    )
