"""What bytes are, by their first ones, checked against the files that libraries write."""

import bz2
import gzip
import lzma
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from implant_model.content import Content, content_of
from tests.support.archive_samples import tar_of, zip_of
from tests.support.dicom_edits import dicom, picture
from tests.support.pictures import encoded

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIXELS = picture(bits=8).astype(np.uint8)
FILES = {"a.txt": b"content"}
GROUP_LENGTH = b"\2\0\0\0UL\4\0" + (100).to_bytes(4, "little")
"""The element that a file's meta group begins with, where the preamble is cut off."""


def test_a_tar_has_no_first_bytes_of_its_own() -> None:
    assert content_of(tar_of(FILES)) is Content.UNKNOWN


MADE = {
    "tar.gz": (tar_of(FILES, mode="w:gz"), Content.GZIP),
    "empty gzip": (gzip.compress(b""), Content.GZIP),
    "zstd": (zstd.compress(b"x"), Content.ZSTD),
    "zip": (zip_of(FILES), Content.ZIP),
    "empty zip": (zip_of({}), Content.ZIP),
    "streamed zip": (zip_of(FILES, zipfile.ZIP_STORED, streamed=True), Content.ZIP),
    "empty bzip2": (bz2.compress(b""), Content.OTHER_ARCHIVE),
    "bzip2": (bz2.compress(b"x"), Content.OTHER_ARCHIVE),
    "xz": (lzma.compress(b"x"), Content.OTHER_ARCHIVE),
    "DICOM": (dicom(PIXELS), Content.DICOM),
    "DICOM without its preamble": (GROUP_LENGTH + dicom(PIXELS)[132:], Content.DICOM),
}


@pytest.mark.parametrize("name", MADE)
def test_archives_and_dicom_are_recognised(name: str) -> None:
    data, content = MADE[name]
    assert content_of(data) is content
    assert content_of(data[:256]) is content


@pytest.mark.parametrize(
    ("file_format", "content"),
    [
        ("PNG", Content.PNG),
        ("JPEG", Content.JPEG),
        *((name, Content.OTHER_IMAGE) for name in ("TIFF", "GIF", "BMP", "WEBP", "JPEG2000")),
    ],
)
def test_pictures_are_recognised(file_format: str, content: Content) -> None:
    data = encoded(Image.fromarray(PIXELS), file_format)
    assert content_of(data) is content
    assert content.is_image


@pytest.mark.parametrize("text", [b"", b"BM is how this text begins", b"BZh is no bzip2", b"PK"])
def test_text_is_unknown(text: bytes) -> None:
    assert content_of(text + bytes(300)) is Content.UNKNOWN


def test_an_archive_is_no_image() -> None:
    kinds = {kind: (kind.is_archive, kind.is_image) for kind in Content}
    assert kinds.pop(Content.UNKNOWN) == (False, False)
    assert all(sum(answer) == 1 for answer in kinds.values())
