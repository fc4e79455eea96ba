"""Members of archives: tar, tar.gz, tar.zst, zip, or a single radiograph; by content, not by name.

    read.py           what an object is, and its members
    ├── tar.py        tar, with proof of its end; tar_header.py
    ├── zip.py        zip, entry by entry; zip_directory.py, zip_entry.py, zip_salvage.py
    ├── expand.py     gzip and zstandard
    ├── streams.py    bytes in order
    └── members.py    a member, its name, what an object is

One member is in memory at a time, and every member is handed out before the first error is raised:
what is wrong with a member is its `reason`, what is wrong with the archive an `ArchiveError` after
the last member that could be read.
"""

import re
from collections.abc import Iterator

from implant_model.archives.expand import expanded_source
from implant_model.archives.members import (
    SNIFF_BYTES,
    Member,
    decode_name,
    is_clutter,
    read_member,
    sniff,
)
from implant_model.archives.streams import Allocate, ByteSource, BytesReader, RandomReader
from implant_model.archives.tar import cut_reason, read_tar
from implant_model.archives.zip import read_zip
from implant_model.archives.zip_directory import ends_as_zip
from implant_model.content import Content
from implant_model.errors import ArchiveError, ArchiveReason, Reason
from implant_model.limits import Limits

_PART = re.compile(
    r"\.(tar|tgz|tbz2?|txz|tzst|zip|7z|rar|gz|zst|bz2|xz)\.?((?!gz|xz|lz|br|bz)[a-z]{2}|a[a-z]{2}|\d{2,4})$"
    r"|\.z\d{2,3}$|\.r\d{2,3}$|\.part\d+\.rar$",
    re.IGNORECASE,
)
"""Names that split, zip, 7z and rar give to parts: x.tar.ab, x.zip.002, x.z01, x.r00, ..."""

__all__ = ["Allocate", "BytesReader", "Member", "RandomReader", "is_clutter", "read_members"]


def read_members(
    reader: RandomReader, name: str, limits: Limits, allocate: Allocate | None = None
) -> Iterator[Member]:
    """Yield the members of an archive in order, or a single radiograph as one member.

    Args:
        reader: The stored object.
        name: What to call a single radiograph; an archive's members have names of their own.
        limits: Bounds on members, names, headers and expansion.
        allocate: Gives the memory that a large member of a tar is read into, which the next one
            may overwrite; without it, content is bytes.

    Raises:
        ArchiveError: After the last member that could be read, where the object is an archive that
            cannot be read to its proven end. A member that the end cuts was yielded before, with
            reason `truncated`, `corrupt` or (at a limit of the archive) `too_large`.
        StorageError: From the reader, at any time.
    """
    for member in _members(reader, name, limits, allocate):
        if member.index >= limits.members:
            raise ArchiveError(
                ArchiveReason.UNSUPPORTED,
                f"The archive has more than {limits.members} members, the most that are accepted "
                "(Limits.members); split it.",
            )
        yield member


def _members(
    reader: RandomReader, name: str, limits: Limits, allocate: Allocate | None
) -> Iterator[Member]:
    source = ByteSource(reader.stream(), stored=reader, allocate=allocate)
    try:
        content = sniff(source.peek(SNIFF_BYTES))
        if content is Content.ZIP or (content is Content.UNKNOWN and ends_as_zip(reader)):
            yield from read_zip(reader, source, limits)
        elif content is Content.TAR:
            yield from read_tar(source, limits)
        elif content in (Content.GZIP, Content.ZSTD):
            expanded = expanded_source(content, source, reader.size, limits)
            yield from _expanded(expanded, name, limits)
        elif content is Content.OTHER_ARCHIVE:
            raise _unsupported("a compressed file or an archive")
        elif content is Content.UNKNOWN and _PART.search(name):
            raise _part_of_a_split()
        else:
            yield from _single(source, reader.size, name, limits)
    finally:
        source.close()


def _expanded(source: ByteSource, name: str, limits: Limits) -> Iterator[Member]:
    if _expanded_content(source) is Content.TAR:
        yield from read_tar(source, limits)
    else:
        yield from _single(source, None, name, limits)


def _expanded_content(source: ByteSource) -> Content:
    """Return what a gzip or zstandard stream may hold: a tar, an image, or nothing at all."""
    head = source.peek(SNIFF_BYTES)
    content = sniff(head)
    if content is Content.TAR or content.is_image:
        return content
    if source.failure is not None:
        raise source.failure
    if not head:
        return Content.UNKNOWN
    raise _unsupported("a compressed file with neither a tar nor a radiograph in it")


def _single(source: ByteSource, size: int | None, name: str, limits: Limits) -> Iterator[Member]:
    """Yield one radiograph; its size is not known beforehand where it is compressed."""
    label = decode_name(name.encode("utf-8", "surrogatepass"), limits)
    if is_clutter(label):
        yield Member(0, label, size or 0, None, Reason.CLUTTER)
        return
    if size is not None and size > limits.member_bytes:
        yield Member(0, label, size, None, Reason.TOO_LARGE)
        return
    data = source.read(limits.member_bytes + 1)
    if source.failure is not None or (size is not None and len(data) < size):
        yield Member(0, label, len(data), None, cut_reason(source))
    elif len(data) > limits.member_bytes:
        yield Member(0, label, len(data), None, Reason.TOO_LARGE)
    else:
        yield read_member(0, label, len(data), data)
    if source.failure is not None:
        raise source.failure


def _part_of_a_split() -> ArchiveError:
    return ArchiveError(
        ArchiveReason.UNSUPPORTED,
        "By its name the object is a part of a split archive, and its bytes are nothing that is "
        "read: join the parts into one file first (cat PARTS > WHOLE; zip -s 0; 7z; unrar).",
    )


def _unsupported(what: str) -> ArchiveError:
    return ArchiveError(
        ArchiveReason.UNSUPPORTED,
        f"The object is {what} of a kind that is not read; accepted are tar, tar.gz, tar.zst, zip "
        "and single radiographs.",
    )
