"""The attributes of a DICOM file that say how its values become grey > `decode.display`."""

import math
from dataclasses import dataclass
from typing import cast

import cv2
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
MIN_OPEN_SHARE = 0.1
"""Of a side, and of the box around it: a shutter that leaves less is a mistake of who wrote it."""
MAX_VERTICES = 2000
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


@dataclass(frozen=True, slots=True)
class Shutter:
    """The part of a picture that a Display Shutter leaves open (PS3.3 C.7.6.11).

    Attributes:
        rows: First row and the one behind the last, from 0, of the box around the opening.
        columns: The same of columns.
        shapes: Of the picture's full size, True inside; empty where the opening is the box.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    shapes: tuple[np.ndarray, ...] = ()

    def opened(self, pixels: Pixels, full: tuple[int, int]) -> Pixels:
        """Return what the shutter leaves of a picture.

        Outside of a round or slanted edge, but within the box, it is as dark as the darkest pixel
        inside, so that nobody's contrast is judged by it.

        Args:
            pixels: (height, width), perhaps decoded at a reduced size.
            full: The stored height and width.
        """
        height, width = pixels.shape
        down, across = height / full[0], width / full[1]
        top, bottom = (round(edge * down) for edge in self.rows)
        left, right = (round(edge * across) for edge in self.columns)
        for shape in self.shapes:
            mask: np.ndarray = shape.astype(np.uint8)
            if mask.shape != pixels.shape:
                mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
            pixels = cast(Pixels, np.where(mask > 0, pixels, pixels[mask > 0].min()))
        return pixels[top:bottom, left:right]


def shutter_of(attributes: Attributes, rows: int, columns: int) -> Shutter | None:
    """Return the shutter; None where there is none, or it leaves nothing that could be judged."""
    kinds = attributes.raw(0x00181600).decode("ascii", "replace").upper()
    box = [0, rows, 0, columns]
    shapes = []
    if "RECTANGULAR" in kinds:
        edges = [
            attributes.written_integer(tag) for tag in (0x181606, 0x181608, 0x181602, 0x181604)
        ]
        if None not in edges:
            top, bottom, left, right = (edge or 0 for edge in edges)
            box = _narrowed(box, (min(top, bottom), max(top, bottom), min(left, right),
                                  max(left, right)))  # fmt: skip
    if "CIRCULAR" in kinds:
        centre, radius = _numbers(attributes, 0x181610), attributes.written_integer(0x181612)
        if len(centre) == 2 and radius and 0 < radius < 2**16:
            (row, column), mask = centre, np.zeros((rows, columns), np.uint8)
            cv2.circle(mask, (column - 1, row - 1), radius, 1, cv2.FILLED)
            shapes.append(mask > 0)
            box = _narrowed(box, (row - radius, row + radius, column - radius, column + radius))
    if "POLYGONAL" in kinds:
        values = _numbers(attributes, 0x181620)
        if len(values) >= 6 and len(values) % 2 == 0:
            vertices = np.array(values, np.int32).reshape(-1, 2)[:, ::-1] - 1
            mask = np.zeros((rows, columns), np.uint8)
            cv2.fillPoly(mask, [vertices], 1)
            shapes.append(mask > 0)
            (left, top), (right, bottom) = vertices.min(0), vertices.max(0)
            box = _narrowed(box, (int(top) + 1, int(bottom) + 1, int(left) + 1, int(right) + 1))
    if box == [0, rows, 0, columns] and not shapes:
        return None
    top, bottom, left, right = box
    if bottom - top < rows * MIN_OPEN_SHARE or right - left < columns * MIN_OPEN_SHARE:
        return None
    if any(shape[top:bottom, left:right].mean() < MIN_OPEN_SHARE for shape in shapes):
        return None
    return Shutter((top, bottom), (left, right), tuple(shapes))


def _narrowed(box: list[int], edges: tuple[int, int, int, int]) -> list[int]:
    """Return a box within another; edges are first and last rows and columns, from 1."""
    top, bottom, left, right = edges
    return [max(box[0], top - 1), min(box[1], bottom), max(box[2], left - 1), min(box[3], right)]


def _numbers(attributes: Attributes, tag: int) -> list[int]:
    """Return whole numbers of up to 16 bits; empty where one is none, or there are too many."""
    values = attributes.decimals(tag)
    if len(values) > MAX_VERTICES or not all(v is not None and abs(v) < 2**16 for v in values):
        return []
    return [round(value or 0) for value in values]


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
