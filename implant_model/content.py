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
_IMAGES: Final = frozenset({Content.DICOM, Content.PNG, Content.JPEG, Content.OTHER_IMAGE})

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
    (0, b"\x1f\x9d", Content.OTHER_ARCHIVE),  # compress
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
    if _BZIP2.match(head):
        return Content.OTHER_ARCHIVE
    if _ZSTD_SKIPPABLE.match(head):
        return Content.ZSTD
    if _is_bmp(head):
        return Content.OTHER_IMAGE
    found = (kind for place, magic, kind in _FORMATS if head.startswith(magic, place))
    return next(found, Content.UNKNOWN)


def _is_bmp(head: bytes) -> bool:
    """`BM` alone would also match text; the size of the header that follows tells."""
    return head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES
