"""How well masks agree: Dice and IoU as pure functions, with intervals.

Shapes: N images, H rows, W columns.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.evaluation import Figure, bootstrap

Mask = NDArray[np.bool_]
Masks = NDArray[np.bool_]
Indices = NDArray[np.int64]


def dice(one_HW: Mask, other_HW: Mask) -> float:
    """Twice the common area by the sum of both; 1 of two empty masks (Dice 1945)."""
    total = int(one_HW.sum()) + int(other_HW.sum())
    return 2 * int((one_HW & other_HW).sum()) / total if total else 1.0


def iou(one_HW: Mask, other_HW: Mask) -> float:
    """The common area by the area of both together; 1 of two empty masks (Jaccard 1901)."""
    union = int((one_HW | other_HW).sum())
    return int((one_HW & other_HW).sum()) / union if union else 1.0


def overlap_figures(
    predicted_NHW: Masks, true_NHW: Masks, groups_N: Indices
) -> dict[Literal["dice", "iou"], Figure]:
    """Mean Dice and IoU over images, with 95 % bootstrap intervals over groups.

    Args:
        predicted_NHW: bool; N may be 0, the figures are NaN then.
        true_NHW: bool.
        groups_N: Patient and duplicate group of each image.

    Raises:
        ValueError: The masks differ in number or size.
    """
    if predicted_NHW.shape != true_NHW.shape or len(groups_N) != len(true_NHW):
        raise ValueError(
            f"Masks of shape {predicted_NHW.shape} and {true_NHW.shape} with {len(groups_N)} "
            "groups were given; three of one length, and masks of one size, are wanted."
        )
    pairs = list(zip(predicted_NHW, true_NHW, strict=True))
    dice_N = np.array([dice(*pair) for pair in pairs], dtype=np.float64)
    iou_N = np.array([iou(*pair) for pair in pairs], dtype=np.float64)
    return {
        "dice": bootstrap(lambda chosen: float(dice_N[chosen].mean()), groups_N),
        "iou": bootstrap(lambda chosen: float(iou_N[chosen].mean()), groups_N),
    }
