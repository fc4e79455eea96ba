"""One member of an archive by its index, without reading those before it where that can be helped.

A zip's directory says where each entry lies. A tar has none: its headers are walked once, each with
a small read, as far as the member that is asked for, and their places are kept for the next one. A
compressed tar has to be expanded from its beginning. A member is the same as `read_members` yields.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from implant_model.archives.expand import expansion_budget
from implant_model.archives.members import SNIFF_BYTES, Member, sniff
from implant_model.archives.read import read_members
from implant_model.archives.streams import ByteSource, RandomReader
from implant_model.archives.tar import TarWalk
from implant_model.archives.zip import read_zip_entry
from implant_model.archives.zip_directory import Directory, ends_as_zip, read_directory
from implant_model.content import Content
from implant_model.errors import ArchiveError
from implant_model.limits import MIB, Limits

HEAD_BYTES = MIB // 16
"""Of one read while headers are walked; what is longer than this is jumped over."""


@dataclass
class MemberPicker:
    """Picks members out of one version of one archive; for one thread at a time.

    Attributes:
        name: What to call a single radiograph.
        limits: As of `read_members`.
    """

    name: str
    limits: Limits
    _walk: TarWalk = field(default_factory=TarWalk)
    _content: Content | None = None

    def pick(self, reader: RandomReader, index: int) -> Member | None:
        """Return a member, or None where the archive has no such member.

        Args:
            reader: The archive, always of the same version.
            index: Position in the archive, from 0, directories not counted.

        Raises:
            ArchiveError: The archive cannot be read up to the member.
            StorageError: From the reader.
        """
        if self._content is None:
            self._content = sniff(reader.read_at(0, SNIFF_BYTES))
        content = self._content
        if content is Content.TAR:
            return self._walk.member(_Hops(reader), reader, index, self.limits)
        if content is Content.ZIP or (content is Content.UNKNOWN and ends_as_zip(reader)):
            return self._of_zip(reader, index)
        return self._in_order(reader, index)

    def _of_zip(self, reader: RandomReader, index: int) -> Member | None:
        source = ByteSource(reader.stream(), stored=reader)
        try:
            directory = read_directory(reader, source)
            if not isinstance(directory, Directory):
                return self._in_order(reader, index)
            budget_bytes = expansion_budget(reader.size, self.limits)
            return read_zip_entry(directory, reader, source, index, budget_bytes, self.limits)
        finally:
            source.close()

    def _in_order(self, reader: RandomReader, index: int) -> Member | None:
        found = None
        try:
            for member in read_members(reader, self.name, self.limits):
                if member.index == index:
                    found = member
                    break
        except ArchiveError:
            if found is None:
                raise
        return found


class _Hops:
    """A reader whose streams take small reads: what follows a header may be jumped over."""

    def __init__(self, reader: RandomReader) -> None:
        self._reader = reader

    @property
    def size(self) -> int:
        """Return size in bytes."""
        return self._reader.size

    def read_at(self, offset: int, size: int) -> bytes:
        """See `RandomReader.read_at`."""
        return self._reader.read_at(offset, size)

    def stream(self, start: int = 0) -> Iterator[bytes]:
        """Yield all bytes from `start` on, a little at a time."""
        while chunk := self._reader.read_at(start, HEAD_BYTES):
            yield chunk
            start += len(chunk)
