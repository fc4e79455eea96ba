"""JPEG, JPEG-LS and JPEG 2000 streams of DICOM frames > stored values.

Every size is checked against the stream's own header before a codec sees it. The codec follows from
the stream, because transfer syntaxes lie: Pillow for JPEG and JPEG 2000, GDCM for lossless JPEG
(libjpeg-turbo takes damage in it for a warning), and imagecodecs for JPEG-LS (CharLS), 12-bit JPEG
(libjpeg-turbo) and the JPEG 2000 that Pillow cannot hold (OpenJPEG).
"""

import io
from typing import cast

import cv2
import gdcm
import numpy as np
from imagecodecs import jpeg2k_decode, jpeg8_decode, jpegls_decode
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile

from implant_model.decode.frames import PixelFormat
from implant_model.decode.markers import (
    END,
    J2kFrame,
    JpegFrame,
    has_own_size,
    j2k_frame,
    jpeg_frame,
)
from implant_model.decode.raster import ended_jpeg
from implant_model.errors import MemberError, Reason

LARGEST_TILE_COUNT = 65535  # Isot of T.800 A.4.2 is 16 bits
JPEG_DCT = frozenset({0xC0, 0xC1, 0xC2})


def compressed(stream: bytes, fmt: PixelFormat, size_px: int | None) -> np.ndarray:
    """Return stored values of a JPEG, JPEG-LS or JPEG 2000 stream, whichever it is.

    Args:
        stream: One frame.
        fmt: What the dataset states of it; the stream's own header must agree in size.
        size_px: No side under this is needed.

    Raises:
        MemberError: corrupt, truncated, or unsupported_encoding.
    """
    if stream.startswith(b"\xff\xd8"):
        frame = jpeg_frame(stream)
        if not frame.whole and frame.bits == 8:
            stream = ended_jpeg(stream, frame)
        return _read_jpeg(stream, jpeg_frame(stream), fmt, size_px)
    if stream.startswith(b"\xff\x4f\xff\x51") or stream[4:8] == b"jP  ":
        main = j2k_frame(stream)
        # A pad byte behind the end would be part of a last tile that says no length (Psot 0).
        end = stream.rfind(END, max(main.start, len(stream) - 64)) if main.whole else -1
        return _read_j2k(stream[: end + 2] if end >= 0 else stream, main, fmt, size_px)
    raise MemberError(Reason.UNSUPPORTED_ENCODING, "The frame is no JPEG, JPEG-LS or JPEG 2000.")


def _check_frame(frame: JpegFrame | J2kFrame, fmt: PixelFormat) -> None:
    if (frame.rows, frame.columns) != (fmt.rows, fmt.columns):
        raise MemberError(Reason.CORRUPT, "The compressed frame is not of rows x columns.")
    if frame.components not in (1, 3):
        raise MemberError(Reason.UNSUPPORTED_ENCODING, "Frames of 1 or 3 components are read.")
    if not frame.whole:
        raise MemberError(Reason.TRUNCATED, "The compressed frame ends before its end marker.")


def _read_jpeg(
    stream: bytes, frame: JpegFrame, fmt: PixelFormat, size_px: int | None
) -> np.ndarray:
    _check_frame(frame, fmt)
    if frame.process == 0xF7:
        return _signed_like(_read_jpeg_ls(stream), frame.bits, fmt)
    if frame.process == 0xC3:
        return _signed_like(_read_lossless(stream, frame, fmt), frame.bits, fmt)
    if frame.process not in JPEG_DCT or frame.bits not in (8, 12):
        raise MemberError(
            Reason.UNSUPPORTED_ENCODING, "JPEG: DCT of 8 or 12 bits, or lossless, is read."
        )
    if frame.bits == 12:
        return _signed_like(_read_12_bits(stream, frame), 12, fmt)
    image = JpegImageFile(io.BytesIO(stream))
    raw_colour = frame.components == 3 and fmt.photometric == "RGB" and frame.adobe is None
    # Without Adobe's marker Pillow takes 3 components for YCbCr; asking for YCbCr leaves them.
    image.draft("YCbCr" if raw_colour else None, (size_px, size_px) if size_px else image.size)
    pixels = np.asarray(image if raw_colour or frame.components == 1 else image.convert("RGB"))
    return _signed_like(pixels, 8, fmt)


def _read_jpeg_ls(stream: bytes) -> np.ndarray:
    if has_own_size(stream):
        raise MemberError(
            Reason.UNSUPPORTED_ENCODING, "JPEG-LS with a size of its own is not read."
        )
    return np.asarray(jpegls_decode(stream))


def _read_12_bits(stream: bytes, frame: JpegFrame) -> np.ndarray:
    if frame.components != 1:
        raise MemberError(Reason.UNSUPPORTED_ENCODING, "JPEG of 12 bits is read in grey alone.")
    return np.asarray(jpeg8_decode(stream))


def _read_lossless(stream: bytes, frame: JpegFrame, fmt: PixelFormat) -> np.ndarray:
    """Return lossless JPEG by GDCM, whose transcoder reports failure (its `GetBuffer` does not)."""
    allocated = 8 if frame.bits <= 8 else 16
    image = _gdcm_image(stream, frame, allocated)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
    change.SetForce(True)
    change.SetInput(image)
    image.this.disown()  # `change` counts it as its own and frees it; twice would abort the process
    if not change.Change():
        raise MemberError(Reason.CORRUPT, "GDCM could not decode the lossless JPEG frame.")
    value = change.GetOutput().GetDataElement().GetByteValue()
    raw = value.GetBuffer().encode("utf-8", "surrogateescape") if value is not None else b""
    size = fmt.rows * fmt.columns * frame.components * allocated // 8
    if len(raw) < size:
        raise MemberError(Reason.CORRUPT, "GDCM returned fewer pixels than rows x columns.")
    pixels = np.frombuffer(raw, f"<u{allocated // 8}", size // (allocated // 8))
    shape = (fmt.rows, fmt.columns) if frame.components == 1 else (fmt.rows, fmt.columns, 3)
    return pixels.reshape(shape)


def _gdcm_image(stream: bytes, frame: JpegFrame, allocated: int) -> "gdcm.Image":
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(stream)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((frame.columns, frame.rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation
    grey = frame.components == 1
    image.SetPhotometricInterpretation(kind(kind.MONOCHROME2 if grey else kind.RGB))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    bits = frame.bits
    image.SetPixelFormat(gdcm.PixelFormat(frame.components, allocated, bits, bits - 1, 0))
    return image


def _read_j2k(stream: bytes, frame: J2kFrame, fmt: PixelFormat, size_px: int | None) -> np.ndarray:
    """Return JPEG 2000 and HTJ2K by Pillow (OpenJPEG), at a reduced size where that is enough.

    Pillow returns signed samples with an offset and all samples scaled up to 8 or 16 bits; both are
    taken back here, so that windows keep their meaning.
    """
    _check_frame(frame, fmt)
    if frame.tiles > LARGEST_TILE_COUNT:
        raise MemberError(Reason.CORRUPT, "The JPEG 2000 frame claims an impossible tile count.")
    if frame.tiles_found < frame.tiles:
        raise MemberError(Reason.TRUNCATED, "The JPEG 2000 frame lacks tiles.")
    if frame.bits > (16 if frame.components == 1 else 8):
        raise MemberError(Reason.UNSUPPORTED_ENCODING, "JPEG 2000 of this depth is not read.")
    pixels = _read_reduced(stream, _reduction(frame, size_px))
    if pixels is None:
        pixels = _read_full(stream, frame)
    gap = 8 * pixels.itemsize - frame.bits
    pixels = pixels >> pixels.dtype.type(gap) if gap else pixels
    if frame.components == 1 and frame.signed:
        return (pixels.astype(np.int32) - (1 << (frame.bits - 1))).astype(np.int16)
    return _signed_like(pixels, frame.bits, fmt)


def _read_full(stream: bytes, frame: J2kFrame) -> np.ndarray:
    try:
        return np.asarray(Jpeg2KImageFile(io.BytesIO(stream)))
    except OSError:
        if frame.components == 1:
            raise
        # Colour spaces that Pillow does not know.
        return np.asarray(jpeg2k_decode(stream))


def _read_reduced(stream: bytes, halvings: int) -> np.ndarray | None:
    """Return the wavelet's low-resolution image; None where none is or its size is another.

    Pillow's own `reduce` rounds the size to the nearest, where T.800 B.5 rounds up: it refuses the
    stream of a picture whose sides do not divide evenly as broken. An image area that does not
    start at 0 is refused here, too, and read in full.
    """
    if not halvings:
        return None
    image = Jpeg2KImageFile(io.BytesIO(stream))
    width, height = (-(-side >> halvings) for side in image.size)
    tile = image.tile[0]
    kind, _, *rest = cast(tuple[object, ...], tile.args)
    arguments = (kind, halvings, *rest)
    image._size = width, height
    image.tile = [tile._replace(extents=(0, 0, width, height), args=arguments)]
    try:
        return _centred(np.asarray(image), halvings)
    except OSError:
        return None


def _reduction(frame: J2kFrame, size_px: int | None) -> int:
    """Return halvings that leave both sides at or over `size_px`, at most those that are stored."""
    halvings = 0
    while size_px and halvings < min(frame.levels, 3):
        if min(frame.rows, frame.columns) >> (halvings + 1) < size_px:
            break
        halvings += 1
    return halvings


def _centred(pixels: np.ndarray, halvings: int) -> np.ndarray:
    """Move the samples of a wavelet's low-resolution image to the middle of what they stand for.

    Sample j of it is at pixel j * 2**halvings of the full image, not in the middle of its
    2**halvings pixels: without this, edges of the networks' input are up to 8 levels off.
    """
    shift = 0.5 - 0.5 ** (halvings + 1)
    moved = np.array([[1.0, 0.0, shift], [0.0, 1.0, shift]])
    size = pixels.shape[1], pixels.shape[0]
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cast(
        np.ndarray,
        cv2.warpAffine(pixels, moved, size, flags=how, borderMode=cv2.BORDER_REPLICATE),
    )


def _signed_like(pixels: np.ndarray, bits: int, fmt: PixelFormat) -> np.ndarray:
    """Read unsigned samples of `bits` bits as the two's complement that the dataset declares."""
    if not fmt.signed or pixels.ndim == 3:
        return pixels
    gap = 8 * pixels.itemsize - bits
    kind = np.dtype(f"i{pixels.itemsize}").type
    return cast(np.ndarray, (pixels << pixels.dtype.type(gap)).view(kind) >> kind(gap))
