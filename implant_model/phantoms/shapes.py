"""Shapes that phantoms are made of: lofts along an axis, and rounded outlines; in millimetres.

They serve synthetic radiographs: they show the pipeline at work, they are no evidence about
patients.

Shape letters: N points.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Station = tuple[float, float, float, float]


@dataclass(frozen=True)
class Loft:
    """A long body: superelliptic cross-sections strung along the y axis.

    Attributes:
        stations: (y, left, right, depth) in mm, y ascending; left < right are the outline's x.
        exponent: Of the superellipse: 2 round, 4 rounded square, 8 nearly rectangular.
        smooth_mm: Length over which the outline between the stations is rounded off.
    """

    stations: tuple[Station, ...]
    exponent: int = 2
    smooth_mm: float = 4.0


def loft(stations: Sequence[Sequence[float]], exponent: int = 2, smooth_mm: float = 4.0) -> Loft:
    """Return a `Loft` from stations of (y, left, right[, depth]); depth defaults to the width."""
    rows = [(*row, row[2] - row[1])[:4] for row in stations]
    return Loft(tuple((r[0], r[1], r[2], r[3]) for r in rows), exponent, smooth_mm)


def rod(top: float, bottom: float, diameter: float, exponent: int = 2) -> Loft:
    """Return a cylinder from y = top to y = bottom with slightly rounded ends, in mm."""
    half, soft = diameter / 2, min(diameter, bottom - top) / 5
    rows = [(top, -half + soft, half - soft), (top + soft, -half, half)]
    rows += [(bottom - soft, -half, half), (bottom, -half + soft, half - soft)]
    return loft(rows, exponent, smooth_mm=0.0)


def rounded(points: Sequence[tuple[float, float]], passes: int = 3) -> Points:
    """Return a closed outline with its corners cut `passes` times (Chaikin 1974), (N, 2) in mm."""
    outline = np.asarray(points, dtype=np.float64)
    for _ in range(passes):
        after = np.roll(outline, -1, axis=0)
        outline = np.stack([0.75 * outline + 0.25 * after, 0.25 * outline + 0.75 * after], axis=1)
        outline = outline.reshape(-1, 2)
    return outline
