"""A display-ready grey picture > the small 8-bit picture that the networks see.

The one definition of preprocessing: training, evaluation and inference read a `Preprocessing` from
the package and call `preprocess`. Borders that carry no picture are cut. What is left of a large
picture is averaged over squares of 2, 4, 8, ... pixels to between two and four times the networks'
size, where what was decoded in full equals what JPEG and JPEG 2000 decode at a reduced size. There
the greys between two percentiles are stretched to 0..255 (so that the same picture as MONOCHROME1
or 2, in 8 or 16 bits, as DICOM or PNG, comes out the same), and the result is averaged down to a
square.

The stretch goes before the resize because the two do not commute at the ends of the range, and
resizes are area averages, which are antialiased. OpenCV works on the calling thread alone.
"""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, cast

import cv2
import numpy as np

from implant_model.errors import MemberError, PackageError, Reason

LARGEST_SIZE_PX = 4096
# Sides of the picture that percentiles are taken of, to those of the networks' input, at the least:
# a border may be cut and the rest is still not enlarged. One size whatever the decoder did, because
# noise widens the percentiles of a full picture and not those of a reduced one.
WORKING = 2
# A border starts with a line that is even within 1.25 of 255 levels and near black or white, and
# goes on while lines stay within 4 levels of that one (JPEG leaves ripples of 3 beside an edge).
# It may start up to 2 lines from the edge: what a reduced decode leaves of a thin frame, or between
# a frame that was cut and a collimator within it, is a mixture. Nor do pixels so near the edge
# count towards a line's evenness.
# What is compared are means of 64 pieces of a line: the noise of a collimated edge passes a bound
# on single pixels in 8 bits and fails it in 12, and the two inputs are then all different.
PIECES = 64
BLOCK = 32  # lines that are looked at together
MIXED = 2  # lines
LOOKS = 3  # at all four sides, each at what the one before left
EVEN = 1.25 / 255.0
NEAR = 4.0 / 255.0
# Up to 2 lines between a white border and the picture, of which a lossy or reduced decode made a
# mixture, go with it: left in, they are up to 140 levels off. A black border's are no brighter than
# the air beside it.
RIM, RIM_DEPTH = 2, 0.5
EXTREME = 0.1  # of the picture's range, from its black or its white
BLOCK_GREYS = 256
SMALLEST_REST = 0.1  # of a side; a cut that leaves less is no border


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a network's input; part of the model package.

    Attributes:
        size_px: Side of the square that comes out.
        trim_borders: Cut even borders near black or white (collimators, padding, scanner lids).
        fit: `squash` resizes both sides to `size_px`; `pad` keeps the aspect and fills with black.
        low_percent: Percentile of the pixels that becomes black.
        high_percent: Percentile of the pixels that becomes white.
    """

    size_px: int = 224
    trim_borders: bool = True
    fit: Literal["squash", "pad"] = "pad"
    low_percent: float = 0.5
    high_percent: float = 99.5

    def __post_init__(self) -> None:
        if type(self.size_px) is not int or not 16 <= self.size_px <= LARGEST_SIZE_PX:
            raise PackageError(
                f"preprocessing.size_px is {self.size_px!r}; 16 to {LARGEST_SIZE_PX} is accepted."
            )
        if type(self.trim_borders) is not bool:
            raise PackageError(
                f"preprocessing.trim_borders is {self.trim_borders!r}; true or false is accepted."
            )
        if self.fit not in ("squash", "pad"):
            raise PackageError(f"preprocessing.fit is {self.fit!r}; squash or pad is accepted.")
        if not _are_percentiles(self.low_percent, self.high_percent):
            raise PackageError(
                f"preprocessing stretches from percentile {self.low_percent!r} to"
                f" {self.high_percent!r}; 0 <= low < high <= 100 is accepted."
            )

    @property
    def working_px(self) -> int:
        """Return the smallest side that a reduced decode may have."""
        return WORKING * self.size_px

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name, as `package.json` holds them."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: object) -> "Preprocessing":
        """Read what `to_json` wrote.

        Raises:
            PackageError: a field is missing, unknown or out of range.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != names:
            found = sorted(values) if isinstance(values, dict) else type(values).__name__
            raise PackageError(f"preprocessing holds {found}; exactly {sorted(names)} is accepted.")
        return cls(**values)


def _are_percentiles(low: object, high: object) -> bool:
    numbers = all(type(value) in (int, float) for value in (low, high))
    return numbers and 0 <= cast(float, low) < cast(float, high) <= 100


def preprocess(pixels_HW: np.ndarray, spec: Preprocessing) -> np.ndarray:
    """Make the networks' input.

    Args:
        pixels_HW: Display-ready grey, uint8 or uint16, of shape (height, width); of uint16 it may
            be any range, see `display.to_grey`.
        spec: What to do.

    Returns:
        uint8 of shape (size_px, size_px), 0 black.

    Raises:
        MemberError: bad_pixels where the picture is constant, empty or of another type.
    """
    if pixels_HW.ndim != 2 or not pixels_HW.size or pixels_HW.dtype not in (np.uint8, np.uint16):
        raise MemberError(Reason.BAD_PIXELS, "The picture is no grey picture of 8 or 16 bits.")
    if spec.trim_borders:
        pixels_HW = trim(pixels_HW)
    pixels_HW = shrink(pixels_HW, spec.working_px)
    stretched = _stretch(np.ascontiguousarray(pixels_HW), spec.low_percent, spec.high_percent)
    small = _fit(stretched, spec.size_px, spec.fit)
    image = cv2.convertScaleAbs(small, alpha=255.0 / 65535.0)
    if image.min() == image.max():
        raise MemberError(Reason.BAD_PIXELS, "The picture is constant.")
    return cast(np.ndarray, image)


def shrink(pixels_HW: np.ndarray, least_px: int) -> np.ndarray:
    """Average over squares of 2, 4, 8, ... pixels, as long as no side falls under `least_px`.

    A last square that the picture does not fill is filled with its edge, as in JPEG's blocks.
    """
    factor = 1
    while min(pixels_HW.shape) // (2 * factor) >= least_px:
        factor *= 2
    if factor == 1:
        return pixels_HW
    rows, columns = (side // factor for side in pixels_HW.shape)
    height, width = rows * factor, columns * factor
    whole_HW = _square_means(pixels_HW[:height, :width], factor)
    if (height, width) == pixels_HW.shape:
        return whole_HW
    # The last squares apart, so that a large picture need not be copied to be a little larger.
    means_HW = np.empty([-(-side // factor) for side in pixels_HW.shape], pixels_HW.dtype)
    means_HW[:rows, :columns] = whole_HW
    if height < pixels_HW.shape[0]:
        means_HW[rows:] = _square_means(_filled(pixels_HW[height:], factor), factor)
    if width < pixels_HW.shape[1]:
        means_HW[:rows, columns:] = _square_means(
            _filled(pixels_HW[:height, width:], factor), factor
        )
    return means_HW


def _filled(pixels_HW: np.ndarray, factor: int) -> np.ndarray:
    """Repeat the last row and column up to whole squares of `factor` pixels."""
    below, right = (-side % factor for side in pixels_HW.shape)
    return cast(np.ndarray, cv2.copyMakeBorder(pixels_HW, 0, below, 0, right, cv2.BORDER_REPLICATE))


def _square_means(pixels_HW: np.ndarray, factor: int) -> np.ndarray:
    """Average over squares of `factor` pixels, a power of two that both sides are multiples of."""
    size = pixels_HW.shape[1] // factor, pixels_HW.shape[0] // factor
    # Halving is vectorised, and what it rounds off 16-bit greys small, see display.MIN_GREYS.
    if pixels_HW.dtype == np.uint16:
        while factor > 2:
            half = pixels_HW.shape[1] // 2, pixels_HW.shape[0] // 2
            pixels_HW = cv2.resize(pixels_HW, half, interpolation=cv2.INTER_AREA)
            factor //= 2
    return cast(np.ndarray, cv2.resize(pixels_HW, size, interpolation=cv2.INTER_AREA))


def trim(pixels_HW: np.ndarray) -> np.ndarray:
    """Cut even rows and columns near black or white off the four sides.

    Args:
        pixels_HW: Display-ready grey, uint8 or uint16.

    Returns:
        A view of the picture, see `picture_box`.
    """
    return pixels_HW[picture_box(pixels_HW)]


def picture_box(pixels_HW: np.ndarray) -> tuple[slice, slice]:
    """Return rows and columns without even borders near black or white.

    Args:
        pixels_HW: Display-ready grey, uint8 or uint16.

    Returns:
        The whole picture where less than a tenth of a side, or one grey alone, would be left.
    """
    step = max(1, min(pixels_HW.shape) // 256)
    few = pixels_HW[::step, ::step].ravel()
    # For so few, half the time of OpenCV's count.
    histogram = np.bincount(few, minlength=_num_bins(few.max()))
    low, high = _percentiles(histogram, 0.5, 99.5)
    all_rows, all_columns = (slice(0, side) for side in pixels_HW.shape)
    rows, columns = all_rows, all_columns
    # Bars at the sides make rows uneven that a band of the other extreme crosses, and a frame may
    # hold a collimator: look again.
    for _ in range(LOOKS):
        before = rows, columns
        rows = _within(rows, _rest(pixels_HW[rows, _inner(columns)], low, high))
        columns = _within(columns, _rest(pixels_HW[_inner(rows), columns].T, low, high))
        if (rows, columns) == before:
            break
    rest = pixels_HW[rows, columns]
    enough = all(
        side >= max(1, SMALLEST_REST * whole)
        for side, whole in zip(rest.shape, pixels_HW.shape, strict=True)
    )
    whole = not enough or _is_constant(rest)
    return (all_rows, all_columns) if whole else (rows, columns)


def _is_constant(pixels_HW: np.ndarray) -> bool:
    """Return whether there is but one grey; a few pixels deny it mostly."""
    few = pixels_HW[:: max(1, pixels_HW.shape[0] // 16)]
    return few.min() == few.max() and bool(pixels_HW.min() == pixels_HW.max())


def _within(outer: slice, inner: slice) -> slice:
    """Return the part of the whole that is `inner` of its part `outer`."""
    return slice(outer.start + inner.start, outer.start + inner.stop)


def _inner(part: slice) -> slice:
    """Return the part without the lines at its ends that may be mixed."""
    start, stop = part.start + MIXED, part.stop - MIXED
    return slice(start, stop) if start < stop else part


def _rest(lines_NL: np.ndarray, low: float, high: float) -> slice:
    """The lines between an even border before and one behind; all where nothing would be left."""
    count = len(lines_NL)
    before, behind = _border(lines_NL, low, high), _border(lines_NL[::-1], low, high)
    return slice(before, count - behind) if before + behind < count else slice(0, count)


def _border(lines_NL: np.ndarray, low: float, high: float) -> int:
    """Return number of lines up to the end of a border that one of the first starts, or 0."""
    span = high - low
    for start, means in enumerate(_pieces(lines_NL[: MIXED + 1])):
        level, most = float(means.min()), float(means.max())
        dark = most <= low + EXTREME * span
        if most - level <= EVEN * span and (dark or level >= high - EXTREME * span):
            near = most - NEAR * span, level + NEAR * span
            end = start + _like_the_first(lines_NL[start:], *near)
            return end if dark else end + _rim(lines_NL[end:], high - RIM_DEPTH * span)
    return 0


def _like_the_first(lines_NL: np.ndarray, least: float, most: float) -> int:
    """Return number of lines up to one, not the first, that has a piece outside of the bounds."""
    for start in range(0, len(lines_NL), BLOCK):
        means = _pieces(lines_NL[start : start + BLOCK])
        away = (means.min(axis=1) < least) | (means.max(axis=1) > most)
        away[0] &= start > 0
        if away.any():
            return start + int(np.argmax(away))
    return len(lines_NL)


def _rim(lines_NL: np.ndarray, least: float) -> int:
    """Return number of lines behind a white border that are mostly of it."""
    blurred = lines_NL[:RIM].mean(axis=1) >= least
    return len(blurred) if blurred.all() else int(np.argmin(blurred))


def _pieces(lines_NL: np.ndarray) -> np.ndarray:
    """Means of `PIECES` pieces of each line, or the lines where they are no longer than that."""
    if lines_NL.shape[1] <= PIECES:
        return lines_NL.astype(np.float32)
    across = lines_NL.strides[0] < lines_NL.strides[1]  # columns: read in the order of memory
    block = np.ascontiguousarray(lines_NL.T if across else lines_NL, np.float32)
    size = (len(lines_NL), PIECES) if across else (PIECES, len(lines_NL))
    means = cv2.resize(block, size, interpolation=cv2.INTER_AREA)
    return cast(np.ndarray, means.T if across else means)


def _stretch(pixels_HW: np.ndarray, low_percent: float, high_percent: float) -> np.ndarray:
    """Stretch the greys between two percentiles to the full range of uint16."""
    histogram = _histogram(pixels_HW)
    low, high = _percentiles(histogram, low_percent, high_percent)
    if high - low < 1.0:  # hardly anything but one grey: its few other pixels decide
        present = np.flatnonzero(histogram)
        low, high = float(present[0]), float(present[-1])
    if not high > low:
        raise MemberError(Reason.BAD_PIXELS, "The picture is constant.")
    first, last = math.ceil(low), math.floor(high)  # only greys between the two are worked out
    levels = np.zeros(int(np.iinfo(pixels_HW.dtype).max) + 1, np.uint16)
    levels[last + 1 :] = 65535
    grey = (np.arange(first, last + 1, dtype=np.float64) - low) / (high - low)
    levels[first : last + 1] = np.rint(grey * 65535.0)
    return cast(np.ndarray, cv2.LUT(pixels_HW, levels))


def _histogram(pixels_HW: np.ndarray) -> np.ndarray:
    """Count of each grey, in whole blocks of `BLOCK_GREYS`."""
    bins = _num_bins(pixels_HW.max())
    return cast(np.ndarray, cv2.calcHist([pixels_HW], [0], None, [bins], [0, bins]).ravel())


def _num_bins(greatest: float) -> int:
    return (int(greatest) // BLOCK_GREYS + 1) * BLOCK_GREYS


def _percentiles(histogram: np.ndarray, *percents: float) -> list[float]:
    """Return percentiles out of a histogram of whole greys, interpolated between greys.

    Interpolation keeps the percentiles of 8-bit and 16-bit pixels together; none lies outside of
    the greys that occur. A sum over blocks of greys finds the block: a sum over all 65,536 greys
    takes longer than to count them.
    """
    blocks = histogram.reshape(-1, BLOCK_GREYS)
    behind = np.cumsum(blocks.sum(axis=1, dtype=np.float64))
    present = np.flatnonzero(behind)[0], int(np.searchsorted(behind, behind[-1]))
    first = present[0] * BLOCK_GREYS + np.flatnonzero(blocks[present[0]])[0]
    last = present[1] * BLOCK_GREYS + np.flatnonzero(blocks[present[1]])[-1]
    values = []
    for percent in percents:
        wanted = behind[-1] * percent / 100.0
        block = min(int(np.searchsorted(behind, wanted)), len(blocks) - 1)
        before = behind[block - 1] if block else 0.0
        below = before + np.cumsum(blocks[block], dtype=np.float64)
        place = min(int(np.searchsorted(below, wanted)), BLOCK_GREYS - 1)
        count = float(blocks[block, place])
        inside = (wanted - (below[place] - count)) / max(count, 1.0)
        value = block * BLOCK_GREYS + place - 0.5 + min(max(inside, 0.0), 1.0)
        values.append(float(min(max(value, first), last)))
    return values


def _fit(pixels_HW: np.ndarray, size_px: int, fit: str) -> np.ndarray:
    """Average (or, of a smaller picture, interpolate) to a square."""
    if fit == "squash":
        return _resize(pixels_HW, size_px, size_px)
    if pixels_HW.shape[0] < pixels_HW.shape[1]:
        return _fit(pixels_HW.T, size_px, fit).T
    height, width = pixels_HW.shape
    columns = _even_margin(width * size_px / height, size_px)
    # The rest of the outermost columns is filled before the average and not by rounding the width,
    # so that pictures a pixel apart in size do not come out a column apart.
    fill = max(0, round(columns * height / size_px) - width)
    filled = cv2.copyMakeBorder(
        pixels_HW, 0, 0, fill // 2, fill - fill // 2, cv2.BORDER_CONSTANT, value=0
    )
    left = (size_px - columns) // 2
    square = np.zeros((size_px, size_px), pixels_HW.dtype)
    square[:, left : left + columns] = _resize(filled, size_px, columns)
    return square


def _even_margin(width: float, size_px: int) -> int:
    """Return the next whole width that leaves the same margin on both sides of `size_px`."""
    columns = max(1, math.ceil(width - 1e-6))
    return min(size_px, columns + (size_px - columns) % 2)


def _resize(pixels_HW: np.ndarray, height: int, width: int) -> np.ndarray:
    """Area average downwards; bilinear where a side grows (an area average would show blocks)."""
    grows = pixels_HW.shape[0] < height or pixels_HW.shape[1] < width
    how = cv2.INTER_LINEAR if grows else cv2.INTER_AREA
    return cast(np.ndarray, cv2.resize(pixels_HW, (width, height), interpolation=how))
