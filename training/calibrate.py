"""From fitted weights to calibrated, measured predictions, on the very weights that are shipped.

Weights pass through the package's own file format (float16 kernels) before anything is set or
measured on them. Temperature, candidates' threshold and novelty threshold come from the calibration
part, the novelty reference from the training part, figures from the test part. Where a set is too
small to spare a calibration part, the training part is held out from itself, fold by fold
(cross-conformal prediction, Vovk 2015).

Shapes: N images, S side, K classes, F features.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from implant_model.calibration import (
    class_quantiles,
    conformal_quantile,
    fit_temperature,
    novelty_threshold,
    prediction_sets,
    softmax,
)
from implant_model.classifier import measure as measure_networks
from implant_model.networks.spec import NetworkSpec
from implant_model.networks.weights import load_networks
from implant_model.novelty import Method, NoveltyReference, fit_novelty

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
    candidates: list[list[int]]
    novelty_N: Floats
    flagged_N: NDArray[np.bool_]


def run_networks(
    files: Mapping[NetworkSpec, bytes], num_classes: int, images_NSS: Images, device: str
) -> Outputs:
    """Run packaged networks, as the ensemble that they make, on preprocessed images.

    Args:
        files: The networks with the content of their files.
        num_classes: K.
        images_NSS: uint8; N may be 0.
        device: As torch names it.
    """
    weights = {spec.file: data for spec, data in files.items()}
    networks = load_networks(list(files), num_classes, weights).to(device)
    return Outputs(*measure_networks(networks, images_NSS, device=device))


def hold_out(reference: NoveltyReference, outputs: Outputs, labels_N: Indices) -> HeldOut:
    """Score images that neither the networks nor the reference were fitted to.

    Args:
        reference: What novelty is measured from.
        outputs: On those images.
        labels_N: Their classes.
    """
    return HeldOut(outputs.logits_NK, labels_N, reference.score(outputs.features_NF))


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
    probabilities_NK = softmax(held_out.logits_NK, temperature)
    return Calibrated(
        temperature,
        conformal_quantile(probabilities_NK, labels_N, coverage),
        tuple(class_quantiles(probabilities_NK, labels_N, coverage)) if by_class else None,
        reference,
        novelty_threshold(held_out.novelty_N, known_pass),
    )


def measure(outputs: Outputs, indices_N: Indices, calibration: Calibrated) -> Measured:
    """Apply a calibration to outputs on a test part."""
    probabilities_NK = softmax(outputs.logits_NK, calibration.temperature)
    novelty_N = calibration.reference.score(outputs.features_NF)
    own = calibration.own_quantiles
    quantiles = calibration.quantile if own is None else np.array(own)
    return Measured(
        indices_N,
        probabilities_NK,
        prediction_sets(probabilities_NK, quantiles),
        novelty_N,
        novelty_N > calibration.threshold,
    )


def pool(parts: list[Measured]) -> Measured:
    """Join the folds' test parts, which share no image."""
    return Measured(
        np.concatenate([part.indices_N for part in parts]),
        np.concatenate([part.probabilities_NK for part in parts]),
        [members for part in parts for members in part.candidates],
        np.concatenate([part.novelty_N for part in parts]),
        np.concatenate([part.flagged_N for part in parts]),
    )
