"""One member of an archive, its name made fit for a table, and what an object is.

Names are data: nothing is ever written to disk under them.
"""

import re
from dataclasses import dataclass

from implant_model.archives.tar_header import BLOCK_BYTES, damaged_header, parse_header
from implant_model.content import Content, content_of
from implant_model.errors import Reason
from implant_model.limits import Limits

# The longest run of zeros that an empty tar is (GNU tar and Python write one record of 20 blocks).
EMPTY_TAR_BYTES = 20 * BLOCK_BYTES
# Enough to see a header behind an empty tar, and that no more zeros follow one.
SNIFF_BYTES = EMPTY_TAR_BYTES + BLOCK_BYTES

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CLUTTER_NAMES = frozenset({".ds_store", "thumbs.db", "desktop.ini", "dicomdir"})


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an archive, or a single radiograph.

    Attributes:
        index: Position in the archive, from 0, directories not counted.
        name: Valid UTF-8 without surrogates or control characters: bytes that are not UTF-8 and
            control characters stand as backslash escapes. At most `Limits.name_bytes` bytes.
        size: Size in bytes, as the archive declares it.
        data: The content, to be used before the next member is read; None where `reason` is set.
        reason: Why there is no content: `empty`, `too_large`, `truncated`, `corrupt`,
            `not_regular`, `encrypted`, `unsupported_encoding`, `nested_archive` or `clutter`.
    """

    index: int
    name: str
    size: int
    data: bytes | memoryview | None
    reason: Reason | None


def read_member(index: int, name: str, size: int, data: bytes | memoryview) -> Member:
    """Return the member that `data` is, whole and proven: empty, an archive, or content."""
    reason = None
    if not data:
        reason = Reason.EMPTY
    elif is_archive(bytes(data[:SNIFF_BYTES])):
        reason = Reason.NESTED_ARCHIVE
    return Member(index, name, size, None if reason else data, reason)


def is_clutter(name: str) -> bool:
    """Return whether archives carry a file of this name by habit: macOS, Windows, DICOMDIR."""
    folder, _, base = name.replace("\\", "/").rpartition("/")
    if base.startswith("._") or base.lower() in _CLUTTER_NAMES:
        return True
    return "__MACOSX" in folder and "__MACOSX" in folder.split("/")


def decode_name(raw: bytes, limits: Limits, fallback: str = "utf-8") -> str:
    """Return a name as the tables hold it.

    Args:
        raw: The name in the archive: UTF-8, or else `fallback`.
        limits: `name_bytes` is the most bytes of UTF-8 that are kept.
        fallback: Encoding of names that are not UTF-8; what it cannot decode is escaped.
    """
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        name = raw.decode(fallback, "backslashreplace")
    if not name.isprintable():
        name = _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", name)
    encoded = name.encode("utf-8")
    if len(encoded) > limits.name_bytes:
        name = encoded[: limits.name_bytes].decode("utf-8", "ignore")
    return name


def is_archive(data: bytes) -> bool:
    """Return whether a member's content is an archive or a compressed file itself."""
    return content_of(data).is_archive or parse_header(data[:BLOCK_BYTES]) is not None


def sniff(head: bytes) -> Content:
    """Return what an object is.

    Args:
        head: Its first `SNIFF_BYTES` bytes, or all of it.
    """
    content = content_of(head)
    return Content.TAR if not content.is_archive and _is_tar(head[:SNIFF_BYTES]) else content


def _is_tar(head: bytes) -> bool:
    """Whether a tar begins here: damaged in its first header, empty, or behind an empty one."""
    if head[128:132] == b"DICM":
        return False
    num_zeros = len(head) - len(head.lstrip(b"\0"))
    if num_zeros == len(head):
        return 2 * BLOCK_BYTES <= len(head) <= EMPTY_TAR_BYTES and len(head) % BLOCK_BYTES == 0
    start = num_zeros // BLOCK_BYTES * BLOCK_BYTES
    block = head[start : start + BLOCK_BYTES]
    if parse_header(block) is not None:
        return True
    return start == 0 and damaged_header(block) is not None
