"""DICOM files > display-ready grey.

The one place, with its neighbours in this folder, that knows DICOM. The header is read first and
never raises once a file is recognised; whether the object is a radiograph, whether its description
is possible and whether its pixels can be had is decided in `DicomSource.picture`.
"""

from dataclasses import dataclass, field
from typing import cast

import cv2
import numpy as np

from implant_model.decode.attributes import Attributes, header_of
from implant_model.decode.codecs import compressed
from implant_model.decode.decoded import Header, Pixels
from implant_model.decode.dicom_display import display_of, palette_grey, pixel_aspect, shutter_of
from implant_model.decode.display import shrink_to_16_bits, to_grey
from implant_model.decode.elements import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, read_file
from implant_model.decode.frames import (
    PixelFormat,
    Stored,
    encapsulated,
    native,
    rle,
    swapped_words,
)
from implant_model.decode.kinds import VIDEO_SYNTAXES, refusal
from implant_model.decode.raster import check_size, grey_of
from implant_model.errors import MemberError, Reason
from implant_model.limits import Limits

NATIVE = frozenset({IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED})
ENCAPSULATED_NATIVE = "1.2.840.10008.1.2.1.98"
RLE = "1.2.840.10008.1.2.5"
JPEG_FAMILY = frozenset(
    f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70, 80, 81, 90, 91, 201, 202, 203)
)
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420")


def looks_like_dicom(data: bytes) -> bool:
    """Return whether the bytes are a DICOM file, with preamble or without.

    Without the prefix `DICM`, the first element must be of a group that datasets start with, and
    its length must be possible.
    """
    if data[128:132] == b"DICM" or data[:4] == b"DICM":
        return True
    if len(data) < 16:
        return False
    for order in ("little", "big"):
        group = int.from_bytes(data[:2], order)
        if group not in (0x0002, 0x0008) or int.from_bytes(data[2:4], order) > 0x2112:
            continue
        has_vr = data[4:6].isalpha() and data[4:6].isupper()
        if has_vr or int.from_bytes(data[4:8], order) <= min(1024, len(data) - 8):
            return True
    return False


@dataclass
class DicomSource:
    """A DICOM file whose header was read.

    Attributes:
        data: The file, whole.
        limits: Bounds on what is read.
        unscaled: See `to_grey`.
        header: What the file states of itself.
    """

    data: bytes | memoryview = field(repr=False)
    limits: Limits
    unscaled: bool = False
    header: Header = field(init=False)

    def __post_init__(self) -> None:
        self._elements = read_file(self.data, Attributes.wanted(), self.limits)
        self._attributes = Attributes(self._elements)
        self.header = header_of(self._attributes)

    def picture(self, size_px: int | None) -> Pixels:
        """Decode the pixels.

        Args:
            size_px: No side under this is needed.

        Returns:
            Grey of shape (height, width): uint8, or uint16 where more than 8 bits are stored.

        Raises:
            MemberError: with the reason for which no classifier may see the object.
        """
        self._check_kind()
        fmt = _pixel_format(self._attributes)
        self._check_format(fmt)
        stored = self._stored(fmt, size_px)
        grey = self._grey(stored, fmt)
        shutter = shutter_of(self._attributes, fmt.rows, fmt.columns)
        if shutter is not None:
            grey = shutter.opened(grey, (fmt.rows, fmt.columns))
        return _square_pixels(grey, self._attributes)

    def _check_kind(self) -> None:
        """Refuse what is no radiograph, or ends before its pixel data."""
        elements, attributes = self._elements, self._attributes
        reason = refusal(
            attributes.text(0x00080016),
            attributes.text(0x00080060).upper(),
            attributes.text(0x00080064).upper(),
            radiograph_marks=bool(attributes.text(0x00185101) or attributes.text(0x00181164)),
        )
        if elements.transfer_syntax in VIDEO_SYNTAXES:
            reason = Reason.NON_IMAGE_OBJECT
        if reason is Reason.NON_IMAGE_OBJECT:
            raise MemberError(reason, "The object's class or modality holds no picture.")
        if not elements.whole and elements.pixel is None and reason is None:
            raise MemberError(Reason.TRUNCATED, "The dataset ends inside an element.")
        if elements.pixel is None and self.header.rows is None and not _names_an_image(attributes):
            raise MemberError(Reason.NON_IMAGE_OBJECT, "The object holds no pixel data.")
        if reason is not None:
            raise MemberError(reason, "The object's modality is not plain radiography.")
        if elements.pixel is None:
            raise MemberError(Reason.TRUNCATED, "The image object ends before its pixel data.")
        if elements.pixel.tag != 0x7FE00010:
            raise MemberError(Reason.UNSUPPORTED_ENCODING, "Float pixel data are not read.")

    def _check_format(self, fmt: PixelFormat) -> None:
        frames = self._attributes.written_integer(0x00280008) or 1
        check_size(fmt.rows, fmt.columns, self.limits)
        if frames > self.limits.frames:
            raise MemberError(Reason.TOO_LARGE, "The object claims more than limits.frames frames.")
        if frames > 1:
            raise MemberError(Reason.MULTI_FRAME, "The object holds more than one frame.")
        if fmt.photometric not in (*GREY, *COLOURS, "PALETTE COLOR"):
            raise MemberError(Reason.UNSUPPORTED_ENCODING, "The colour space is not read.")
        if fmt.samples not in (1, 3) or (fmt.samples == 3 and fmt.photometric in GREY):
            raise MemberError(Reason.CORRUPT, "Samples per Pixel contradicts the colour space.")
        if fmt.allocated not in (8, 16, 32):
            raise MemberError(Reason.UNSUPPORTED_ENCODING, "8, 16 or 32 bits allocated are read.")

    def _stored(self, fmt: PixelFormat, size_px: int | None) -> Stored:
        """Return stored values by the transfer syntax, or by the data where the file names none."""
        elements = self._elements
        pixel, syntax, data = elements.pixel, elements.transfer_syntax, elements.data
        if pixel is None:
            raise MemberError(Reason.TRUNCATED, "The image object ends before its pixel data.")
        if syntax is not None and syntax not in NATIVE | JPEG_FAMILY | {RLE, ENCAPSULATED_NATIVE}:
            raise MemberError(Reason.UNSUPPORTED_ENCODING, "The transfer syntax is not read.")
        if pixel.length is not None:
            if syntax is not None and syntax not in NATIVE:
                raise MemberError(Reason.CORRUPT, "Compressed pixel data are not encapsulated.")
            value = memoryview(data)[pixel.start : pixel.start + pixel.length]
            if not fmt.little and fmt.allocated == 8 and pixel.vr == b"OW":
                value = memoryview(swapped_words(value))
            return native(value, fmt)
        stream = encapsulated(data, pixel.start)
        if syntax == RLE:
            return rle(stream, fmt)
        if syntax == ENCAPSULATED_NATIVE:
            return native(memoryview(stream), fmt)
        return Stored(compressed(stream, fmt, size_px))

    def _is_jpeg(self) -> bool:
        """Return whether Pillow decoded the frame, which turns YCbCr into RGB."""
        pixel = self._elements.pixel
        native_or_rle = self._elements.transfer_syntax in {RLE, ENCAPSULATED_NATIVE}
        return pixel is not None and pixel.length is None and not native_or_rle

    def _grey(self, frame: Stored, fmt: PixelFormat) -> Pixels:
        attributes, stored = self._attributes, frame.values
        if fmt.photometric == "PALETTE COLOR":
            return palette_grey(stored, attributes)
        if stored.ndim == 3 and fmt.photometric == "YBR_FULL" and not self._is_jpeg():
            stored = stored[..., 0]  # Y is the luminance already
        if stored.ndim == 3:
            return _grey_of_colour(stored, fmt, unnamed=not attributes.text(0x00080060))
        if stored.itemsize > 2:
            stored = shrink_to_16_bits(stored)
            return to_grey(stored, display_of(attributes, fmt, windowed=False))
        return to_grey(
            stored,
            display_of(attributes, fmt),
            frame.ends,
            in_place=bool(stored.flags.writeable),
            unscaled=self.unscaled,
        )


def _names_an_image(attributes: Attributes) -> bool:
    """Return whether the header, though it has no pixel description, is that of an image object."""
    return bool(attributes.text(0x00080060)) and attributes.text(0x00080016) != ""


def _pixel_format(attributes: Attributes) -> PixelFormat:
    """Return the pixel description; values that are missing get the ones that the rest implies."""
    samples = attributes.integer(0x00280002) or 1
    allocated = attributes.integer(0x00280100) or 0
    stored = attributes.integer(0x00280101) or allocated
    high_bit = attributes.integer(0x00280102)
    photometric = attributes.text(0x00280004).upper()
    return PixelFormat(
        rows=attributes.integer(0x00280010) or 0,
        columns=attributes.integer(0x00280011) or 0,
        samples=samples,
        photometric=photometric or ("MONOCHROME2" if samples == 1 else "RGB"),
        planar=attributes.integer(0x00280006) == 1,
        allocated=allocated,
        stored=min(stored, allocated),
        high_bit=stored - 1 if high_bit is None else high_bit,
        signed=attributes.integer(0x00280103) == 1,
        little=attributes.elements.little,
    )


def _grey_of_colour(stored: np.ndarray, fmt: PixelFormat, *, unnamed: bool) -> Pixels:
    """Grey of three samples a pixel; a colourful picture of no named modality is no radiograph."""
    if stored.itemsize > 2:
        raise MemberError(Reason.UNSUPPORTED_ENCODING, "Colour of 32 bits is not read.")
    stored = stored.view(f"u{stored.itemsize}")
    if unnamed and _is_colourful(stored):
        raise MemberError(Reason.NOT_A_RADIOGRAPH, "The picture is in colour.")
    grey = grey_of(stored)
    gap = 8 * stored.itemsize - fmt.stored
    return grey << grey.dtype.type(gap) if gap > 0 else grey


def _is_colourful(rgb_HWC: np.ndarray) -> bool:
    """Return whether more than 2 % of the pixels have channels over 1/16 of the range apart."""
    apart = np.ptp(rgb_HWC.astype(np.int32), axis=-1) > np.iinfo(rgb_HWC.dtype).max // 16
    return bool(np.mean(apart) > 0.02)


def _square_pixels(pixels: Pixels, attributes: Attributes) -> Pixels:
    """Stretch a picture whose pixels are not square, by at most a factor of 4."""
    ratio = pixel_aspect(attributes)
    if ratio is None:
        return pixels
    rows, columns = pixels.shape
    size = (columns, round(rows * ratio)) if ratio > 1 else (round(columns / ratio), rows)
    return cast(Pixels, cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR))
