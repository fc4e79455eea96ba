"""Members of a tar, one at a time, with proof of the archive's end.

Python's `tarfile` takes a cut, a flipped bit or a second archive behind the first for the end, and
gives no information. Here the end is proven: two blocks of zeros and nothing but zeros after them.
Whatever else is met is read on from, as far as headers with a right checksum can be found, and is
raised as an `ArchiveError` at the very end.
"""

from collections.abc import Iterator
from dataclasses import replace

from implant_model.archives.members import Member, decode_name, is_clutter, read_member
from implant_model.archives.streams import ByteSource, RandomReader
from implant_model.archives.tar_header import (
    BLOCK_BYTES,
    BODILESS_KINDS,
    EXTENSION_KINDS,
    METADATA_KINDS,
    NO_EXTENSION,
    NO_MEMBER_KINDS,
    Extension,
    Header,
    damaged_header,
    extend,
    is_next_header,
    parse_extension,
    parse_header,
    parse_pax,
)
from implant_model.errors import ArchiveError, ArchiveReason, Reason
from implant_model.limits import MIB, Limits

END_BYTES = 2 * BLOCK_BYTES
RECORD_BYTES = 20 * BLOCK_BYTES
# tar fills its last record with zeros: 10 KiB as a rule, 1 MiB with the largest blocking factor in
# use (2048). Longer runs are what a download leaves that reserved its file and then stopped.
LONGEST_END_BYTES = END_BYTES + MIB
_STEP_BYTES = 64 << 10
HOP_BYTES = 64 << 10
"""While headers alone are walked, a longer body is jumped over."""
_NO_HEADER = "The tar has bytes whose checksum is wrong where a header belongs"


def read_tar(source: ByteSource, limits: Limits) -> Iterator[Member]:
    """Yield the members of a tar, directories left out.

    A header whose checksum is wrong is a member that is lost: it gets a row with reason `corrupt`
    unless it states that it is no member, and reading goes on at the next header with a right check
    sum and magic, as GNU tar does.

    Args:
        source: The bytes of the tar, or of several one after the other.
        limits: `member_bytes`, `name_bytes` and `tar_header_bytes` apply.

    Raises:
        ArchiveError: After the last member, where the end of the archive is not proven.
    """
    tar = _Tar(source, limits)
    index = 0
    while (header := tar.next_header()) is not None:
        yield tar.read(index, header)
        index += 1
    tar.raise_verdict()


class TarWalk:
    """Where the members of one tar begin, as far as its headers were walked."""

    def __init__(self) -> None:
        self._starts: list[tuple[int, int, Extension]] = []
        self._next = 0
        self._globals = NO_EXTENSION
        self._is_done = False

    def member(
        self, hops: RandomReader, reader: RandomReader, index: int, limits: Limits
    ) -> Member | None:
        """Return a member by its index; None where the tar has no such member.

        Args:
            hops: The tar, for the walk from header to header.
            reader: The tar, for the member itself.
            index: From 0, directories not counted.
            limits: As of `read_tar`.

        Raises:
            ArchiveError: An extended header on the way is over its limit.
        """
        if not self._walk_to(hops, index, limits):
            return None
        start, end, known = self._starts[index]
        is_whole = end - start <= limits.member_bytes + limits.tar_header_bytes
        chunks = iter([reader.read_at(start, end - start)]) if is_whole else reader.stream(start)
        source = ByteSource(chunks, start, None if is_whole else reader)
        try:
            tar = _Tar(source, limits, known)
            header = tar.next_header()
            return None if header is None else tar.read(index, header)
        finally:
            source.close()

    def _walk_to(self, hops: RandomReader, index: int, limits: Limits) -> bool:
        if index < len(self._starts) or self._is_done:
            return index < len(self._starts)
        source = ByteSource(hops.stream(self._next), self._next, hops, jump_bytes=HOP_BYTES)
        tar = _Tar(source, limits, self._globals)
        while len(self._starts) <= index:
            start, known = source.position, tar.globals
            header = tar.next_header()
            if header is None:
                self._is_done = True
                return False
            tar.pass_member(header)
            self._starts.append((start, source.position, known))
            self._next, self._globals = source.position, tar.globals
        return True


class _Tar:
    """The state of one reading."""

    def __init__(self, source: ByteSource, limits: Limits, known: Extension = NO_EXTENSION) -> None:
        self._source = source
        self._limits = limits
        self._globals = known
        self._ended = False
        self._damage: ArchiveError | None = None

    def next_header(self) -> Header | None:
        """Return the header of the next member; None at the end, whatever the end is."""
        extension = self._globals
        while block := self._source.read(BLOCK_BYTES):
            header = parse_header(block)
            if header is not None and header.kind in EXTENSION_KINDS:
                extension = self._extension(header, extension)
                continue
            if header is not None and header.kind in METADATA_KINDS:
                self._ended = False
                self._source.skip(header.size + -header.size % BLOCK_BYTES)
                continue
            if header is None and extension is not self._globals:
                self._note("An extended header of the tar has no member after it")
            found = extend(header, extension) if header else self._pass_gap(block)
            if header:
                self._ended = False
            if found is not None and not found.is_directory:
                return found
            if found is not None:
                self._pass_body(found)
            extension = self._globals
        return None

    def read(self, index: int, header: Header) -> Member:
        """Return the member behind a header."""
        name = decode_name(header.name, self._limits)
        reason = self._reason(name, header)
        if reason is not None:
            self._pass_body(header)
            return Member(index, name, header.size, None, reason)
        data = self._source.read_body(header.size)
        if len(data) < header.size:
            return Member(index, name, header.size, None, cut_reason(self._source))
        self._source.skip(-header.size % BLOCK_BYTES)
        return read_member(index, name, header.size, data)

    @property
    def globals(self) -> Extension:
        """Return what a global extended header said of all members behind it."""
        return self._globals

    def pass_member(self, header: Header) -> None:
        """Pass over a member as `read` does, without its content."""
        is_read = self._reason(decode_name(header.name, self._limits), header) is None
        if is_read:
            self._source.skip(header.size + -header.size % BLOCK_BYTES)
        else:
            self._pass_body(header)

    def raise_verdict(self) -> None:
        """Raise what is wrong with the archive; its end was reached."""
        error = self._damage or self._source.failure
        if error is not None:
            raise error
        if not self._ended:
            raise ArchiveError(
                ArchiveReason.TRUNCATED,
                f"The tar stops after {self._source.position} bytes without the two blocks of "
                "zeros that end it: it was cut or never finished; send it again.",
            )

    def _reason(self, name: str, header: Header) -> Reason | None:
        """Return why a member is not read, as far as its header tells."""
        if is_clutter(name):
            return Reason.CLUTTER
        if not header.sound:
            return Reason.CORRUPT
        if not header.is_regular:
            return Reason.NOT_REGULAR
        if header.sparse:
            return Reason.UNSUPPORTED_ENCODING
        return Reason.TOO_LARGE if header.size > self._limits.member_bytes else None

    def _extension(self, header: Header, before: Extension) -> Extension:
        """Read the extended header that `header` announces."""
        if header.size > self._limits.tar_header_bytes:
            raise ArchiveError(
                ArchiveReason.UNSUPPORTED,
                f"An extended header of the tar has {header.size} bytes; at most "
                f"{self._limits.tar_header_bytes} are accepted (Limits.tar_header_bytes).",
            )
        self._ended = False
        body = self._source.read(header.size)
        self._source.skip(-header.size % BLOCK_BYTES)
        extension = parse_extension(header.kind, body, before)
        if not extension.sound:
            self._note("An extended header of the tar is not in the form of pax")
        if header.kind == ord("g"):
            has_own = before is not self._globals
            self._globals = replace(parse_pax(body, self._globals), sound=True)
            return extension if has_own else self._globals
        return extension

    def _pass_body(self, header: Header) -> None:
        more_map = header.more_map
        while more_map and len(block := self._source.read(BLOCK_BYTES)) == BLOCK_BYTES:
            more_map = block[504] != 0
        if header.size and header.kind in BODILESS_KINDS and self._at_header():
            return  # links and folders may declare the size of what they stand for
        self._source.skip(header.size + -header.size % BLOCK_BYTES)

    def _at_header(self) -> bool:
        block = self._source.peek(BLOCK_BYTES)
        return not block.strip(b"\0") or parse_header(block) is not None

    def _pass_gap(self, block: bytes) -> Header | None:
        """Pass over what is not a header: zeros, or else all up to the next header.

        Returns:
            What is left of a member's header, or None.
        """
        if not block.strip(b"\0"):
            self._pass_zeros(len(block))
            return None
        ended, self._ended = self._ended, False
        if len(block) < BLOCK_BYTES and not ended:
            return None  # a header that the end cuts
        self._note("The tar has bytes that are no header behind its end" if ended else _NO_HEADER)
        while (peeked := self._source.peek(BLOCK_BYTES)) and not is_next_header(peeked):
            self._source.skip(BLOCK_BYTES)
        lost = None if ended else damaged_header(block)
        return None if lost is None or lost.kind in NO_MEMBER_KINDS else lost

    def _pass_zeros(self, num_zeros: int) -> None:
        while piece := self._source.peek(_STEP_BYTES):
            num_more = len(piece) - len(piece.lstrip(b"\0"))
            if num_more < len(piece):
                num_more -= num_more % BLOCK_BYTES
            num_zeros += self._source.skip(num_more)
            if num_more < len(piece):
                break
        self._ended = num_zeros >= END_BYTES
        if self._ended:
            self._pass_stale_blocks()
        if num_zeros > LONGEST_END_BYTES:
            self._note(f"The tar has {num_zeros} bytes of zeros where a member or the end belongs")

    def _pass_stale_blocks(self) -> None:
        """Pass over what an older content of the writer's buffer left in the very last record.

        A tar is written in records, whose rest behind the end is meant to be zeros. A tar that was
        put behind this one begins at a record's bound, and is no part of it. Where records are of
        another size than the usual, what follows does not end at such a bound, or is longer.
        """
        rest = -self._source.position % RECORD_BYTES
        if rest and len(self._source.peek(rest + 1)) == rest:
            self._source.skip(rest)

    def _note(self, what: str) -> None:
        """Keep the first damage, to be raised at the end."""
        self._damage = self._damage or ArchiveError(
            ArchiveReason.CORRUPT,
            f"{what} (up to byte {self._source.position}); what could be read was read. "
            "Send the archive again.",
        )


def cut_reason(source: ByteSource) -> Reason:
    """Return the reason of a member in whose middle a source ended."""
    if source.failure is None or source.failure.reason is ArchiveReason.TRUNCATED:
        return Reason.TRUNCATED
    if source.failure.reason is ArchiveReason.UNSUPPORTED:
        return Reason.TOO_LARGE
    return Reason.CORRUPT
