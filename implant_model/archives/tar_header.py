"""Header blocks of tar: v7, ustar (POSIX.1-1988), GNU and pax (POSIX.1-2001); pure functions.

Sources: POSIX.1-2017, pax, sections "ustar Interchange Format" and "pax Header Block"; GNU tar's
manual, "Basic Tar Format" and "Storing Sparse Files".
"""

import re
from dataclasses import dataclass, replace

BLOCK_BYTES = 512
# Headers that say something of the member after them: GNU long name and link, pax, Solaris' pax.
EXTENSION_KINDS = frozenset(b"LKxXg")
DIRECTORY_KINDS = frozenset(b"5D")
# Solaris' ACLs (A) and attributes (E), star's inode data (I), GNU's old long names (N) and volume
# label (V): what their bodies hold is of no member.
METADATA_KINDS = frozenset(b"AEINV")
NO_MEMBER_KINDS = EXTENSION_KINDS | DIRECTORY_KINDS | METADATA_KINDS
REGULAR_KINDS = frozenset(b"07\0")
# Hard and symbolic link, devices, directory and FIFO have no body, whatever size they declare.
BODILESS_KINDS = frozenset(b"123456")
# ... and this is the rest of a file that another volume begins.
IRREGULAR_KINDS = BODILESS_KINDS | frozenset(b"M")

_OCTAL = re.compile(rb" *([0-7]*)(?:[ \0]|$)")
_PAX_RECORD = re.compile(rb"([0-9]{1,10}) ([^=]+)=")
_CHECKSUM = slice(148, 156)
_MAGIC = slice(257, 265)


@dataclass(frozen=True, slots=True)
class Header:
    """One header block whose checksum is right.

    Attributes:
        name: Name of the member, undecoded.
        size: Declared size of its body in bytes.
        kind: Its type byte.
        sparse: Whether the body is a map of holes and pieces, not the content.
        more_map: Whether blocks with the rest of an old GNU sparse map follow.
        sound: False where an extended header of this member could not be understood.
    """

    name: bytes
    size: int
    kind: int
    sparse: bool = False
    more_map: bool = False
    sound: bool = True

    @property
    def is_directory(self) -> bool:
        """Whether this is a folder; a trailing slash marks one in v7 and in some later tars."""
        if self.kind in DIRECTORY_KINDS:
            return True
        return self.kind in REGULAR_KINDS and not self.size and self.name.endswith(b"/")

    @property
    def is_regular(self) -> bool:
        """Return whether this is a file; POSIX has unknown types read as one."""
        return self.kind not in IRREGULAR_KINDS


@dataclass(frozen=True, slots=True)
class Extension:
    """What extended headers say of the members after them.

    Attributes:
        name: Their name, instead of the header's; None to keep that.
        size: Size of their body in bytes, instead of the header's; None to keep that.
        sparse: Whether they are sparse.
        sound: False where a record could not be understood.
    """

    name: bytes | None = None
    size: int | None = None
    sparse: bool = False
    sound: bool = True


NO_EXTENSION = Extension()


def parse_header(block: bytes) -> Header | None:
    """Return the header in a block of 512 bytes; None where its checksum or size is wrong."""
    if len(block) != BLOCK_BYTES or not _checksum_agrees(block):
        return None
    size = _number(block[124:136])
    if size is None:
        return None
    kind = block[156]
    return Header(_name(block), size, kind, kind == ord("S"), kind == ord("S") and block[482] != 0)


def damaged_header(block: bytes) -> Header | None:
    """Return what a damaged or cut header still states, its size left out.

    Its magic tells that a block was a header, or its numbers, all of them octal.
    """
    if len(block) < BLOCK_BYTES and not block[_MAGIC].startswith(b"ustar"):
        return None
    numbers = (block[100:108], block[108:116], block[116:124], block[124:136], block[_CHECKSUM])
    octal = all(number.strip(b" \0") and _octal(number) is not None for number in numbers)
    if not octal and not block[_MAGIC].startswith(b"ustar"):
        return None
    return Header(_name(block), 0, block[156], sound=False)


def is_next_header(block: bytes) -> bool:
    """Whether a block in the midst of unknown bytes is a header: its checksum and its magic."""
    return block[_MAGIC].startswith(b"ustar") and parse_header(block) is not None


def parse_extension(kind: int, body: bytes, before: Extension) -> Extension:
    """Add what an extended header of a type in `EXTENSION_KINDS` states to what is known.

    Returns:
        Always a new object: that there was an extended header tells that a member has to come.
    """
    if kind == ord("L"):
        return replace(before, name=body.partition(b"\0")[0])
    return replace(before) if kind == ord("K") else parse_pax(body, before)


def parse_pax(body: bytes, before: Extension) -> Extension:
    r"""Add the records of a pax header to what is known already.

    Records are "length key=value\n", the length in decimal digits and of the whole record. An
    empty value takes a key back. Keys other than path, size and those of sparse files are passed
    over. A record out of this form makes the result unsound: it may have held the size.
    """
    extension, offset = replace(before), 0
    named_by_sparse = False
    body = body.rstrip(b"\0")
    while offset < len(body):
        found = _PAX_RECORD.match(body, offset)
        end = offset + int(found[1]) if found else 0
        if found is None or end <= found.end() or body[end - 1 : end] != b"\n":
            return replace(extension, sound=False)
        key, value = found[2], body[found.end() : end - 1]
        if key == b"size":
            extension = _with_size(extension, value)
        elif key == b"GNU.sparse.name" or (key == b"path" and not named_by_sparse):
            extension = replace(extension, name=value or None)
            named_by_sparse = key != b"path"
        elif key.startswith(b"GNU.sparse.") or key == b"SCHILY.realsize":
            extension = replace(extension, sparse=True)
        offset = end
    return extension


def extend(header: Header, extension: Extension) -> Header:
    """Return a header with what the extended headers before it say."""
    if extension is NO_EXTENSION:
        return header
    return replace(
        header,
        name=header.name if extension.name is None else extension.name,
        size=header.size if extension.size is None else extension.size,
        sparse=header.sparse or extension.sparse,
        sound=extension.sound,
    )


def _with_size(extension: Extension, value: bytes) -> Extension:
    if not value:
        return replace(extension, size=None)
    if not value.isdigit() or len(value) > 20:
        return replace(extension, sound=False)
    return replace(extension, size=int(value))


def _checksum_agrees(block: bytes) -> bool:
    """Compare the sum of all bytes, its own field taken as spaces; some tars sum signed bytes."""
    stored = _octal(block[_CHECKSUM])
    if not stored:
        return False
    total = sum(block) - sum(block[_CHECKSUM]) + 8 * ord(" ")
    if stored == total:
        return True
    num_negative = sum(byte >= 128 for byte in block) - sum(
        byte >= 128 for byte in block[_CHECKSUM]
    )
    return stored == total - 256 * num_negative


def _number(field: bytes) -> int | None:
    """Read octal digits, or GNU's binary form of numbers above 8 GiB; None for anything else."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    return _octal(field)


def _octal(field: bytes) -> int | None:
    found = _OCTAL.match(field)
    return int(found[1] or b"0", 8) if found else None


def _name(block: bytes) -> bytes:
    """Join prefix and name; GNU's own magic ("ustar  ") has other fields in place of a prefix."""
    name = block[:100].partition(b"\0")[0]
    if block[_MAGIC][:6] != b"ustar\0":
        return name
    # star keeps times behind a prefix of 131 bytes, and records it at the end of the block.
    prefix = block[345 : 476 if block[508:512] == b"tar\0" else 500].partition(b"\0")[0]
    return prefix + b"/" + name if prefix else name
