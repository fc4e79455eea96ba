"""The bytes of one member of an archive > a display-ready grey picture, or the reason for none.

What a member is follows from its content, not from its name. DICOM, PNG and JPEG are read; any
other image format is `unsupported_encoding`, any archive `nested_archive`, and what is neither
`not_an_image`. `decode` is the one guarded place where an error becomes a reason.

A decoder of hostile bytes can crash, hang or fill the memory: production code calls `decode` in
the child process of `decode.sandbox`. Called directly it writes nothing to the log or to Python's
standard streams; while it runs, Python's warnings are off for the process (`warnings` has no
narrower switch) as are the loggers of Pillow and pydicom, and native codecs may write a line
without values to the C standard error.
"""

import contextlib
import logging
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import cv2
import numpy as np

from implant_model.archives.members import is_archive
from implant_model.content import JPEG_MAGIC, Content, content_of
from implant_model.decode.decoded import Decoded, Header, Pixels, Prepared
from implant_model.decode.dicom import DicomSource, looks_like_dicom
from implant_model.decode.preprocess import Preprocessing, preprocess, trim
from implant_model.decode.raster import RasterSource, looks_like_raster
from implant_model.errors import MemberError, Reason
from implant_model.limits import Limits

__all__ = ["Decoded", "Header", "Pixels", "decode"]

HEAD_BYTES = 4096  # tell what a member is
SILENT = logging.CRITICAL + 1


class ImageFile(Protocol):
    """A member that was recognised and whose header was read."""

    @property
    def header(self) -> Header:
        """Return what the file states of itself."""

    def picture(self, size_px: int | None) -> Pixels:
        """Decode the pixels; raise MemberError."""


def decode(
    data: bytes | memoryview,
    limits: Limits,
    size_px: int | None = None,
    *,
    unscaled: bool = False,
) -> Decoded:
    """Decode one member.

    Args:
        data: The member, whole. Uncompressed DICOM is read where it lies, and overwritten where
            that is a writable memoryview; the rest is copied.
        limits: Bounds on what is read.
        size_px: A hint that the picture is only needed this large: JPEG and JPEG 2000 are then
            decoded at half, quarter or eighth size, with no side under `size_px`. `Header.rows` and
            `Header.columns` are those of the stored image all the same.
        unscaled: 16-bit greys need not reach from black to white, see `display.to_grey`.

    Returns:
        The picture or the reason; nothing that the bytes hold raises.
    """
    with warnings.catch_warnings(), _silent_loggers():
        warnings.simplefilter("ignore")
        return _guarded(data, limits, size_px, unscaled=unscaled)


def silence_loggers() -> list[tuple[logging.Logger, int]]:
    """Silence the libraries' loggers; return those that were not silent, with their levels.

    Pillow logs names and numbers out of a PNG at DEBUG, which a caller's level may let pass. A
    process that only decodes calls this once: to set levels takes a millisecond, each time.
    """
    loggers = [logging.getLogger(name) for name in ("PIL", "pydicom")]
    loud = [(logger, logger.level) for logger in loggers if logger.level != SILENT]
    for logger, _ in loud:
        logger.setLevel(SILENT)
    return loud


@contextlib.contextmanager
def _silent_loggers() -> Iterator[None]:
    loud = silence_loggers()
    try:
        yield
    finally:
        for logger, level in loud:
            logger.setLevel(level)


def _guarded(
    data: bytes | memoryview, limits: Limits, size_px: int | None, *, unscaled: bool
) -> Decoded:
    header = Header()
    try:
        source = _open(data, limits, unscaled=unscaled)
        header = source.header
        return Decoded(header, source.picture(size_px), None)
    except Exception as error:  # hostile bytes raise anything; only the reason is kept of it
        return Decoded(header, None, _reason_of(error))


def _open(data: bytes | memoryview, limits: Limits, *, unscaled: bool) -> ImageFile:
    """Recognise a member by its content and read its header."""
    if not data:
        raise MemberError(Reason.EMPTY, "The member holds no bytes.")
    if len(data) > limits.member_bytes:
        raise MemberError(Reason.TOO_LARGE, "The member is larger than limits.member_bytes.")
    head = bytes(data[:HEAD_BYTES])
    if looks_like_raster(head):
        return RasterSource(bytes(data), limits)
    if looks_like_dicom(head):
        return DicomSource(data, limits, unscaled)
    if is_archive(head):
        raise MemberError(Reason.NESTED_ARCHIVE, "The member is an archive or a compressed file.")
    if content_of(head) is Content.OTHER_IMAGE:
        raise MemberError(Reason.UNSUPPORTED_ENCODING, "Only DICOM, PNG and JPEG are read.")
    raise MemberError(Reason.NOT_AN_IMAGE, "The member is neither DICOM, PNG nor JPEG.")


def _reason_of(error: Exception) -> Reason:
    """Map what a decoder raised to the closed set; messages are dropped, they may hold values."""
    if isinstance(error, MemberError):
        return error.reason
    if isinstance(error, MemoryError | RecursionError):
        return Reason.TOO_LARGE
    if isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem:
        return Reason.TOO_LARGE
    if isinstance(error, NotImplementedError):
        return Reason.UNSUPPORTED_ENCODING
    if isinstance(error, EOFError):
        return Reason.TRUNCATED
    if isinstance(error, zlib.error):
        return Reason.CORRUPT
    return Reason.CORRUPT


def picture_of(data: bytes | memoryview, spec: Preprocessing, limits: Limits) -> Prepared:
    """Decode and preprocess one member on the calling thread.

    Args:
        data: The member, whole; see `decode` of a memoryview that can be written.
        spec: The package's preprocessing.
        limits: Bounds on what is read.

    Returns:
        The picture or the reason; nothing that the bytes hold raises.
    """
    decoded = decode(data, limits, spec.working_px, unscaled=True)
    if decoded.pixels_HW is None:
        return Prepared(decoded.header, None, decoded.reason)
    try:
        if spec.trim_borders and _is_reduced_jpeg(data, decoded):
            if _has_border(decoded):
                decoded = decode(data, limits)
            else:
                spec = replace(spec, trim_borders=False)  # it need not be looked for twice
        return Prepared(decoded.header, preprocess(_pixels(decoded), spec), None)
    except MemberError as error:
        return Prepared(decoded.header, None, error.reason)
    except (MemoryError, cv2.error):
        return Prepared(decoded.header, None, Reason.TOO_LARGE)


def _is_reduced_jpeg(data: bytes | memoryview, decoded: Decoded) -> bool:
    """Return whether a JPEG was decoded too small to cut a border to the pixel.

    In full it takes half as long again. JPEG 2000 would take forty times as long, and stays.
    """
    rows, columns = decoded.header.rows or 0, decoded.header.columns or 0
    return data[:3] == JPEG_MAGIC and max(_pixels(decoded).shape) < max(rows, columns)


def _has_border(decoded: Decoded) -> bool:
    pixels_HW = _pixels(decoded)
    return trim(pixels_HW).shape != pixels_HW.shape


def _pixels(decoded: Decoded) -> np.ndarray:
    if decoded.pixels_HW is None:
        raise MemberError(decoded.reason or Reason.CORRUPT, "The second decode gave no picture.")
    return decoded.pixels_HW
