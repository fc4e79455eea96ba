"""PNG, JPEG and PGM files > display-ready grey.

Neither format can say that it holds a radiograph, so every picture is accepted. Sizes are read from
the file's own header and checked before a decoder sees them; a file that ends early is `truncated`
and never a half-grey picture.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, cast

import cv2
import numpy as np
from isal import igzip_lib, isal_zlib
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile

from implant_model.content import JPEG_MAGIC, PGM_START, PNG_MAGIC
from implant_model.decode.decoded import Header, Pixels
from implant_model.decode.markers import (
    END,
    JpegFrame,
    PgmFrame,
    PngFrame,
    holds_one_scan,
    jpeg_frame,
    pgm_frame,
    png_chunks,
    png_frame,
)
from implant_model.errors import MemberError, Reason
from implant_model.limits import MIB, Limits

EXIF_ORIENTATION = 0x0112
SEQUENTIAL = frozenset({0xC0, 0xC1})
_MADE_UP = (b"", b"\x55" * 64, b"\xaa" * 64)
JPEG_PROCESSES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})  # what libjpeg-turbo decodes, 8 bit


def looks_like_raster(data: bytes) -> bool:
    """Return whether the bytes start as a PNG, a JPEG or a PGM file does."""
    return data.startswith((PNG_MAGIC, JPEG_MAGIC)) or PGM_START.match(data) is not None


@dataclass(frozen=True)
class RasterSource:
    """A PNG, JPEG or PGM file.

    Attributes:
        data: The file, whole.
        limits: Bounds on what is read.
    """

    data: bytes
    limits: Limits

    @property
    def header(self) -> Header:
        """Return rows and columns as stored, before EXIF orientation; empty for a damaged start."""
        try:
            frame = self._frame()
        except MemberError:
            return Header()
        # A PNG may state sides that no picture and no column of the tables can have.
        rows, columns = (side if side < 2**31 else None for side in (frame.rows, frame.columns))
        return Header(rows=rows, columns=columns)

    def _frame(self) -> PngFrame | JpegFrame | PgmFrame:
        if self.data.startswith(PNG_MAGIC):
            return png_frame(self.data)
        return jpeg_frame(self.data) if self.data.startswith(JPEG_MAGIC) else pgm_frame(self.data)

    def picture(self, size_px: int | None) -> Pixels:
        """Decode the file.

        Args:
            size_px: No side under this is needed; lets JPEG decode at a reduced size.

        Returns:
            Grey of shape (height, width), upright; uint16 for 16-bit PNG, else uint8.

        Raises:
            MemberError: truncated, corrupt, too_large, multi_frame or unsupported_encoding.
        """
        frame = self._frame()
        check_size(frame.rows, frame.columns, self.limits)
        if isinstance(frame, PngFrame):
            return _read_png(self.data, frame)
        if isinstance(frame, PgmFrame):
            return _read_pgm(self.data)
        return _read_jpeg(self.data, frame, size_px)


def check_size(rows: int, columns: int, limits: Limits) -> None:
    """Refuse a picture by its size alone.

    Raises:
        MemberError: corrupt for no pixels, too_large for more than `limits.frame_pixels`.
    """
    if rows < 1 or columns < 1:
        raise MemberError(Reason.CORRUPT, "The header states that the picture has no pixels.")
    if rows * columns > limits.frame_pixels:
        raise MemberError(Reason.TOO_LARGE, "The picture is larger than limits.frame_pixels.")


def _read_png(data: bytes, frame: PngFrame) -> Pixels:
    if frame.animated:
        raise MemberError(Reason.MULTI_FRAME, "The PNG is animated.")
    if not frame.whole:
        raise MemberError(Reason.TRUNCATED, "The PNG ends before its IEND chunk.")
    image = _load(store_pixels(data, frame), PngImageFile)
    if frame.bits == 16 and image.mode not in ("I;16", "I;16B", "I"):
        # Pillow keeps 8 of 16 bits of colour; it has proven the file whole, so OpenCV may read it.
        return _turned(grey_of(_read_with_opencv(data)), _orientation(image))
    return _turned(grey_of_image(image), _orientation(image))


def _read_pgm(data: bytes) -> Pixels:
    try:
        return grey_of_image(_load(data, PpmImageFile))
    except MemberError as error:  # Pillow has several words for a text or a binary one that ends
        reason = Reason.TRUNCATED if _ends_early(error) else Reason.CORRUPT
        raise MemberError(reason, "The PGM cannot be decoded to its end.") from error


def _ends_early(error: MemberError) -> bool:
    words = str(error.__cause__).lower()
    return any(word in words for word in ("truncated", "eof", "not enough", "buffer"))


def _read_jpeg(data: bytes, frame: JpegFrame, size_px: int | None) -> Pixels:
    if frame.process not in JPEG_PROCESSES or frame.bits != 8:
        raise MemberError(Reason.UNSUPPORTED_ENCODING, "JPEG: 8-bit DCT processes are read.")
    image = _load(data if frame.whole else ended_jpeg(data, frame), JpegImageFile, size_px)
    return _turned(grey_of_image(image), _orientation(image))


def ended_jpeg(data: bytes, frame: JpegFrame) -> bytes:
    """Return a JPEG that lacks nothing but its end marker, with one.

    A decoder makes up what is missing of a scan. So the scan is whole if whatever stands behind it
    gives the same picture; one of several scans may lack a whole one without a trace.

    Raises:
        MemberError: truncated.
    """
    if data.endswith(bytes(3)):  # a download that reserved its file, and stopped
        data = data.rstrip(b"\0")
    data = data.rstrip(b"\xff")  # half of the marker, or filling before it
    if frame.process in SEQUENTIAL and holds_one_scan(data):
        pictures = [np.asarray(_load(data + more + END, JpegImageFile)) for more in _MADE_UP]
        if all(np.array_equal(pictures[0], picture) for picture in pictures[1:]):
            return data + END
    raise MemberError(Reason.TRUNCATED, "The JPEG ends before its end-of-image marker.")


def _load(data: bytes, reader: type[ImageFile], size_px: int | None = None) -> ImageFile:
    """Decode with one of Pillow's readers; `Image.open` would first load all of them.

    Raises:
        MemberError: truncated, corrupt or too_large (a compressed text or profile that explodes).
    """
    try:
        image = reader(io.BytesIO(data))
        if size_px is not None:
            image.draft(None, (size_px, size_px))  # a JPEG keeps both sides at or over size_px
        image.load()
    except ValueError as error:
        reason = Reason.TOO_LARGE if "too large" in str(error) else Reason.CORRUPT
        raise MemberError(reason, "Pillow refused the picture's metadata.") from error
    except (OSError, SyntaxError, EOFError, IndexError) as error:
        reason = Reason.TRUNCATED if "truncated" in str(error).lower() else Reason.CORRUPT
        raise MemberError(reason, "Pillow could not decode the picture to its end.") from error
    return image


def _read_with_opencv(data: bytes) -> np.ndarray:
    """Decode a whole PNG with all its bits, channels in the order of RGB(A)."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise MemberError(Reason.CORRUPT, "OpenCV could not decode the picture.")
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels == 3:
        return cast(np.ndarray, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
    return cast(np.ndarray, cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA) if channels == 4 else pixels)


def grey_of_image(image: Image.Image) -> Pixels:
    """Grey of a decoded Pillow image: transparency is black, colour its luminance (ITU-R 601)."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        return np.asarray(image).astype(np.uint16, copy=False)
    if image.has_transparency_data:
        return grey_of(np.asarray(image.convert("RGBA")))
    if image.mode in ("CMYK", "YCCK", "LAB", "HSV"):
        image = image.convert("RGB")
    return cast(Pixels, np.asarray(image if image.mode == "L" else image.convert("L")))


def grey_of(pixels: np.ndarray) -> Pixels:
    """Return grey of an array (height, width), (..., 3) RGB or (..., 4) RGBA, uint8 or uint16."""
    if pixels.ndim == 2:
        return cast(Pixels, pixels)
    grey = cv2.cvtColor(np.ascontiguousarray(pixels[..., :3]), cv2.COLOR_RGB2GRAY)
    if pixels.shape[2] == 4:
        opaque = np.float32(1 / np.iinfo(pixels.dtype).max)
        shade = grey.astype(np.float32) * (pixels[..., 3] * opaque)
        grey = np.rint(shade).astype(pixels.dtype)
    return cast(Pixels, grey)


def _orientation(image: Image.Image) -> int:
    """Return EXIF orientation 1 to 8; 1 (upright) where there is none or it cannot be read."""
    try:
        value = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block raises anything and gives no information of the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    """Turn a stored picture upright (EXIF 2.32, tag 0x0112)."""
    if orientation >= 5:
        pixels = pixels.T
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By colour type: grey, RGB, palette, grey with alpha, RGBA."""
MAX_STORED_BYTES: Final = 64 * MIB
BLOCK_BYTES: Final = 0xFFFF
"""The longest stored block of deflate (RFC 1951, 3.2.4)."""
INPUT_BYTES: Final = 64 << 10
"""Given to ISA-L at a time: what it cannot use at once it copies."""
_BLOCK: Final = struct.Struct("<BHH")


def store_pixels(data: bytes, frame: PngFrame) -> bytes:
    """Inflate the pixels of a whole PNG.

    Args:
        data: The file.
        frame: What `png_frame` read of it; its `whole` is true.

    Returns:
        A file of the same pixels and attributes, the checksum of its IDAT chunk left 0 (Pillow
        does not read that). The file itself where it is interlaced, larger than
        `MAX_STORED_BYTES`, or in any way not as the standard wants it.
    """
    expected = _filtered_bytes(data, frame)
    span = _pixel_chunks(data)
    if not 0 < expected <= MAX_STORED_BYTES or span is None:
        return data
    start, end, deflated = span
    pieces = inflate(deflated, expected)
    if pieces is None:
        return data
    stored = list(_stored(pieces))
    head = struct.pack(">I4s", sum(map(len, stored)), b"IDAT")
    return b"".join([data[:start], head, *stored, bytes(4), data[end:]])


def _filtered_bytes(data: bytes, frame: PngFrame) -> int:
    """Bytes of all lines with their filters; 0 where it is interlaced or of no colour type."""
    colour, interlaced = data[25], data[28]
    if interlaced:
        return 0
    line = -(-frame.columns * frame.bits * CHANNELS.get(colour, 0) // 8)
    return frame.rows * (1 + line) if line else 0


def _pixel_chunks(data: bytes) -> tuple[int, int, bytes] | None:
    """Start and end of the IDAT chunks and their content; None if they do not follow each other."""
    spans = [(start, end) for kind, start, end in png_chunks(data) if kind == b"IDAT"]
    if not spans or any(one[1] != following[0] for one, following in pairwise(spans)):
        return None
    view = memoryview(data)
    return spans[0][0], spans[-1][1], b"".join(view[start + 8 : end - 4] for start, end in spans)


def inflate(data: bytes, size: int) -> list[bytes] | None:
    """Inflate a zlib stream (RFC 1950).

    Args:
        data: The stream; what follows its end is left alone.
        size: Bytes that it holds.

    Returns:
        The content in pieces of `BLOCK_BYTES`, the last one shorter and maybe empty; None where the
        stream is damaged, ends early, or holds fewer or more.
    """
    inflater = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_ZLIB)
    position, parts, missing = 0, list[bytes](), BLOCK_BYTES
    pieces: list[bytes] = []
    while not inflater.eof and len(pieces) * BLOCK_BYTES <= size:
        fresh = data[position : position + INPUT_BYTES] if inflater.needs_input else b""
        if inflater.needs_input and not fresh:
            return None
        position += len(fresh)
        try:
            part = inflater.decompress(fresh, missing)
        except igzip_lib.IsalError:  # type: ignore[misc]  # its stub has an instance
            return None
        parts.append(part)
        missing -= len(part)
        if not missing:
            pieces.append(b"".join(parts))
            parts, missing = [], BLOCK_BYTES
    pieces.append(b"".join(parts))
    return pieces if inflater.eof and sum(map(len, pieces)) == size else None


def _stored(pieces: list[bytes]) -> Iterator[bytes]:
    """Yield a zlib stream (RFC 1950) of stored blocks."""
    yield b"\x78\x01"
    checksum = 1
    for number, piece in enumerate(pieces, 1):
        yield _BLOCK.pack(number == len(pieces), len(piece), len(piece) ^ BLOCK_BYTES)
        yield piece
        checksum = isal_zlib.adler32(piece, checksum)
    yield checksum.to_bytes(4, "big")
