"""From fitted weights to calibrated, measured predictions, on the very weights that are shipped.

Weights pass through the package's own file format (float16 kernels) before anything is set or
measured on them. Temperature, candidates' threshold and novelty threshold come from the calibration
part, the novelty reference from the training part, figures from the test part. Where a set is too
small to spare a calibration part, the training part is held out from itself, fold by fold
(cross-conformal prediction, Vovk 2015).

Shapes: N images, S side, K classes, F features.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from implant_model.calibration import (
    CandidateSets,
    blocks,
    class_quantiles_of,
    fit_temperature,
    label_probabilities,
    novelty_threshold,
    prediction_sets,
    quantile_of,
    softmax,
)
from implant_model.classifier import measure as measure_networks
from implant_model.networks.spec import NetworkSpec
from implant_model.networks.weights import load_networks
from implant_model.novelty import Method, NoveltyReference, fit_novelty
from training.data.split import draw_each

MAX_REFERENCE = 50_000
"""Training images whose embeddings describe the known implants: more do so no better."""
MIN_EACH = 32
"""Of each class among them, however many classes there are."""
MAX_VALUES = 1 << 24
"""Probabilities of images and classes that are held at once: 128 MB, 1.4 million images of 12."""
MIN_SCORED = 20_000
"""Images that are scored, however many classes there are."""

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Outputs:
    """What the networks say of images.

    Attributes:
        logits_NK: Logs of the averaged probabilities before calibration.
        features_NF: Embeddings.
    """

    logits_NK: Floats
    features_NF: Floats


@dataclass(frozen=True)
class Scored:
    """What the networks say of images, with how far these are from known implants.

    Attributes:
        logits_NK: Before calibration.
        novelty_N: Scores.
    """

    logits_NK: Floats
    novelty_N: Floats


@dataclass(frozen=True)
class HeldOut:
    """What is said of images by networks to which they are new.

    Attributes:
        logits_NK: Before calibration.
        labels_N: Their classes.
        novelty_N: Scores.
    """

    logits_NK: Floats
    labels_N: Indices
    novelty_N: Floats


@dataclass(frozen=True)
class Calibrated:
    """What a package holds beside its weights.

    Attributes:
        temperature: Divides the logits.
        quantile: Largest 1 - probability of a candidate.
        own_quantiles: The same for each class by itself; None where all are covered together.
        reference: What novelty is measured from.
        threshold: Novelty above it makes the outcome `unknown`.
    """

    temperature: float
    quantile: float
    own_quantiles: tuple[float, ...] | None
    reference: NoveltyReference
    threshold: float


@dataclass(frozen=True)
class Measured:
    """Calibrated predictions of images that neither trained nor calibrated.

    Attributes:
        indices_N: Their positions in the set.
        probabilities_NK: Calibrated.
        candidates: Conformal sets, best first.
        novelty_N: Scores.
        flagged_N: Whether the score is above the threshold.
    """

    indices_N: Indices
    probabilities_NK: NDArray[np.float64]
    candidates: CandidateSets
    novelty_N: Floats
    flagged_N: NDArray[np.bool_]


def run_networks(
    files: Mapping[NetworkSpec, bytes], num_classes: int, parts: Iterable[Images], device: str
) -> Outputs:
    """Run packaged networks, as the ensemble that they make, on preprocessed images.

    Args:
        files: The networks with the content of their files.
        num_classes: K.
        parts: Images, uint8 (B, S, S), some at a time; the last may be empty.
        device: As torch names it.
    """
    weights = {spec.file: data for spec, data in files.items()}
    networks = load_networks(list(files), num_classes, weights).to(device)
    outputs = [measure_networks(networks, part_BSS, device=device) for part_BSS in parts]
    return Outputs(*(np.concatenate(column) for column in zip(*outputs, strict=True)))


def embed(
    files: Mapping[NetworkSpec, bytes], num_classes: int, parts: Iterable[Images], device: str
) -> Iterator[Floats]:
    """Yield embeddings, BF, part by part; arguments are those of `run_networks`."""
    weights = {spec.file: data for spec, data in files.items()}
    networks = load_networks(list(files), num_classes, weights).to(device)
    for part_BSS in parts:
        yield measure_networks(networks, part_BSS, device=device)[1]


def score(
    files: Mapping[NetworkSpec, bytes],
    num_classes: int,
    reference: NoveltyReference,
    parts: Iterable[Images],
    device: str,
) -> Scored:
    """Run packaged networks over images that neither they nor the reference were fitted to.

    Args:
        files: As of `run_networks`.
        num_classes: K.
        reference: What novelty is measured from.
        parts: As of `run_networks`; embeddings are dropped part by part.
        device: As torch names it.
    """
    logits, novelty = [], []
    weights = {spec.file: data for spec, data in files.items()}
    networks = load_networks(list(files), num_classes, weights).to(device)
    for part_BSS in parts:
        logits_BK, features_BF = measure_networks(networks, part_BSS, device=device)
        logits.append(logits_BK)
        novelty.append(reference.score(features_BF))
    return Scored(np.concatenate(logits), np.concatenate(novelty))


def reference_part(labels_N: Indices, most: int = MAX_REFERENCE) -> Indices:
    """Return positions of the training images that describe where known implants lie.

    All of them, or of a larger part a lot of each class: a covariance is no better for more.
    """
    return draw_each(labels_N, most, MIN_EACH)


def scored_part(part_N: Indices, num_classes: int, folds: int = 0) -> Indices:
    """Return which images of a part calibrate or are measured: all, or so many drawn at random.

    Args:
        part_N: Their positions, ascending.
        num_classes: K.
        folds: Whose test parts are measured together; 0 for one part.
    """
    most = max(MAX_VALUES // num_classes, MIN_SCORED) // max(folds, 1)
    if len(part_N) <= most:
        return part_N
    return np.sort(np.random.default_rng(0).choice(part_N, most, replace=False))


def hold_out_folds(
    train: Outputs, labels_N: Indices, logits_NK: Floats, folds_N: Indices, method: Method
) -> HeldOut:
    """Score the images that networks were fitted to as if each fold of them were new.

    Args:
        train: Outputs of networks whose embeddings never saw a label.
        labels_N: The images' classes.
        logits_NK: Of each image, by a last layer that was fitted without its fold.
        folds_N: Fold of each image, by which its novelty is measured from the others.
        method: Of the novelty.
    """
    num_classes, novelty_N = logits_NK.shape[1], np.zeros(len(labels_N), np.float32)
    for fold in np.unique(folds_N):
        inside_N, others_N = folds_N == fold, folds_N != fold
        reference = fit_novelty(
            train.features_NF[others_N], labels_N[others_N], num_classes, method
        )
        novelty_N[inside_N] = reference.score(train.features_NF[inside_N])
    return HeldOut(logits_NK, labels_N, novelty_N)


def calibrate(
    reference: NoveltyReference,
    held_out: HeldOut,
    coverage: float,
    known_pass: float,
    by_class: bool,
) -> Calibrated:
    """Set everything that a package promises.

    Args:
        reference: Where known implants lie.
        held_out: Images that are new to the networks.
        coverage: Share of known implants whose candidates hold the right one.
        known_pass: Share of known implants that the novelty threshold lets pass.
        by_class: Whether each class is covered by itself, as far as its images are enough.
    """
    labels_N = held_out.labels_N
    temperature = fit_temperature(held_out.logits_NK, labels_N)
    likely_N = label_probabilities(held_out.logits_NK, labels_N, temperature)
    num_classes = held_out.logits_NK.shape[1]
    return Calibrated(
        temperature,
        quantile_of(likely_N, coverage),
        tuple(class_quantiles_of(likely_N, labels_N, num_classes, coverage)) if by_class else None,
        reference,
        novelty_threshold(held_out.novelty_N, known_pass),
    )


def measure(scored: Scored, indices_N: Indices, calibration: Calibrated) -> Measured:
    """Apply a calibration to what the networks state of a test part."""
    probabilities_NK = np.empty(scored.logits_NK.shape)
    for part in blocks(*scored.logits_NK.shape):
        probabilities_NK[part] = softmax(scored.logits_NK[part], calibration.temperature)
    novelty_N = scored.novelty_N
    own = calibration.own_quantiles
    quantiles = calibration.quantile if own is None else np.array(own)
    parts = (probabilities_NK[part] for part in blocks(*scored.logits_NK.shape))
    return Measured(
        indices_N,
        probabilities_NK,
        CandidateSets.of(sets for part in parts for sets in prediction_sets(part, quantiles)),
        novelty_N,
        novelty_N > calibration.threshold,
    )


def pool(parts: list[Measured]) -> Measured:
    """Join the folds' test parts, which share no image."""
    return Measured(
        np.concatenate([part.indices_N for part in parts]),
        np.concatenate([part.probabilities_NK for part in parts]),
        CandidateSets.of(members for part in parts for members in part.candidates),
        np.concatenate([part.novelty_N for part in parts]),
        np.concatenate([part.flagged_N for part in parts]),
    )
