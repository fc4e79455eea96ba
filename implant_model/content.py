"""What bytes are, by their first ones: the one table of formats that are read or recognised.

A name is never asked. A tar has no first bytes of its own: `archives.members` tells it by a header
block's checksum. DICOM without a preamble is recognised by `decode.dicom`, which looks closer.
"""

import re
from enum import StrEnum
from typing import Final


class Content(StrEnum):
    """What an object or a member is."""

    TAR = "tar"
    ZIP = "zip"
    GZIP = "gzip"
    ZSTD = "zstd"
    OTHER_ARCHIVE = "an archive of another kind"
    DICOM = "DICOM"
    PNG = "PNG"
    JPEG = "JPEG"
    PGM = "PGM"
    OTHER_IMAGE = "an image of another kind"
    UNKNOWN = "unknown"

    @property
    def is_archive(self) -> bool:
        """Return whether it is an archive or a compressed file."""
        return self in _ARCHIVES

    @property
    def is_image(self) -> bool:
        """Return whether it is an image, of a format that is read or not."""
        return self in _IMAGES


_ARCHIVES: Final = frozenset({"tar", "zip", "gzip", "zstd", Content.OTHER_ARCHIVE})
_IMAGES: Final = frozenset(
    {Content.DICOM, Content.PNG, Content.JPEG, Content.PGM, Content.OTHER_IMAGE}
)

PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC: Final = b"\xff\xd8\xff"
_FORMATS: Final = (
    (0, b"\x1f\x8b", Content.GZIP),
    (0, b"\x28\xb5\x2f\xfd", Content.ZSTD),
    (0, b"PK\x03\x04", Content.ZIP),
    (0, b"PK\x05\x06", Content.ZIP),
    (0, b"PK\x07\x08PK", Content.ZIP),
    (0, b"PK00PK", Content.ZIP),
    (0, b"\xfd7zXZ\x00", Content.OTHER_ARCHIVE),
    (0, b"7z\xbc\xaf\x27\x1c", Content.OTHER_ARCHIVE),
    (0, b"Rar!\x1a\x07", Content.OTHER_ARCHIVE),
    (0, b"\x04\x22\x4d\x18", Content.OTHER_ARCHIVE),  # lz4
    (0, b"LZIP\x01", Content.OTHER_ARCHIVE),
    (0, b"\x02\x21\x4c\x18", Content.OTHER_ARCHIVE),  # lz4, the older form
    (0, b"\x1f\x9d", Content.OTHER_ARCHIVE),  # compress
    (0, b"\x1f\xa0", Content.OTHER_ARCHIVE),  # compress -H
    (0, b"\x89LZO\x00\r\n\x1a\n", Content.OTHER_ARCHIVE),
    (0, b"\xff\x06\x00\x00sNaPpY", Content.OTHER_ARCHIVE),
    (0, b"070701", Content.OTHER_ARCHIVE),  # cpio
    (0, b"070702", Content.OTHER_ARCHIVE),
    (0, b"070707", Content.OTHER_ARCHIVE),
    (0, b"!<arch>\n", Content.OTHER_ARCHIVE),  # ar, deb
    (0, b"!<thin>\n", Content.OTHER_ARCHIVE),
    (0, b"MSCF\x00\x00\x00\x00", Content.OTHER_ARCHIVE),  # cab
    (0, b"MSWIM\x00\x00\x00", Content.OTHER_ARCHIVE),
    (0, b"xar!", Content.OTHER_ARCHIVE),
    (0, b"\xed\xab\xee\xdb", Content.OTHER_ARCHIVE),  # rpm
    (0, b"hsqs", Content.OTHER_ARCHIVE),  # squashfs
    (7, b"**ACE**", Content.OTHER_ARCHIVE),
    (20, b"\xdc\xa7\xc4\xfd", Content.OTHER_ARCHIVE),  # zoo
    (0, b"SIT!", Content.OTHER_ARCHIVE),
    (0, b"StuffIt (c)1997-", Content.OTHER_ARCHIVE),
    (0, PNG_MAGIC, Content.PNG),
    (0, JPEG_MAGIC, Content.JPEG),
    (0, b"II*\x00", Content.OTHER_IMAGE),  # TIFF
    (0, b"MM\x00*", Content.OTHER_IMAGE),
    (0, b"II+\x00", Content.OTHER_IMAGE),  # BigTIFF
    (0, b"MM\x00+", Content.OTHER_IMAGE),
    (0, b"GIF8", Content.OTHER_IMAGE),
    (0, b"\x00\x00\x00\x0cjP  ", Content.OTHER_IMAGE),
    (0, b"\xff\x4f\xff\x51", Content.OTHER_IMAGE),  # JPEG 2000 code stream
    (0, b"\xff\x0a", Content.OTHER_IMAGE),  # JPEG XL
    (0, b"\x00\x00\x00\x0cJXL \r\n\x87\n", Content.OTHER_IMAGE),
    (8, b"WEBP", Content.OTHER_IMAGE),
    (4, b"ftypheic", Content.OTHER_IMAGE),
    (4, b"ftypheix", Content.OTHER_IMAGE),
    (4, b"ftypmif1", Content.OTHER_IMAGE),
    (4, b"ftypavif", Content.OTHER_IMAGE),
    (0, b"8BPS", Content.OTHER_IMAGE),  # Photoshop
    (0, b"\x02\x00\x00\x00", Content.DICOM),  # file meta group without its preamble
    (0, b"\x08\x00\x05\x00", Content.DICOM),  # dataset that opens with its character set
    (0, b"\x08\x00\x08\x00", Content.DICOM),  # ... or with its image type
)
PGM_START: Final = re.compile(rb"P[25](?=\s)(?:\s+|#[^\n\r]*[\n\r])+(\d{1,10})(?=\s)")
"""Of a grey map in text or binary, as old film scanners write it, up to its width."""
_OTHER_MAPS: Final = re.compile(rb"P[13467f]\s+(#|\d{1,10}\s)|P7\nWIDTH ")
_ICO: Final = re.compile(rb"\0\0[\x01\x02]\0[\x01-\x40]\0", re.DOTALL)
_LZH: Final = re.compile(rb".{2}-l[hz][0-9dsx]-", re.DOTALL)
_LZMA: Final = re.compile(rb"\x5d\x00\x00..(\xff{8}|.{5}\x00{3})\x00", re.DOTALL)
"""The usual properties, a dictionary of 64 KiB and more, a size below 2^40 or none; the first byte
of the range coder is 0."""
_BZIP2: Final = re.compile(rb"BZh[1-9](\x31\x41\x59\x26\x53\x59|\x17\x72\x45\x38\x50\x90)")
_ZSTD_SKIPPABLE: Final = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
_BMP_HEADER_SIZES: Final = (12, 40, 52, 56, 64, 108, 124)


def content_of(head: bytes) -> Content:
    """Return what begins with these bytes, of which the first 256 are enough; never TAR.

    Args:
        head: The first bytes of an object or a member, or all of it.
    """
    if head[128:132] == b"DICM":
        return Content.DICOM
    if _BZIP2.match(head) or _LZMA.match(head) or _LZH.match(head) or _is_old_archive(head):
        return Content.OTHER_ARCHIVE
    if _ZSTD_SKIPPABLE.match(head):
        return Content.ZSTD
    if PGM_START.match(head):
        return Content.PGM
    if _is_bmp(head) or _is_tga(head) or _OTHER_MAPS.match(head) or _ICO.match(head):
        return Content.OTHER_IMAGE
    found = (kind for place, magic, kind in _FORMATS if head.startswith(magic, place))
    return next(found, Content.UNKNOWN)


def _is_old_archive(head: bytes) -> bool:
    """Two bytes alone would match anything: the header of ARJ or of a binary cpio must fit."""
    if head[:2] == b"\x60\xea":  # header's size; its first part's size
        return 30 <= int.from_bytes(head[2:4], "little") <= 2600 and 30 <= head[4] <= 64
    for order, magic in (("little", b"\xc7\x71"), ("big", b"\x71\xc7")):
        if head[:2] == magic and len(head) >= 26:
            name_bytes = int.from_bytes(head[20:22], order)  # type: ignore[arg-type]
            name = head[26 : 26 + name_bytes]
            return 1 < name_bytes <= 256 and name.find(b"\0") == min(name_bytes, len(name)) - 1
    return False


def _is_tga(head: bytes) -> bool:
    """Return whether the 18 bytes of a header fit: TGA has no first bytes of its own."""
    if len(head) < 18 or head[1] > 1 or head[2] not in (1, 2, 3, 9, 10, 11):
        return False
    maps = (head[1] == 1) == (head[2] in (1, 9)) and (head[1] == 1 or not any(head[3:8]))
    sides = int.from_bytes(head[12:14], "little") and int.from_bytes(head[14:16], "little")
    depths = {1: (8,), 2: (15, 16, 24, 32), 3: (8, 16)}[head[2] & 7]
    return bool(maps and sides and head[16] in depths and not head[17] & 0xC0)


def _is_bmp(head: bytes) -> bool:
    """`BM` alone would also match text; the size of the header that follows tells."""
    return head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES
