"""From fitted weights to calibrated, measured predictions, on the very weights that are shipped.

Weights pass through the package's own file format (float16 kernels) before anything is set or
measured on them. Temperature, candidates' threshold and novelty threshold come from the calibration
part, the novelty reference from the training part, figures from the test part.

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
    prediction_set,
    softmax,
)
from implant_model.classifier import measure as measure_networks
from implant_model.network_spec import NetworkSpec
from implant_model.novelty import NoveltyReference, fit_novelty
from implant_model.weights import load_networks

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
    """Runs packaged networks, as the ensemble that they make, on preprocessed images.

    Args:
        files: The networks with the content of their files.
        num_classes: K.
        images_NSS: uint8; N may be 0.
        device: As torch names it.
    """
    weights = {spec.file: data for spec, data in files.items()}
    networks = load_networks(list(files), num_classes, weights).to(device)
    return Outputs(*measure_networks(networks, images_NSS, device=device))


def calibrate(
    train: Outputs,
    train_labels_N: Indices,
    held_out: Outputs,
    held_out_labels_N: Indices,
    coverage: float,
    known_pass: float,
    by_class: bool,
) -> Calibrated:
    """Sets everything that a package promises.

    Args:
        train: Outputs on the training part: where known implants lie.
        train_labels_N: Its classes.
        held_out: Outputs on the calibration part.
        held_out_labels_N: Its classes.
        coverage: Share of known implants whose candidates hold the right one.
        known_pass: Share of known implants that the novelty threshold lets pass.
        by_class: Whether each class is covered by itself, as far as its images are enough.
    """
    temperature = fit_temperature(held_out.logits_NK, held_out_labels_N)
    probabilities_NK = softmax(held_out.logits_NK, temperature)
    reference = fit_novelty(train.features_NF, train_labels_N, train.logits_NK.shape[1])
    return Calibrated(
        temperature,
        conformal_quantile(probabilities_NK, held_out_labels_N, coverage),
        tuple(class_quantiles(probabilities_NK, held_out_labels_N, coverage)) if by_class else None,
        reference,
        novelty_threshold(reference.score(held_out.features_NF), known_pass),
    )


def measure(outputs: Outputs, indices_N: Indices, calibration: Calibrated) -> Measured:
    """Applies a calibration to outputs on a test part."""
    probabilities_NK = softmax(outputs.logits_NK, calibration.temperature)
    novelty_N = calibration.reference.score(outputs.features_NF)
    own = calibration.own_quantiles
    quantiles = calibration.quantile if own is None else np.array(own)
    return Measured(
        indices_N,
        probabilities_NK,
        [prediction_set(row_K, quantiles) for row_K in probabilities_NK],
        novelty_N,
        novelty_N > calibration.threshold,
    )


def pool(parts: list[Measured]) -> Measured:
    """Joins the folds' test parts, which share no image."""
    return Measured(
        np.concatenate([part.indices_N for part in parts]),
        np.concatenate([part.probabilities_NK for part in parts]),
        [members for part in parts for members in part.candidates],
        np.concatenate([part.novelty_N for part in parts]),
        np.concatenate([part.flagged_N for part in parts]),
    )
