"""One entry of a zip: what its headers say, and its content, proven.

Source: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.4.4 (flags), 4.5.3 (zip64
extra field), 4.6.9 (Unicode path extra field).
"""

import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from implant_model.archives.members import Member, is_clutter, read_member
from implant_model.archives.streams import ByteSource
from implant_model.errors import Reason
from implant_model.limits import Limits

STORED, DEFLATED = 0, 8
LOCAL_SIGNATURE = b"PK\x03\x04"
LOCAL_BYTES = 30
SIZES_FOLLOW = 1 << 3  # flag: CRC and sizes stand behind the content
_LOCAL = struct.Struct("<4s2x2H4x3I2H")
_FULL_4 = 0xFFFF_FFFF
_DOS_FOLDER = 0x10
_FILES = frozenset({0, stat.S_IFREG, stat.S_IFDIR})
_DOS_SYSTEMS, _UNIX_SYSTEMS = frozenset({0, 10, 11, 14}), frozenset({3, 19})


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry, as the central directory (or in a damaged zip its local header) declares it.

    Attributes:
        name: Undecoded, from the Unicode path extra field where there is one.
        raw_name: Undecoded, as it is in the header.
        flags: General purpose flags.
        method: Compression method.
        crc: CRC-32 of the content.
        stored_bytes: Size in the archive.
        size: Size of the content in bytes.
        offset: Where its local header begins in the file.
        system: The system whose attributes these are.
        attributes: External attributes.
    """

    name: bytes
    raw_name: bytes
    flags: int
    method: int
    crc: int
    stored_bytes: int
    size: int
    offset: int
    system: int = 0
    attributes: int = 0

    @property
    def is_encrypted(self) -> bool:
        """Whether content (bit 0), or the directory too (bit 13), is encrypted; 99 is AES."""
        return bool(self.flags & 0x2001) or self.method == 99

    @property
    def encoding(self) -> str:
        """Return the encoding of a name that is not UTF-8; flag 11 states that it is."""
        return "utf-8" if self.flags & 0x800 else "cp437"

    @property
    def is_directory(self) -> bool:
        """Return whether this is a folder: a trailing slash, or attributes that say so."""
        if self.size:
            return False
        if self.name.endswith(b"/") or stat.S_ISDIR(self._mode):
            return True
        windows_folder = self.system in _DOS_SYSTEMS and self.attributes & _DOS_FOLDER
        return bool(windows_folder) and self.name.endswith(b"\\")

    @property
    def is_regular(self) -> bool:
        """Return whether this is a file, no link; what has content is no pipe, socket or device.

        Info-ZIP gives the mode of a FIFO to what it read from its standard input.
        """
        kind = stat.S_IFMT(self._mode)
        return kind != stat.S_IFLNK and (kind in _FILES or self.size > 0)

    @property
    def _mode(self) -> int:
        return self.attributes >> 16 if self.system in _UNIX_SYSTEMS else 0


def entry_reason(entry: Entry, name: str, budget_bytes: int, limits: Limits) -> Reason | None:
    """Return why an entry is not read, as far as its headers tell.

    Args:
        entry: The entry.
        name: Its name, decoded.
        budget_bytes: To how many bytes the rest of the archive may still expand.
        limits: `member_bytes` applies to the size in the archive and to the content's.
    """
    if is_clutter(name):
        return Reason.CLUTTER
    if not entry.is_regular:
        return Reason.NOT_REGULAR
    if entry.is_encrypted:
        return Reason.ENCRYPTED
    if entry.method not in (STORED, DEFLATED):
        return Reason.UNSUPPORTED_ENCODING
    if max(entry.size, entry.stored_bytes) > limits.member_bytes or entry.size > budget_bytes:
        return Reason.TOO_LARGE
    return None


def read_entry(index: int, name: str, entry: Entry, bound: int, source: ByteSource) -> Member:
    """Read the entry that the directory declares.

    Args:
        index: Its position.
        name: Its name, decoded.
        entry: What the directory states of it.
        bound: Where the next entry begins.
        source: Stands at its local header.
    """
    local = read_local(source)
    if local is None or not _agree(entry, local):
        return Member(index, name, entry.size, None, Reason.CORRUPT)
    if source.position + entry.stored_bytes > bound:
        return Member(index, name, entry.size, None, Reason.CORRUPT)
    return read_content(index, name, entry, source)


def read_content(index: int, name: str, entry: Entry, source: ByteSource) -> Member:
    """Read and prove the content of an entry of known size; `source` is at its start."""
    stored = source.read(entry.stored_bytes)
    if len(stored) < entry.stored_bytes:
        return Member(index, name, entry.size, None, Reason.TRUNCATED)
    data = stored if entry.method == STORED else _inflate(stored, entry.size)
    if data is None or len(data) != entry.size or zlib.crc32(data) != entry.crc:
        return Member(index, name, entry.size, None, Reason.CORRUPT)
    return read_member(index, name, entry.size, data)


def read_local(source: ByteSource) -> Entry | None:
    """Read a local header with its name and extra fields; None where there is none."""
    offset = source.position
    fixed = source.read(LOCAL_BYTES)
    if len(fixed) < LOCAL_BYTES or not fixed.startswith(LOCAL_SIGNATURE):
        return None
    _, flags, method, crc, stored_bytes, size, name_bytes, extra_bytes = _LOCAL.unpack(fixed)
    name, extra = source.read(name_bytes), source.read(extra_bytes)
    size, stored_bytes = widen(extra, size, stored_bytes)
    return Entry(unicode_name(extra, name), name, flags, method, crc, stored_bytes, size, offset)


def _agree(entry: Entry, local: Entry) -> bool:
    """Return whether directory and local header say the same; either may be forged or damaged."""
    if (entry.raw_name, entry.method) != (local.raw_name, local.method) or local.is_encrypted:
        return False
    if local.flags & SIZES_FOLLOW:
        return True
    here, there = (entry.crc, entry.stored_bytes, entry.size), (local.crc, local.stored_bytes)
    return here == (*there, local.size)


def _inflate(stored: bytes, size: int) -> bytes | None:
    """Inflate no more than one byte beyond the declared size; None for what is not deflated."""
    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    try:
        data = inflater.decompress(stored, size + 1)
    except zlib.error:
        return None
    return data if inflater.eof else None


def extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield id and content of the extra fields, up to the first that is cut."""
    at = 0
    while at + 4 <= len(extra):
        field_id, num_bytes = struct.unpack_from("<HH", extra, at)
        content = extra[at + 4 : at + 4 + num_bytes]
        if len(content) < num_bytes:
            return
        yield field_id, content
        at += 4 + num_bytes


def widen(extra: bytes, *numbers: int) -> tuple[int, ...]:
    """Replace those 32-bit numbers that are all ones by the zip64 extra field's, in order."""
    if _FULL_4 not in numbers:
        return numbers
    wide = next((content for field_id, content in extra_fields(extra) if field_id == 1), b"")
    widened, at = [], 0
    for number in numbers:
        if number == _FULL_4 and at + 8 <= len(wide):
            number = int.from_bytes(wide[at : at + 8], "little")
            at += 8
        widened.append(number)
    return tuple(widened)


def unicode_name(extra: bytes, name: bytes) -> bytes:
    """Return the name of the Unicode path extra field, if it belongs to `name`."""
    for field_id, content in extra_fields(extra):
        if field_id == 0x7075 and content[1:5] == zlib.crc32(name).to_bytes(4, "little"):
            return content[5:]
    return name
