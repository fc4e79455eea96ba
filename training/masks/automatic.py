"""Masks of implants made without a hand: the density trough between bone and metal, and a grade.

After Patel et al. 2021 (10.1148/ryai.2021200183), who cut the implant out where the histogram has
its trough between bone and metal, kept the largest one or two objects and filled their holes. On
real radiographs one threshold of the whole picture seldom does: a shoulder behind the chest is as
bright as a stem in front of air. So the histogram is also taken of the picture less its broad
background, at two scales, and of all troughs the one wins whose outline has the sharpest edge all
along: the mean step of the grey across it together with the step of its weakest fifth.

Measured on 72 phantoms, six of each of OrthoNet's twelve products, 384 rows, prepared to 256 px
with their collimation left in, against their true masks: `python -m benchmarks.mask_overlap` prints
median Dice 0.968 and mean 0.902; 57 of 72 reach 0.9. Of the 67 that are graded good, none of the 57
missing, the mean is 0.928. The misses are cut stems: a head of cobalt chrome has a sharper edge
than the thinner titanium below it. Of two implants far from each other one is found. Smaller
pictures lose trays and collars (36 phantoms, `--each 3 --height-px 256`): median 0.941 at 128 px,
0.916 at 96. Of 40 real shoulder radiographs, every twelfth of the set, 14 are graded good; looked
at, three of these have bone in their masks, and about six usable ones are graded poor.

These phantoms show that the method works; they are no evidence about patients.

Shapes: H rows, W columns.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from training.masks.grade import EMPTY, Grade, edge_step, grade_mask
from training.masks.objects import Mask, box_of, clean_up

Grey = NDArray[np.uint8]

BACKGROUNDS = (0.0, 0.25, 0.12)
"""Standard deviations of the backgrounds that are taken away, as parts of the longer side; 0: none.
Smaller ones than an implant's width would take the implant away."""
BRIGHT = (0.5, 0.995)  # shares of the pixels between whose greys a threshold may lie
SMOOTHING = 3.0  # standard deviation of the histogram's smoothing, in greys of 256
EXTRA = 12
"""Thresholds tried beside the troughs, evenly over the bright end: over a saturated implant the
histogram has a slope and no trough."""
LEAST, MOST = 0.005, 0.4  # area of an implant, as a part of the picture's
WEAKEST = 0.2  # part of the outline whose step counts beside the mean
USUAL = 0.03  # area from which a larger mask counts no more than a smaller one of the same edge
OPEN_FROM_PX = 160  # on smaller pictures an opening of 3 px takes tibial trays and collars away


@dataclass(frozen=True)
class GradedMask:
    """An automatic mask and what is to be thought of it.

    Attributes:
        mask_HW: bool, True on the implant; empty where none was found.
        grade: Its score and, where it is poor, why.
    """

    mask_HW: Mask
    grade: Grade


def find_mask(image_HW: Grey) -> GradedMask:
    """Find the implant of a preprocessed radiograph.

    Args:
        image_HW: uint8, bone bright, 32 px a side or more; padding is black.
    """
    rows, columns = box_of(image_HW > EMPTY)
    inner_HW = np.ascontiguousarray(image_HW[rows, columns])
    picture_HW = np.asarray(cv2.GaussianBlur(inner_HW, (0, 0), 0.7), np.uint8)
    best, mark = np.zeros(picture_HW.shape, bool), 0.0
    for mask_HW in _proposals(picture_HW):
        share = float(mask_HW.mean())
        if LEAST <= share <= MOST:
            mean, weak = edge_step(picture_HW, mask_HW, WEAKEST)
            sharpness = (mean + weak) / 2 * min(1.0, share / USUAL) ** 0.5
            if sharpness > mark:
                best, mark = mask_HW, sharpness
    whole_HW = np.zeros(image_HW.shape, bool)
    whole_HW[rows, columns] = best
    return GradedMask(whole_HW, grade_mask(image_HW, whole_HW))


def _proposals(picture_HW: Grey) -> Iterator[Mask]:
    """Yield the objects above each trough, and above thresholds between, of each version."""
    for background in BACKGROUNDS:
        flat_HW = flatten(picture_HW, background) if background else picture_HW
        for threshold in thresholds(flat_HW):
            bright_HW = flat_HW > threshold
            if min(picture_HW.shape) >= OPEN_FROM_PX:
                square = np.ones((3, 3), np.uint8)
                bright_HW = cv2.morphologyEx(bright_HW.view(np.uint8), cv2.MORPH_OPEN, square) > 0
            yield clean_up(bright_HW)


def flatten(picture_HW: Grey, background: float) -> Grey:
    """Take the broad background away and stretch the rest to 0..255.

    Args:
        picture_HW: uint8.
        background: Standard deviation of its smoothing, as a part of the longer side.
    """
    height, width = picture_HW.shape
    step = max(1, int(background * max(height, width) / 6))  # a smooth picture needs few pixels
    small = cv2.resize(
        picture_HW.astype(np.float32),
        (max(1, width // step), max(1, height // step)),
        interpolation=cv2.INTER_AREA,
    )
    small = cv2.GaussianBlur(small, (0, 0), background * max(height, width) / step)
    rest_HW = picture_HW - cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    low, high = np.percentile(rest_HW, (1.0, 99.7))
    stretched_HW = np.clip((rest_HW - low) * (255 / max(float(high - low), 1.0)), 0, 255)
    return cast(Grey, stretched_HW.astype(np.uint8))


def thresholds(picture_HW: Grey) -> list[int]:
    """Return greys to cut at: the troughs of the histogram's bright end, and some between them.

    Args:
        picture_HW: uint8.

    Returns:
        Rising, without repetition.
    """
    counts = np.bincount(picture_HW.ravel(), minlength=256).astype(np.float64)
    counts[: EMPTY + 1] = 0
    below = np.cumsum(counts) / max(counts.sum(), 1.0)
    low, high = np.searchsorted(below, BRIGHT).clip(1, 254).tolist()
    smooth = cv2.GaussianBlur(
        counts[None], (0, 0), SMOOTHING, borderType=cv2.BORDER_REFLECT
    ).ravel()
    greys = np.arange(low, high + 1)
    trough = (smooth[greys] <= smooth[greys - 1]) & (smooth[greys] < smooth[greys + 1])
    even = np.linspace(low, high, EXTRA).astype(int)
    return sorted({*greys[trough].tolist(), *even.tolist()})
