"""What a classifier could cheat with: facts of the file that go with a class and not with implants.

A probe that sees nothing but such cues names the class by its nearest neighbour, leaving out the
image's own group. If it does much better than always naming the commonest class, a classifier's
figures on this set need a control; the card shows both.

Shapes: N images, S side.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.metrics import Figure, share

VOTES = 5
MAX_PROBED = 10_000
"""Images that are probed: of a larger set so many are drawn, since each is held against all."""


@dataclass(frozen=True)
class ShortcutReport:
    """How much the cues tell of the class.

    Attributes:
        majority: Share right by always naming the commonest class.
        native: Share right from the stored size alone, which no network sees.
        seen: Share right from what preprocessing leaves of it: black borders and sharpness.
    """

    majority: Figure
    native: Figure
    seen: Figure


def probe_shortcuts(
    seen_NC: NDArray[np.floating],
    sizes_N2: NDArray[np.int64],
    labels_N: NDArray[np.int64],
    groups_N: NDArray[np.int64],
) -> ShortcutReport:
    """Measure how well cues alone name the class.

    Args:
        seen_NC: See `cues_of`.
        sizes_N2: Rows and columns as stored; 0 where unknown.
        labels_N: Class of each image.
        groups_N: Group of each image.
    """
    if len(labels_N) > MAX_PROBED:
        chosen = np.sort(np.random.default_rng(0).permutation(len(labels_N))[:MAX_PROBED])
        seen_NC, sizes_N2 = seen_NC[chosen], sizes_N2[chosen]
        labels_N, groups_N = labels_N[chosen], groups_N[chosen]
    sizes_N2 = np.maximum(sizes_N2, 1)
    native_NC = np.column_stack([np.log(sizes_N2), np.log(sizes_N2[:, 0] / sizes_N2[:, 1])])
    commonest = int(np.bincount(labels_N).argmax())
    return ShortcutReport(
        share(labels_N == commonest, groups_N),
        _nearest(native_NC, labels_N, groups_N),
        _nearest(seen_NC, labels_N, groups_N),
    )


def cues_of(images_NSS: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Return what preprocessing leaves of a file's facts: share of black, sharpness; (N, 2)."""
    cues = [[black_share(image_SS), sharpness(image_SS)] for image_SS in images_NSS]
    return np.array(cues, np.float32).reshape(-1, 2)


def black_share(image_SS: NDArray[np.uint8]) -> float:
    """Share of the pixels that are black: padding and collimation."""
    return float((image_SS < 4).mean())


def sharpness(image_SS: NDArray[np.uint8]) -> float:
    """Return log of the Laplacian's variance over the picture's: how much fine detail there is."""
    detail = cv2.Laplacian(image_SS.astype(np.float32), cv2.CV_32F)
    return math.log((float(detail.var()) + 1e-3) / (float(image_SS.var()) + 1e-3))


def _nearest(
    cues_NC: NDArray[np.floating], labels_N: NDArray[np.int64], groups_N: NDArray[np.int64]
) -> Figure:
    """Leave-one-group-out vote of the 5 nearest neighbours on standardised cues.

    Sizes are often the same: among neighbours as near as the fifth, and among classes of as many
    votes, the lot decides. If all of them voted, a cue that is the same in all images would always
    miss in a set of equal classes, since an image's own class has the fewest others.
    """
    spread_C = cues_NC.std(axis=0)
    scaled_NC = (cues_NC - cues_NC.mean(axis=0)) / np.where(spread_C > 0, spread_C, 1)
    hits_N = np.zeros(len(labels_N), dtype=bool)
    lot = np.random.default_rng(0)
    for index, cue_C in enumerate(scaled_NC):
        others_M = np.flatnonzero(groups_N != groups_N[index])
        if not len(others_M):
            continue
        others_M = lot.permutation(others_M)
        distance_M = ((scaled_NC[others_M] - cue_C) ** 2).sum(axis=1).round(9)
        near_V = others_M[np.argsort(distance_M, kind="stable")[:VOTES]]
        votes_K = np.bincount(labels_N[near_V])
        hits_N[index] = lot.choice(np.flatnonzero(votes_K == votes_K.max())) == labels_N[index]
    return share(hits_N, groups_N)
