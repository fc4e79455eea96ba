"""Objects of a binary mask: which of them may be an implant, and the clean-up of a mask.

Shapes: H rows, W columns.
"""

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

MAX_OBJECTS = 2
"""Stem and cup, or femoral and tibial component (Patel et al. 2021: the largest one or two)."""
SECOND = 0.12
"""Area that the second object has at least, as a part of the first's."""
NEAR = 0.08
"""Distance of the second object from the first at most, as a part of the longer side: a joint's
components lie close together, a side marker does not."""
EDGE_BAND = 0.12
"""An object within this part of a side's edge is a marker, a collimator or writing."""
MAX_ON_BORDER = 0.25
"""Border pixels of an object at most, as a part of its box's width and height together. A shaft
leaves the picture by its width, which is less; a collimator's blade lies along it."""
HOLE = 0.1
"""Area of a hole that is filled at most, as a part of the mask's: screw holes and windows, but not
the bone between a stem and a plate."""
LOOKED_AT = 12  # largest objects, of noise there are thousands


def clean_up(mask_HW: Mask) -> Mask:
    """Keep the implant of a mask: its largest one or two objects, without holes.

    Args:
        mask_HW: bool; a threshold's or a network's.

    Returns:
        bool (H, W); empty where no object may be an implant.
    """
    return fill_holes(keep_objects(mask_HW))


def keep_objects(mask_HW: Mask) -> Mask:
    """Keep the largest object that is neither collimator nor marker, and a second one near it."""
    _, labels_HW, facts_N5, _ = cv2.connectedComponentsWithStats(
        mask_HW.astype(np.uint8), connectivity=4
    )
    kept: list[int] = []
    for index in _candidates(np.asarray(labels_HW, np.int32), np.asarray(facts_N5, np.int32)):
        if not kept:
            kept.append(index)
            continue
        area, largest = facts_N5[[index, kept[0]], cv2.CC_STAT_AREA]
        if len(kept) == MAX_OBJECTS or area < SECOND * largest:
            break
        if _distance(labels_HW == kept[0], labels_HW == index) <= NEAR * max(mask_HW.shape):
            kept.append(index)
    return np.isin(labels_HW, kept)


def _candidates(labels_HW: NDArray[np.int32], facts_N5: NDArray[np.int32]) -> list[int]:
    """Return objects by falling area, without those that lie on or along the picture's border."""
    edges = (labels_HW[0], labels_HW[-1], labels_HW[:, 0], labels_HW[:, -1])
    on_border_N = np.bincount(np.concatenate(edges), minlength=len(facts_N5))
    height, width = labels_HW.shape
    largest_first = np.argsort(-facts_N5[1:, cv2.CC_STAT_AREA], kind="stable")[:LOOKED_AT] + 1
    chosen = []
    for index in largest_first.tolist():
        left, top, columns, rows, _ = facts_N5[index].tolist()
        along = on_border_N[index] > MAX_ON_BORDER * (columns + rows)
        if not (along or _in_band(left, columns, width) or _in_band(top, rows, height)):
            chosen.append(index)
    return chosen


def _in_band(start: int, extent: int, side: int) -> bool:
    return start + extent < EDGE_BAND * side or start > (1 - EDGE_BAND) * side


def _distance(one_HW: Mask, other_HW: Mask) -> float:
    away_HW = cv2.distanceTransform((~one_HW).astype(np.uint8), cv2.DIST_L2, 3)
    return float(away_HW[other_HW].min())


def fill_holes(mask_HW: Mask) -> Mask:
    """Fill what a mask encloses, where it is small; what reaches the border is no hole."""
    count, labels_HW, facts_N5, _ = cv2.connectedComponentsWithStats(
        (~mask_HW).astype(np.uint8), connectivity=4
    )
    edges = (labels_HW[0], labels_HW[-1], labels_HW[:, 0], labels_HW[:, -1])
    hole_N = np.ones(count, bool)
    hole_N[np.unique(np.concatenate(edges))] = False
    hole_N[facts_N5[:, cv2.CC_STAT_AREA] > HOLE * mask_HW.sum()] = False
    hole_N[0] = False  # the mask itself
    return cast(Mask, mask_HW | hole_N[labels_HW])


def box_of(mask_HW: Mask) -> tuple[slice, slice]:
    """Rows and columns from the first that holds something to the last; all of an empty mask."""
    if not mask_HW.any():
        return slice(0, mask_HW.shape[0]), slice(0, mask_HW.shape[1])
    rows, columns = (np.flatnonzero(mask_HW.any(axis=axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
