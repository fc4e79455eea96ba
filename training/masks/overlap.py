"""How well masks agree: Dice and IoU as pure functions, with intervals.

Shapes: N images, H rows, W columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.metrics import Figure, bootstrap, mean_of

Mask = NDArray[np.bool_]
Masks = NDArray[np.bool_]
Indices = NDArray[np.int64]


def dice(one_HW: Mask, other_HW: Mask) -> float:
    """Twice the common area by the sum of both; 1 of two empty masks (Dice 1945)."""
    total = int(one_HW.sum()) + int(other_HW.sum())
    return 2 * int((one_HW & other_HW).sum()) / total if total else 1.0


def iou(one_HW: Mask, other_HW: Mask) -> float:
    """Return the common area by the area of both together; 1 of two empty masks (Jaccard 1901)."""
    union = int((one_HW | other_HW).sum())
    return int((one_HW & other_HW).sum()) / union if union else 1.0


@dataclass(frozen=True)
class Overlaps:
    """How well masks agree, image by image.

    Attributes:
        indices_N: Positions of the images in their set.
        dice_N: Dice of each, float64.
        iou_N: Intersection over union of each.
    """

    indices_N: Indices
    dice_N: NDArray[np.float64]
    iou_N: NDArray[np.float64]


def overlaps(predicted_NHW: Masks, true_NHW: Masks, indices_N: Indices) -> Overlaps:
    """Dice and IoU of each image.

    Args:
        predicted_NHW: bool; N may be 0.
        true_NHW: bool.
        indices_N: Positions of the images in their set.

    Raises:
        ValueError: The masks differ in number or size.
    """
    if predicted_NHW.shape != true_NHW.shape or len(indices_N) != len(true_NHW):
        raise ValueError(
            f"Masks of shape {predicted_NHW.shape} and {true_NHW.shape} with {len(indices_N)} "
            "positions were given; three of one length, and masks of one size, are expected."
        )
    pairs = list(zip(predicted_NHW, true_NHW, strict=True))
    dice_N = np.array([dice(*pair) for pair in pairs], dtype=np.float64)
    iou_N = np.array([iou(*pair) for pair in pairs], dtype=np.float64)
    return Overlaps(indices_N, dice_N, iou_N)


def pool_overlaps(parts: Sequence[Overlaps]) -> Overlaps:
    """Join the folds' test parts, which share no image; there is at least one."""
    return Overlaps(
        np.concatenate([part.indices_N for part in parts]),
        np.concatenate([part.dice_N for part in parts]),
        np.concatenate([part.iou_N for part in parts]),
    )


def overlap_figures(measured: Overlaps, groups_N: Indices) -> dict[str, Figure]:
    """Return mean Dice and IoU over images, with 95 % intervals as of `bootstrap`; NaN of none.

    Args:
        measured: Image by image.
        groups_N: Patient and duplicate group of each image of the whole set.
    """
    chosen_N = groups_N[measured.indices_N]
    return {
        "dice": bootstrap(mean_of(measured.dice_N), chosen_N),
        "iou": bootstrap(mean_of(measured.iou_N), chosen_N),
    }
