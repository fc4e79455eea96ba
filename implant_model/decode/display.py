"""Stored values of a grey image > display-ready grey (PS3.3 C.11.1, C.11.2, C.11.6 and C.7.6.3).

The whole chain (modality LUT, VOI LUT or window, inversion) is worked out once for each of the 256
or 65,536 values that a pixel can have, exact in float64 where it is cheap. Where it comes to a
straight line between black and white, as with most windows, that line makes the picture (0.6 ms for
2500 x 2048 pixels of 16 bits), else a look-up (2.0 ms; numpy's takes 6.7); where relative greys are
enough and the line clips none, nothing is done. 16-bit pixels stay 16-bit. Pure numpy, and OpenCV
for what goes over pixels. Knows nothing of DICOM files.

`Lut` and `Display` take the attributes as read; what makes no sense in them falls back to the full
range of the pixels, because a wrong window must not cost the picture.
"""

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np

from implant_model.decode.decoded import Pixels

# A window is senseless if it shows more than half of the picture as pure white (a legitimate one
# saturates the air around the patient, which is black), or hardly anything between black and white.
LARGEST_WHITE = 0.5
SMALLEST_INSIDE = 0.02
SAMPLE_PIXELS = 1 << 18
STRAIGHT = 1e-6
"""Of the range from black to white, how far a line may be from what is exact."""
MIN_GREYS = 1024
"""Between the darkest and the brightest hundredth of a picture that is left unscaled, so that what
averages round off stays under a tenth of 255 levels."""
LARGEST_PRODUCT = 1 << 22
"""Of a line's slope and a value: OpenCV works with 24 bits, and is then off by half a level."""
Table = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Lut:
    """A look-up table (PS3.3 C.11.1.1 and C.11.2.1.1).

    Attributes:
        first: Input value that the first entry maps; lower inputs get the first entry.
        entries: Outputs; inputs behind the last get the last entry.
    """

    first: int
    entries: np.ndarray

    def __call__(self, values: Table) -> Table:
        """Map values, rounded to whole numbers."""
        index = np.rint(values - self.first)
        places = np.clip(index, 0, len(self.entries) - 1).astype(np.int64)
        return cast(Table, self.entries[places].astype(np.float64))


@dataclass(frozen=True, slots=True)
class Display:
    """How stored values become grey.

    Attributes:
        slope: Rescale Slope.
        intercept: Rescale Intercept.
        modality_lut: Modality LUT; takes the place of slope and intercept.
        voi_lut: VOI LUT; goes before the window.
        center: Window Center; None where there is no window.
        width: Window Width.
        function: VOI LUT Function: `LINEAR`, `LINEAR_EXACT` or `SIGMOID`.
        inverted: The lowest value is white (MONOCHROME1, or a presentation LUT shape of INVERSE).
        padding: Lowest and highest stored value of pixels that are no part of the picture.
    """

    slope: float = 1.0
    intercept: float = 0.0
    modality_lut: Lut | None = None
    voi_lut: Lut | None = None
    center: float | None = None
    width: float | None = None
    function: str = "LINEAR"
    inverted: bool = False
    padding: tuple[int, int] | None = None


def to_grey(
    stored_HW: np.ndarray,
    display: Display,
    ends: tuple[int, int] | None = None,
    *,
    in_place: bool = False,
    unscaled: bool = False,
) -> Pixels:
    """Apply the display chain.

    Args:
        stored_HW: Stored values, uint8, int8, uint16 or int16, of shape (height, width).
        display: The chain.
        ends: The least and the greatest stored value of an unsigned type, where they are known.
        in_place: The values may be overwritten, which leaves more of the caches to them.
        unscaled: For who stretches the greys anyway, as `preprocess` does: 16-bit values whose
            greys rise in a straight line and are not clipped come back as they are, for a pass over
            the picture less.

    Returns:
        Grey of the same width in bits: 0 black, the type's maximum white, unless `unscaled`. A
        constant picture is returned constant.
    """
    unsigned, zero = _unsigned(stored_HW)
    exact = display.padding is not None or display.modality_lut is not None
    least, greatest = ends or ends_of(unsigned)
    # For shares of the picture and its ends, and not each grey that occurs, every few rows of a
    # large one are enough.
    step = 1 if exact else max(1, unsigned.size // SAMPLE_PIXELS)
    histogram = _histogram(unsigned[::step], greatest)
    if step > 1:
        histogram[[least, greatest]] += 1
    stored = np.arange(len(histogram), dtype=np.float64) - zero
    padded = _is_padding(stored, display.padding, histogram)
    histogram[padded] = 0
    table = _grey_table(stored, histogram, display)
    table[padded] = 0.0
    line = _line(table) if unsigned.dtype == np.uint16 else None
    if unscaled and line is not None and _is_unclipped(line, histogram, least):
        return cast(Pixels, unsigned)
    into = unsigned if unsigned is not stored_HW or in_place else None
    return _apply(unsigned, table, line, into)


def _apply(
    unsigned_HW: np.ndarray,
    table: Table,
    line: tuple[float, float] | None,
    into_HW: np.ndarray | None,
) -> Pixels:
    """Return grey 0 to 1 of each value > grey of the picture, within 1 of 65,535 levels."""
    peak = int(np.iinfo(unsigned_HW.dtype).max)
    if line is not None and abs(line[0]) * peak * len(table) < LARGEST_PRODUCT:
        slope, offset = line[0] * peak, line[1] * peak
        # Rounds, and clips to black and white.
        return cast(
            Pixels, cv2.addWeighted(unsigned_HW, slope, unsigned_HW, 0.0, offset, dst=into_HW)
        )
    levels = np.zeros(peak + 1, unsigned_HW.dtype)
    levels[: len(table)] = np.rint(table * peak)
    return cast(Pixels, cv2.LUT(unsigned_HW, levels, dst=into_HW))


def _is_unclipped(line: tuple[float, float], histogram: np.ndarray, least: int) -> bool:
    """Whether a line rises and clips no value, of which there are enough to average as they are."""
    slope, offset = line
    darkest, brightest = offset + slope * least, offset + slope * (len(histogram) - 1)
    if slope <= 0 or darkest < -STRAIGHT or brightest > 1.0 + STRAIGHT:
        return False
    behind = np.cumsum(histogram, dtype=np.float64)
    low, high = np.searchsorted(behind, np.array([0.01, 0.99]) * behind[-1])
    return bool(high - low >= MIN_GREYS)


def _line(table: Table) -> tuple[float, float] | None:
    """Slope and offset of the straight line that, clipped to 0 and 1, the table is; or None."""
    inside = np.flatnonzero((table > 0.0) & (table < 1.0))
    if len(inside) < 2:
        return None
    first, last = int(inside[0]), int(inside[-1])
    slope = float(table[last] - table[first]) / (last - first)
    offset = float(table[first]) - slope * first
    line = np.clip(slope * np.arange(len(table)) + offset, 0.0, 1.0)
    return (slope, offset) if np.abs(line - table).max() <= STRAIGHT else None


def shrink_to_16_bits(stored_HW: np.ndarray) -> np.ndarray:
    """Scale pixels of 32 bits or of a float type to uint16 over their own finite range."""
    low, high = float(np.min(stored_HW)), float(np.max(stored_HW))
    span = high - low
    if not np.isfinite(span) or span <= 0:
        return np.zeros(stored_HW.shape, np.uint16)
    return np.rint((stored_HW - low) * (65535.0 / span)).astype(np.uint16)


def _unsigned(stored_HW: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the same order of values in an unsigned type, and where its zero lies."""
    stored_HW = np.ascontiguousarray(stored_HW)
    if stored_HW.dtype.kind == "u":
        return stored_HW, 0
    zero = 1 << (8 * stored_HW.itemsize - 1)
    kind = np.dtype(f"u{stored_HW.itemsize}").type
    return stored_HW.view(kind) ^ kind(zero), zero


def ends_of(values: np.ndarray) -> tuple[int, int]:
    """Return the least and the greatest of unsigned values; 0 and 0 where there are none."""
    if values.ndim == 2 and values.itemsize <= 2 and values.size:
        least, greatest, _, _ = cv2.minMaxLoc(values)  # one pass for both
        return int(least), int(greatest)
    return int(values.min(initial=0)), int(values.max(initial=0))


def _histogram(unsigned_HW: np.ndarray, greatest: int) -> np.ndarray:
    """Count of each value up to the greatest (float32: exact to 2**24 pixels, close above)."""
    bins = greatest + 1
    rows_HW = np.ascontiguousarray(unsigned_HW)
    return cast(np.ndarray, cv2.calcHist([rows_HW], [0], None, [bins], [0, bins]).ravel())


def _is_padding(
    stored: Table, padding: tuple[int, int] | None, histogram: np.ndarray
) -> np.ndarray:
    """Return which stored values are padding; none if that would leave no picture."""
    if padding is None:
        return np.zeros(len(stored), bool)
    low, high = sorted(padding)
    padded = (stored >= low) & (stored <= high)
    left = np.count_nonzero(histogram[~padded])
    return padded if left > 1 else np.zeros(len(stored), bool)


def _grey_table(stored: Table, histogram: np.ndarray, display: Display) -> Table:
    """Return grey 0 to 1 of each stored value."""
    present = np.flatnonzero(histogram)
    values = _modality(stored, display)
    for grey in _candidates(values, display):
        grey = 1.0 - grey if display.inverted else grey
        if _shows_the_picture(grey, histogram):
            return grey
    low, high = float(values[present].min()), float(values[present].max())
    if not high > low:
        return np.zeros(len(stored))
    grey = np.clip((values - low) / (high - low), 0.0, 1.0)
    return 1.0 - grey if display.inverted else grey


def _modality(stored: Table, display: Display) -> Table:
    if display.modality_lut is not None and len(display.modality_lut.entries):
        return display.modality_lut(stored)
    slope, intercept = display.slope, display.intercept
    if not np.isfinite(slope) or not np.isfinite(intercept) or slope == 0:
        return stored.copy()
    return stored * slope + intercept


def _candidates(values: Table, display: Display) -> list[Table]:
    """Grey by the VOI LUT and by the window, as far as the file names them and they can work."""
    found = []
    lut = display.voi_lut
    if lut is not None and len(lut.entries) and lut.entries.max() > lut.entries.min():
        low, high = float(lut.entries.min()), float(lut.entries.max())
        found.append((lut(values) - low) / (high - low))
    if display.center is not None and display.width is not None:
        window = apply_window(values, display.center, display.width, display.function)
        found += [] if window is None else [window]
    return found


def apply_window(values: Table, center: float, width: float, function: str) -> Table | None:
    """Return grey 0 to 1 by a window (PS3.3 C.11.2.1.2 and C.11.2.1.3).

    Args:
        values: Output of the modality LUT.
        center: Window Center.
        width: Window Width; at least 1 for LINEAR, over 0 for the others.
        function: `LINEAR`, `LINEAR_EXACT` or `SIGMOID`; anything else is taken as LINEAR.

    Returns:
        Grey of the shape of `values`, or None where center or width is senseless.
    """
    if not np.isfinite(center) or not np.isfinite(width) or width <= 0:
        return None
    if function == "SIGMOID":
        return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - center) / width, -700.0, 700.0)))
    if function == "LINEAR_EXACT":
        return np.clip((values - center) / width + 0.5, 0.0, 1.0)
    if width < 1:
        return None
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1.0) + 0.5, 0.0, 1.0)


def _shows_the_picture(grey: Table, histogram: np.ndarray) -> bool:
    """Return whether this grey leaves enough of the picture between black and white."""
    if not np.all(np.isfinite(grey)):
        return False
    total = float(histogram.sum(dtype=np.float64))
    white = float(histogram[grey >= 1.0].sum(dtype=np.float64)) / total
    inside = float(histogram[(grey > 0.0) & (grey < 1.0)].sum(dtype=np.float64)) / total
    return white <= LARGEST_WHITE and inside >= SMALLEST_INSIDE
