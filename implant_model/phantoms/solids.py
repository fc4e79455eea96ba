"""Solid bodies and the lengths of their chords along the X-ray beam.

Pure geometry: a body is described in millimetres in a frame of its own (x to the right, y down the
limb, z along the beam), and every `add_*` function adds its chord lengths to a map of the image.
The beam is parallel; magnification is part of the frame's scale. Maps hold millimetres times the
`gain` that the caller gives (a linear attenuation coefficient in 1/mm makes them optical depths); a
negative gain carves a cavity.

The bodies serve synthetic radiographs: they show the pipeline at work, they are no evidence about
patients.

Shape letters: H rows, W columns, N points, S table entries.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from implant_model.phantoms.shapes import Loft, Points

Map = NDArray[np.float32]

_LUT_PER_MM = 4  # a loft's outline is tabulated four times a millimetre
_SUBPIXEL_BITS = 4  # cv2's fixed-point shift: 1/16 px


@dataclass(frozen=True)
class Frame:
    """A similarity (or flattened) map from a body's millimetres to pixels of the image.

    Attributes:
        matrix: (2, 3) float64; pixel = matrix[:, :2] @ (x, y) + matrix[:, 2].
    """

    matrix: Points

    @property
    def px_per_mm(self) -> float:
        """Return pixels for each millimetre (geometric mean of the two axes)."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))))

    def at(
        self, x: float, y: float, degrees: float = 0.0, scale: tuple[float, float] = (1.0, 1.0)
    ) -> "Frame":
        """Return the frame of a part whose origin lies at (x, y) mm of this one.

        Args:
            x: Millimetres to the right.
            y: Millimetres down.
            degrees: Rotation of the part, clockwise on the screen.
            scale: Factors of the part's own x and y axes; -1 mirrors.
        """
        turn = np.radians(degrees)
        axes = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        axes = axes * np.asarray(scale)
        linear = self.matrix[:, :2]
        origin = linear @ (x, y) + self.matrix[:, 2]
        return Frame(np.column_stack([linear @ axes, origin]))

    def to_px(self, points_N2: Points) -> Points:
        """Return pixel positions, (N, 2) float64 as (column, row), of points in millimetres."""
        return points_N2 @ self.matrix[:, :2].T + self.matrix[:, 2]


def _patch(
    shape: tuple[int, int], frame: Frame, box: tuple[float, float, float, float]
) -> tuple[slice, slice, Map, Map] | None:
    """Return rows, columns and body coordinates (H, W) of the pixels that a box in mm can cover."""
    left, top, right, bottom = box
    corners = np.array([[left, top], [right, top], [left, bottom], [right, bottom]])
    px = frame.to_px(corners)
    low = np.maximum(np.floor(px.min(axis=0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(px.max(axis=0)).astype(int) + 2, (shape[1], shape[0]))
    if (low >= high).any():
        return None
    inverse = np.linalg.inv(frame.matrix[:, :2])
    columns = np.arange(low[0], high[0], dtype=np.float64) - frame.matrix[0, 2]
    rows = np.arange(low[1], high[1], dtype=np.float64)[:, None] - frame.matrix[1, 2]
    x_HW = (inverse[0, 0] * columns).astype(np.float32) + (inverse[0, 1] * rows).astype(np.float32)
    y_HW = (inverse[1, 0] * columns).astype(np.float32) + (inverse[1, 1] * rows).astype(np.float32)
    return slice(low[1], high[1]), slice(low[0], high[0]), x_HW, y_HW


def _tables(body: Loft, turn_degrees: float) -> tuple[float, Map]:
    """First y and the (3, S) table of centre, half width and depth, for a turn about the axis."""
    stations = np.array(body.stations)
    y = np.arange(stations[0, 0], stations[-1, 0] + 1 / _LUT_PER_MM, 1 / _LUT_PER_MM)
    left, right, depth = (np.interp(y, stations[:, 0], stations[:, k]) for k in (1, 2, 3))
    width = max(int(body.smooth_mm * _LUT_PER_MM), 1)
    if width > 1:
        kernel = np.hanning(width + 2)[1:-1]
        kernel /= kernel.sum()
        edges = (width // 2, width - 1 - width // 2)
        left, right, depth = (
            np.convolve(np.pad(v, edges, mode="reflect", reflect_type="odd"), kernel, "valid")
            for v in (left, right, depth)
        )
    half = np.maximum((right - left) / 2, 0.05)
    depth = np.maximum(depth, 0.1)
    turn = np.radians(turn_degrees)
    seen = np.sqrt((half * np.cos(turn)) ** 2 + (depth / 2 * np.sin(turn)) ** 2)
    tables = np.stack([(left + right) / 2 * np.cos(turn), seen, depth * half / seen])
    return float(y[0]), tables.astype(np.float32)


def add_loft(
    target_HW: Map, frame: Frame, body: Loft, gain: float = 1.0, turn_degrees: float = 0.0
) -> None:
    """Add the chords of a loft.

    Args:
        target_HW: The map, changed in place.
        frame: The body's frame.
        body: The loft.
        gain: Factor on the chord in millimetres of the body's frame.
        turn_degrees: Rotation of the body about its y axis (out of the image plane); outline and
            depth follow those of an ellipse of the same axes.
    """
    first, tables = _tables(body, turn_degrees)
    centre, half, depth = tables
    box = (
        float((centre - half).min()), first,
        float((centre + half).max()), first + (tables.shape[1] - 1) / _LUT_PER_MM,
    )  # fmt: skip
    patch = _patch((target_HW.shape[0], target_HW.shape[1]), frame, box)
    if patch is None:
        return
    rows, columns, x_HW, y_HW = patch
    step_HW = (y_HW - np.float32(first)) * np.float32(_LUT_PER_MM)
    last = tables.shape[1] - 1
    inside_HW = np.clip(np.minimum(step_HW, last - step_HW) + 0.5, 0, 1)
    index_HW = np.clip(step_HW, 0, last).astype(np.intp)
    half_HW = half[index_HW]
    u_HW = (x_HW - centre[index_HW]) / half_HW
    chord_HW = u_HW * u_HW
    for _ in range({2: 0, 4: 1, 8: 2}[body.exponent]):
        np.multiply(chord_HW, chord_HW, out=chord_HW)
    np.subtract(1, chord_HW, out=chord_HW)
    np.maximum(chord_HW, 0, out=chord_HW)
    for _ in range({2: 1, 4: 2, 8: 3}[body.exponent]):
        np.sqrt(chord_HW, out=chord_HW)
    target_HW[rows, columns] += chord_HW * depth[index_HW] * inside_HW * np.float32(gain)


def add_prism(
    target_HW: Map, frame: Frame, outline_N2: Points, gain: float, bevel_mm: float = 0.0
) -> None:
    """Add a body of constant depth with the given outline, which cv2 widens by half a pixel.

    Args:
        target_HW: The map, changed in place.
        frame: The outline's frame.
        outline_N2: Closed outline in mm.
        gain: What is added at full depth (depth in mm times attenuation).
        bevel_mm: Width over which the edge rounds off to nothing; 0 is a straight cut.
    """
    px = frame.to_px(outline_N2)
    low = np.maximum(np.floor(px.min(axis=0)).astype(int) - 2, 0)
    high = np.minimum(np.ceil(px.max(axis=0)).astype(int) + 3, target_HW.shape[::-1])
    if (low >= high).any():
        return
    cover_HW = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    fixed = np.round((px - low) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(cover_HW, [fixed], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
    depth_HW = cover_HW.astype(np.float32) * np.float32(gain / 255)
    bevel_px = bevel_mm * frame.px_per_mm
    if bevel_px > 1:
        inner_HW = cv2.distanceTransform((cover_HW > 127).astype(np.uint8), cv2.DIST_L2, 3)
        rest_HW = 1 - np.minimum(inner_HW * np.float32(1 / bevel_px), 1)
        depth_HW *= np.sqrt(1 - rest_HW * rest_HW)
    target_HW[low[1] : high[1], low[0] : high[0]] += depth_HW


def add_ball(target_HW: Map, frame: Frame, radius: float, gain: float) -> None:
    """Add a ball about the frame's origin; `radius` in mm."""
    patch = _patch(
        (target_HW.shape[0], target_HW.shape[1]), frame, (-radius, -radius, radius, radius)
    )
    if patch is None:
        return
    rows, columns, x_HW, y_HW = patch
    square_HW = np.maximum(np.float32(radius**2) - x_HW * x_HW - y_HW * y_HW, 0)
    target_HW[rows, columns] += np.sqrt(square_HW) * np.float32(2 * gain)


def add_bowl(
    target_HW: Map, frame: Frame, radii: tuple[float, float], tilt_degrees: float, gain: float
) -> None:
    """Add a hemispherical shell that opens along +y and, by the tilt, towards the beam.

    Args:
        target_HW: The map, changed in place.
        frame: Its centre, with y along the opening's axis as seen in the image.
        radii: Outer and inner radius in mm; an inner radius of 0 gives a half ball.
        tilt_degrees: Angle between the opening's axis and the image plane (cup anteversion).
        gain: Factor on the chord in millimetres.
    """
    outer = radii[0]
    patch = _patch((target_HW.shape[0], target_HW.shape[1]), frame, (-outer, -outer, outer, outer))
    if patch is None:
        return
    rows, columns, x_HW, y_HW = patch
    # The solid half has y cos(tilt) + z sin(tilt) <= 0, hence z <= cut.
    slope = np.tan(np.radians(max(tilt_degrees, 0.5)))
    cut_HW = -y_HW / np.float32(slope)
    ring_HW = x_HW * x_HW + y_HW * y_HW
    for radius, sign in zip(radii, (1.0, -1.0), strict=True):
        top_HW = np.sqrt(np.maximum(np.float32(radius**2) - ring_HW, 0))
        chord_HW = np.maximum(np.minimum(top_HW, cut_HW) + top_HW, 0)
        target_HW[rows, columns] += chord_HW * np.float32(sign * gain)


def add_wire(
    target_HW: Map,
    frame: Frame,
    points: Sequence[tuple[float, float]],
    diameter: float,
    gain: float,
) -> None:
    """Add a thin wire along a polyline; `diameter` in mm, `gain` per millimetre of chord."""
    px = frame.to_px(np.asarray(points, dtype=np.float64))
    fixed = np.round(px * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cover_HW = np.zeros(target_HW.shape, np.uint8)
    wide = max(diameter * frame.px_per_mm, 1.0)
    cv2.polylines(cover_HW, [fixed], False, 255, round(wide), cv2.LINE_AA, _SUBPIXEL_BITS)
    target_HW += cover_HW.astype(np.float32) * np.float32(gain * diameter * 0.8 / 255)
