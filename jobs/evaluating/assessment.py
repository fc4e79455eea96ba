"""A packaged classifier judged on labelled images: all figures of it, each with its interval.

Figures of implants that the catalogue holds, of those that it does not (novelty), of calibration,
and of poor scans. Everything is counted over images; intervals allow for images of one patient
that are right or wrong together.

Shapes: N images, K classes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from implant_model.errors import Outcome
from implant_model.predictions import Predictions
from jobs.evaluating.robustness import Images, distortions
from training.metrics import Figure, auroc_of, bootstrap, evaluate, mean_of, scarcer, share

Indices = NDArray[np.int64]
Hits = NDArray[np.bool_]
CLASS_ROUNDS = 300
"""Resamplings for each class's own AUROC, of which there may be thousands."""
BINS = 10


@dataclass(frozen=True)
class Examined:
    """What a package states of labelled images.

    Attributes:
        names: Implants of its catalogue.
        labels_N: Index of each image's implant; -1 where the catalogue lacks it.
        said: The predictions.
        groups_N: Patient and near duplicate group of each image.
    """

    names: tuple[str, ...]
    labels_N: Indices
    said: Predictions
    groups_N: Indices

    @property
    def known_N(self) -> Hits:
        """Return whether the catalogue holds the image's implant."""
        return np.asarray(self.labels_N >= 0)

    @property
    def best_N(self) -> Indices:
        """Return the best candidate of each."""
        return np.asarray(self.said.probabilities_NC.argmax(axis=1), np.int64)

    @property
    def right_N(self) -> Hits:
        """Return whether the best candidate is the image's implant."""
        return np.asarray(self.best_N == self.labels_N)

    def outcome_N(self, outcome: Outcome) -> Hits:
        """Return whether each image has this outcome."""
        return np.array([found is outcome for found in self.said.outcomes], dtype=bool)


@dataclass(frozen=True)
class ClassFigures:
    """One implant: how many of its images are found, and how well it is distinguished."""

    name: str
    sensitivity: Figure
    auroc: Figure


@dataclass(frozen=True)
class Bin:
    """Images of similar probability: how sure the model was, and how often it was right."""

    confidence: float
    right: Figure


@dataclass(frozen=True)
class UnderDistortion:
    """How well the model does on poor scans.

    Attributes:
        kind: What was done to the images.
        strength: How much.
        top_1: Share whose best candidate is right.
        loss: Share of right answers lost against the same images undistorted.
        called_unknown: Share whose outcome is `unknown`: the model states that it cannot tell.
        right_if_answered: Share whose best candidate is right, of those not called unknown.
        coverage: Share whose candidates hold the right one, whatever the outcome.
    """

    kind: str
    strength: str
    top_1: Figure
    loss: Figure
    called_unknown: Figure
    right_if_answered: Figure
    coverage: Figure


def assess(examined: Examined) -> dict[str, Figure]:
    """Return all figures of the whole set by name.

    Returns:
        Of images of the catalogue's implants: top_1, top_3, macro_f1, mean_auroc,
        calibration_error, coverage, set_size, identified, right_if_identified, called_unknown.
        Of images of other implants: unknown_found. Of both: novelty_auroc.
    """
    known_N, groups_N = examined.known_N, examined.groups_N
    at = np.flatnonzero(known_N)
    labels_N, groups = examined.labels_N[at], groups_N[at]
    probabilities_NK = examined.said.probabilities_NC[at]
    candidates = [examined.said.candidates[i] for i in at]
    figures = evaluate(labels_N, probabilities_NK, candidates, groups, ())
    identified_N = examined.outcome_N(Outcome.IDENTIFIED)
    unknown_N = examined.outcome_N(Outcome.UNKNOWN)
    sure = np.flatnonzero(known_N & identified_N)
    others = np.flatnonzero(~known_N)
    novelty_N = examined.said.novelty_N
    figures |= {
        "identified": share(identified_N[at], groups),
        "right_if_identified": share(examined.right_N[sure], groups_N[sure]),
        "called_unknown": share(unknown_N[at], groups),
        "unknown_found": share(unknown_N[others], groups_N[others]),
        "novelty_auroc": bootstrap(
            auroc_of(novelty_N, ~known_N),
            groups_N,
            num_units=scarcer(known_N, groups_N),
        ),
    }
    return figures


def assess_classes(examined: Examined) -> list[ClassFigures]:
    """Return figures of each implant of the catalogue; NaN where the set has no image of it."""
    at = np.flatnonzero(examined.known_N)
    labels_N, groups_N = examined.labels_N[at], examined.groups_N[at]
    right_N, probabilities_NK = examined.right_N[at], examined.said.probabilities_NC[at]

    return [
        ClassFigures(
            name,
            share(right_N[labels_N == label], groups_N[labels_N == label]),
            bootstrap(
                auroc_of(probabilities_NK[:, label], labels_N == label),
                groups_N,
                CLASS_ROUNDS,
                num_units=scarcer(labels_N == label, groups_N),
            )
            if (labels_N == label).any()
            else Figure(math.nan, math.nan, math.nan, 0),
        )
        for label, name in enumerate(examined.names)
    ]


def reliability(examined: Examined, bins: int = BINS) -> list[Bin]:
    """Return bins of equal count by the best candidate's probability, least sure first."""
    at = np.flatnonzero(examined.known_N)
    confidence_N = examined.said.probabilities_NC[at].max(axis=1).astype(np.float64)
    right_N, groups_N = examined.right_N[at], examined.groups_N[at]
    order_N = np.argsort(confidence_N, kind="stable")
    parts = np.array_split(order_N, min(bins, len(at))) if len(at) else []
    return [
        Bin(float(confidence_N[part].mean()), share(right_N[part], groups_N[part]))
        for part in parts
    ]


def worst_mistakes(examined: Examined, most: int) -> list[int]:
    """Return positions of images that were named wrongly, those of the highest probability first.

    Of an implant outside the catalogue every name is wrong, unless the outcome is `unknown`.
    """
    missed_N = ~examined.known_N & ~examined.outcome_N(Outcome.UNKNOWN)
    wrong = np.flatnonzero((examined.known_N & ~examined.right_N) | missed_N)
    confidence = examined.said.probabilities_NC[wrong].max(axis=1)
    return [int(i) for i in wrong[np.argsort(-confidence, kind="stable")][:most]]


def assess_robustness(
    images_NHW: Images,
    labels_N: Indices,
    groups_N: Indices,
    classify: Callable[[Images], Predictions],
) -> Iterator[UnderDistortion]:
    """Yield figures on the same images as they are, and under each kind of poor scan in turn.

    Args:
        images_NHW: Preprocessed images of the catalogue's implants.
        labels_N: Their implants.
        groups_N: Their patients.
        classify: The classifier.
    """
    before_N = np.zeros(0, dtype=bool)
    steps: Sequence[tuple[str, str, Callable[[Images], Images]]] = [
        ("as they are", "", lambda images: images),
        *((d.kind, d.strength, d.apply) for d in distortions()),
    ]
    for kind, strength, apply in steps:
        said = classify(apply(images_NHW))
        right_N = np.asarray(said.probabilities_NC.argmax(axis=1) == labels_N)
        before_N = right_N if not strength else before_N
        unknown_N = np.array([o is Outcome.UNKNOWN for o in said.outcomes], dtype=bool)
        held_N = [label in said.candidates[i] for i, label in enumerate(labels_N.tolist())]
        yield UnderDistortion(
            kind,
            strength,
            share(right_N, groups_N),
            _loss(before_N, right_N, groups_N),
            share(unknown_N, groups_N),
            share(right_N[~unknown_N], groups_N[~unknown_N]),
            share(np.array(held_N, dtype=bool), groups_N),
        )


def _loss(before_N: Hits, after_N: Hits, groups_N: Indices) -> Figure:
    lost_N = before_N.astype(np.float64) - after_N.astype(np.float64)
    return bootstrap(mean_of(lost_N), groups_N, span=(-1.0, 1.0))
