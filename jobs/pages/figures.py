"""Counts > where the bars of a figure stand. The templates draw them as inline SVG.

Lengths are in units of the figure's view box, y downwards.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from implant_model.errors import Outcome

Floats = npt.NDArray[np.float32]
WIDTH, HEIGHT = 360.0, 210.0
"""View box of a histogram: at this width in pixels a phone shows its text at full size."""
LEFT, RIGHT, TOP, BOTTOM = 40.0, 8.0, 22.0, 34.0
GAP = 1.0
SHOWN = (1.0, 99.0)
"""Percentiles between which a histogram without natural ends has its bins."""


@dataclass(frozen=True)
class Bar:
    """One rectangle; `kind` is the outcome that it counts."""

    x: float
    y: float
    width: float
    height: float
    kind: Outcome


@dataclass(frozen=True)
class Tick:
    """A label at a place of an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Bin:
    """One line of a histogram's table."""

    label: str
    counts: Sequence[int]


@dataclass(frozen=True)
class Histogram:
    """A stacked histogram.

    Attributes:
        kinds: The outcomes that it stacks, lowest first.
        bars: Its rectangles.
        x_ticks: Labels below it.
        y_ticks: Labels at its left.
        mark: A vertical line, if there is one to draw.
        bins: The same as numbers.
    """

    kinds: Sequence[Outcome]
    bars: Sequence[Bar]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    mark: Tick | None
    bins: Sequence[Bin]


def histogram(
    values: Mapping[Outcome, Floats],
    limits: tuple[float, float] | None = None,
    num_bins: int = 20,
    mark: float | None = None,
) -> Histogram | None:
    """Stack the values of several outcomes.

    Args:
        values: By outcome, lowest of the stack first.
        limits: Ends of the axis; None takes the percentiles `SHOWN`, and what lies outside is
            counted in the outermost bins.
        num_bins: Bins of equal width.
        mark: Where to draw a vertical line.

    Returns:
        None where there is no value.
    """
    everything = np.concatenate([np.empty(0, np.float32), *values.values()]).astype(np.float64)
    if not everything.size:
        return None
    low, high = _spread(everything, mark) if limits is None else limits
    edges = np.linspace(low, high, num_bins + 1)
    counts_KB = np.array(
        [np.histogram(np.clip(v, low, high), edges)[0] for v in values.values()], dtype=np.int64
    )
    most = _round_up(int(counts_KB.sum(axis=0).max()))
    digits = _digits(high - low)
    labels = _bin_labels([_text(edge, digits) for edge in edges], is_open=limits is None)
    return Histogram(
        tuple(values),
        _stack(counts_KB, tuple(values), most),
        [Tick(_x(v, low, high), _text(v, digits)) for v in np.linspace(low, high, 5)],
        [Tick(_y(v, most), f"{v:,.0f}") for v in (0, most / 2, most)],
        None if mark is None else Tick(_x(mark, low, high), _text(mark, digits)),
        [Bin(label, counts_KB[:, b].tolist()) for b, label in enumerate(labels)],
    )


def _stack(counts_KB: npt.NDArray[np.int64], kinds: Sequence[Outcome], most: int) -> list[Bar]:
    bars = []
    step = (WIDTH - LEFT - RIGHT) / counts_KB.shape[1]
    below_KB = np.cumsum(counts_KB, axis=0) - counts_KB
    for k, kind in enumerate(kinds):
        for b, count in enumerate(counts_KB[k].tolist()):
            if count:
                top = _y(below_KB[k, b] + count, most)
                height = _y(below_KB[k, b], most) - top
                bars.append(Bar(LEFT + b * step + GAP / 2, top, step - GAP, height, kind))
    return bars


def _spread(values: npt.NDArray[np.float64], mark: float | None) -> tuple[float, float]:
    """End of an axis that has none by itself: most of the values, and the mark, lie inside."""
    low, high = np.percentile(values, SHOWN).tolist()
    if mark is not None:
        low, high = min(low, mark), max(high, mark)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _bin_labels(edges: Sequence[str], *, is_open: bool) -> list[str]:
    labels = [f"{low} to {high}" for low, high in pairwise(edges)]
    if is_open:
        labels[0], labels[-1] = f"under {edges[1]}", f"{edges[-2]} and over"
    return labels


def _digits(spread: float) -> int:
    """Return digits after the point by which twenty bins of a spread can be distinguished."""
    return min(max(2 - math.floor(math.log10(spread)), 0), 6) if spread < 100 else 0


def _text(value: float, digits: int) -> str:
    """Return a number of an axis, short enough that five stand side by side."""
    return f"{value:.2g}" if abs(value) >= 1e5 else f"{value:,.{digits}f}"


def _round_up(count: int) -> int:
    """Return the next round number whose half is whole: 2, 4, 6, 8, 10, 12, 14, 16, 20, 40, ..."""
    power: int = 10 ** math.floor(math.log10(max(count, 1)))
    tenths = (m * power for m in (10, 12, 14, 16, 20, 40, 60, 80, 100, 200))
    return next(t // 10 for t in tenths if t >= 10 * count and t % 20 == 0)


def _x(value: float, low: float, high: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low)


def _y(count: float, most: int) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * float(count) / most
