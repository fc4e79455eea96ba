"""What an automatic mask is worth, by what can be seen without the truth.

Four marks from 0 to 1; 0.5 is where a mask stops being fit to learn from, and the least of them is
the score. The bounds were set on phantoms, whose true masks are known, and on 40 real shoulder
radiographs, looked at: masks that were cut off within the metal, or ran out into bone, have a
stretch of outline without an edge, and the weakest tenth of the outline tells them.

Shapes: H rows, W columns.
"""

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from training.masks.objects import Mask, box_of

Grey = NDArray[np.uint8]

PASS = 0.5
EMPTY = 4  # greys up to this are padding or what a digital shutter blackened
SMALL, LARGE = 0.01, 0.35  # area as a part of the picture's, where the mark is 0.5
STEP = 20.0  # greys of 256 across the outline, on average
WEAK_STEP = 0.4  # step that nine tenths of the outline reach, as a part of the average
SOLIDITY = 0.3  # area, as a part of its convex hulls'
ON_BORDER = 0.15  # part of the outline that lies on the picture's border


@dataclass(frozen=True)
class Grade:
    """What an automatic mask is worth.

    Attributes:
        score: 0 to 1, the least of the marks.
        reasons: The marks below 0.5: `area`, `edge`, `solidity`, `border`; or `no object`.
    """

    score: float
    reasons: tuple[str, ...]

    @property
    def word(self) -> str:
        """`good` or `poor`."""
        return "poor" if self.reasons else "good"


def grade_mask(image_HW: Grey, mask_HW: Mask) -> Grade:
    """Grade a mask.

    Args:
        image_HW: The preprocessed radiograph, uint8.
        mask_HW: bool, of the same size.
    """
    if not mask_HW.any():
        return Grade(0.0, ("no object",))
    window = box_of(image_HW > EMPTY)
    picture_HW, inner_HW = image_HW[window], mask_HW[window]
    mean, weak = edge_step(picture_HW, inner_HW, 0.1)
    solidity, on_border = _shape(inner_HW)
    share = float(inner_HW.mean())
    marks = {
        "area": min(share / SMALL, (2 * LARGE - share) / LARGE),
        "edge": min(mean / STEP, weak / (WEAK_STEP * max(mean, 1.0))),
        "solidity": solidity / SOLIDITY,
        "border": 2 - on_border / ON_BORDER,
    }
    scores = {name: min(max(mark * PASS, 0.0), 1.0) for name, mark in marks.items()}
    return Grade(min(scores.values()), tuple(n for n, score in scores.items() if score < PASS))


def _shape(mask_HW: Mask) -> tuple[float, float]:
    """Return area by that of the objects' convex hulls, and the outline's part on the border."""
    outlines, _ = cv2.findContours(
        mask_HW.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    # A hull goes through the centres of pixels: half a pixel is missing all around.
    hull = sum(_grown_area(np.asarray(cv2.convexHull(outline), np.int32)) for outline in outlines)
    length = sum(cv2.arcLength(outline, True) for outline in outlines)
    edges = (mask_HW[0], mask_HW[-1], mask_HW[:, 0], mask_HW[:, -1])
    on_border = sum(int(edge.sum()) for edge in edges)
    return float(mask_HW.sum()) / max(hull, 1.0), on_border / max(length, 1.0)


def _grown_area(hull: NDArray[np.int32]) -> float:
    return float(cv2.contourArea(hull) + cv2.arcLength(hull, True) / 2 + 1)


def edge_step(picture_HW: Grey, mask_HW: Mask, weakest: float) -> tuple[float, float]:
    """Return how much brighter a mask is than what lies beside it, along its outline.

    Args:
        picture_HW: uint8.
        mask_HW: bool.
        weakest: A part of the outline.

    Returns:
        Mean over the outline, and the step that all but its weakest part reach, in greys; zeros
        for a mask without an outline. The picture's own border is no outline.
    """
    reach = max(1, round(max(mask_HW.shape) * 3 / 256))
    eroded_HW = cv2.erode(mask_HW.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1)
    outline_HW = mask_HW & (eroded_HW == 0)
    if not outline_HW.any():
        return 0.0, 0.0
    inside_HW = mask_HW.astype(np.float32)
    step_HW = _mean_around(picture_HW, inside_HW, reach) - _mean_around(
        picture_HW, 1 - inside_HW, reach
    )
    steps = step_HW[outline_HW]
    return float(steps.mean()), float(np.quantile(steps, weakest))


def _mean_around(
    picture_HW: Grey, weight_HW: NDArray[np.float32], reach: int
) -> NDArray[np.float32]:
    """Return weighted mean of the square of `reach` pixels to each side."""
    size = (2 * reach + 1, 2 * reach + 1)
    sums_HW, weights_HW = (
        cv2.boxFilter(values, -1, size, normalize=False, borderType=cv2.BORDER_CONSTANT)
        for values in (picture_HW * weight_HW, weight_HW)
    )
    return cast(NDArray[np.float32], sums_HW / np.maximum(weights_HW, 1))
