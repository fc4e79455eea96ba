"""What stands for the known implants where new ones are told from them: images, or drawn points.

Letters: N images, C known implants, F features of all networks side by side, K axes, P points.
"""

from typing import Final

import numpy as np

from implant_model.networks.build import Ensemble
from implant_model.novelty import NoveltyReference
from training.enrolment.embedded import Embedded, Floats, Indices, lengths, logs_of

MAX_POINTS: Final = 4096
POINTS_EACH: Final = 64


def known_points(
    networks: Ensemble,
    reference: NoveltyReference,
    images: Embedded,
    known: Embedded | None,
    accuracy: float | None,
) -> tuple[Floats, Indices]:
    """Return what stands for the known implants, as embeddings side by side, and whose it is."""
    points_PF, labels_P = draw_known(reference, images.features_NF)
    if accuracy is not None:
        centres_CF = known_centres(reference, images.features_NF)
        ways_PF = centres_CF[labels_P] - centres_CF.mean(axis=0)
        points_PF = _as_hard(networks, images, points_PF, ways_PF, labels_P, accuracy)
    if known is None or not len(known.labels_N):
        return points_PF, labels_P
    is_drawn_P = ~np.isin(labels_P, known.labels_N)
    own = [raw_NF / length for raw_NF, length in zip(known.raw, lengths(images), strict=True)]
    return (
        np.concatenate((points_PF[is_drawn_P], np.concatenate(own, axis=1))),
        np.concatenate((labels_P[is_drawn_P], known.labels_N)),
    )


def draw_known(reference: NoveltyReference, features_NF: Floats) -> tuple[Floats, Indices]:
    """Draw points around the known implants' centres, as embeddings side by side, and their labels.

    Args:
        reference: Of the package.
        features_NF: Of new images, for the scale of embeddings that are measured by direction.
    """
    origin_F, scale = _from_placed(reference, features_NF)
    centres_CF, within = reference.centres_CF.astype(np.float64), reference.within
    each = max(2, min(POINTS_EACH, MAX_POINTS // len(centres_CF)))
    labels_P = np.repeat(np.arange(len(centres_CF)), each)
    rng = np.random.default_rng(0)
    excess_K = np.maximum(within.variances_K.astype(np.float64) - within.rest, 0.0)
    along_PK = rng.standard_normal((len(labels_P), len(excess_K))) * np.sqrt(excess_K)
    points_PF = rng.standard_normal((len(labels_P), centres_CF.shape[1])) * np.sqrt(within.rest)
    points_PF += centres_CF[labels_P] + along_PK @ within.axes_KF.astype(np.float64)
    return origin_F + scale * points_PF, labels_P


def _as_hard(
    networks: Ensemble,
    images: Embedded,
    points_PF: Floats,
    ways_PF: Floats,
    labels_P: Indices,
    accuracy: float,
) -> Floats:
    """Take so much of a way from each point that the networks name that share of them right."""
    splits = np.cumsum([raw_NF.shape[1] for raw_NF in images.raw])[:-1]

    def is_easy(share: float) -> bool:
        parts = np.split(points_PF - share * ways_PF, splits, axis=1)
        raw = [part * length for part, length in zip(parts, lengths(images), strict=True)]
        found_P = logs_of(networks, Embedded(raw, labels_P, labels_P)).argmax(axis=1)
        return float((found_P == labels_P).mean()) > accuracy

    low, high = 0.0, 1.0
    for _ in range(12 if is_easy(0.0) else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if is_easy(middle) else (low, middle)
    return points_PF - low * ways_PF


def known_centres(reference: NoveltyReference, features_NF: Floats) -> Floats:
    """Return the known implants' centres as embeddings side by side, CF; see `draw_known`."""
    origin_F, scale = _from_placed(reference, features_NF)
    return np.asarray(origin_F + scale * reference.centres_CF.astype(np.float64), np.float64)


def _from_placed(reference: NoveltyReference, features_NF: Floats) -> tuple[Floats, float]:
    """Return origin and scale that bring the space of the centres back to embeddings."""
    if reference.method != "normalised_mahalanobis":
        return np.zeros(features_NF.shape[1]), 1.0
    mean_F = reference.mean_F.astype(np.float64)
    return mean_F, float(np.median(np.linalg.norm(features_NF - mean_F, axis=1)))
