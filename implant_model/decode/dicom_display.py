"""The attributes of a DICOM file that say how its values become grey > `decode.display`."""

import math
from typing import cast

import numpy as np

from implant_model.decode.attributes import WANTED, Attributes
from implant_model.decode.decoded import Pixels
from implant_model.decode.display import Display, Lut
from implant_model.decode.elements import read_item
from implant_model.decode.frames import PixelFormat
from implant_model.decode.raster import grey_of
from implant_model.errors import MemberError, Reason
from implant_model.limits import Limits

MODALITY_LUT, VOI_LUT = 0x00283000, 0x00283010
LUT_DESCRIPTOR, LUT_DATA = 0x00283002, 0x00283006
LARGEST_ASPECT = 4.0
SPACINGS = (0x00280030, 0x00181164, 0x00280034)


def display_of(attributes: Attributes, fmt: PixelFormat, *, windowed: bool = True) -> Display:
    """Collect the display chain.

    Args:
        attributes: The file's attributes.
        fmt: Its pixel description.
        windowed: False where the pixels were rescaled and only their polarity still has a meaning.
    """
    shape = attributes.text(0x20500020).upper()
    inverted = fmt.photometric == "MONOCHROME1" or shape == "INVERSE"
    if not windowed:
        return Display(inverted=inverted)
    slope, intercept = attributes.decimal(0x00281053), attributes.decimal(0x00281052)
    modality_lut = _lut(attributes, MODALITY_LUT, signed=fmt.signed)
    below_zero = modality_lut is None and (fmt.signed or (intercept or 0.0) < 0)
    center, width = _window(attributes)
    return Display(
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
        modality_lut=modality_lut,
        voi_lut=_lut(attributes, VOI_LUT, signed=below_zero),
        center=center,
        width=width,
        function=attributes.text(0x00281056).upper() or "LINEAR",
        inverted=inverted,
        padding=_padding(attributes, fmt),
    )


def _window(attributes: Attributes) -> tuple[float | None, float | None]:
    """Return the first pair of center and width of which both are finite numbers."""
    centers, widths = attributes.decimals(0x00281050), attributes.decimals(0x00281051)
    for center, width in zip(centers, widths, strict=False):
        if center is not None and width is not None and math.isfinite(center + width):
            return center, width
    return None, None


def _padding(attributes: Attributes, fmt: PixelFormat) -> tuple[int, int] | None:
    """Return pixel Padding Value (and Range Limit) as stored values (PS3.3 C.7.5.1.1.2)."""
    first = attributes.integer(0x00280120)
    if first is None:
        return None
    last = attributes.integer(0x00280121)
    ends = first, first if last is None else last
    bits = fmt.stored or fmt.allocated
    if not fmt.signed:
        return ends[0] & 0xFFFF, ends[1] & 0xFFFF
    low, high = ((end & (1 << bits) - 1 ^ 1 << bits - 1) - (1 << bits - 1) for end in ends)
    return low, high


def _lut(attributes: Attributes, sequence: int, *, signed: bool) -> Lut | None:
    """Return the first item's LUT; None where there is none or it contradicts itself."""
    item = read_item(attributes.elements, attributes.raw(sequence), WANTED, Limits())
    return _read_lut(Attributes(item), LUT_DESCRIPTOR, LUT_DATA, signed=signed)


def _read_lut(attributes: Attributes, descriptor: int, data: int, *, signed: bool) -> Lut | None:
    shape, raw = attributes.shorts(descriptor), attributes.raw(data)
    if len(shape) != 3 or not raw:
        return None
    count, first, bits = shape[0] or 65536, shape[1], shape[2]
    if signed and first >= 0x8000:
        first -= 0x10000
    if len(raw) in (count, count + 1) and bits <= 8:
        return Lut(first, np.frombuffer(raw, np.uint8, count))
    if len(raw) < 2 * count:
        return None
    order = "<" if attributes.elements.little else ">"
    return Lut(first, np.frombuffer(raw, order + "u2", count).astype(np.uint16))


def palette_grey(stored: np.ndarray, attributes: Attributes) -> Pixels:
    """Luminance of PALETTE COLOR pixels; an index outside of the palette gets its nearest end.

    Raises:
        MemberError: corrupt where a palette is missing or contradicts its descriptor.
    """
    peak = int(np.iinfo(stored.dtype).max)
    if stored.ndim != 2 or peak > 65535:
        raise MemberError(Reason.CORRUPT, "PALETTE COLOR wants one sample of 8 or 16 bits.")
    index = np.arange(peak + 1, dtype=np.float64)
    planes = []
    for colour in range(3):
        lut = _read_lut(attributes, 0x00281101 + colour, 0x00281201 + colour, signed=False)
        if lut is None:
            raise MemberError(Reason.CORRUPT, "A colour palette is missing or too short.")
        scale = 257 if lut.entries.dtype == np.uint8 else 1
        planes.append((lut(index) * scale).astype(np.uint16))
    table = grey_of(np.stack(planes, axis=-1)[None])[0]
    return cast(Pixels, table[stored])


def pixel_aspect(attributes: Attributes) -> float | None:
    """Height over width of a pixel; None where pixels are square or no attribute makes sense.

    Pixel Spacing and Imager Pixel Spacing (rows' distance first) come before Pixel Aspect Ratio,
    which a file may have only where it has no spacing (PS3.3 C.7.6.3.1.7).
    """
    for tag in SPACINGS:
        values = attributes.decimals(tag)
        if len(values) == 2 and values[0] and values[1]:
            ratio = values[0] / values[1]
            if math.isfinite(ratio) and 1 / LARGEST_ASPECT <= ratio <= LARGEST_ASPECT:
                return None if abs(ratio - 1) < 0.01 else ratio
    return None
