"""What a model says of radiographs: needs no torch, which takes seconds to import.

Letters: N images, C classes (implants).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from implant_model.batches import Array, Images
from implant_model.calibration import prediction_sets, softmax
from implant_model.errors import Outcome, PackageError
from implant_model.package.load import ModelPackage

TOP: Final = 3
"""Implants that are named with their probabilities, best first: column `top` of the tables."""


@dataclass(frozen=True)
class Predictions:
    """What a classifier states of N images, in their order.

    Attributes:
        probabilities_NC: Calibrated probabilities, float32; each row adds up to one.
        novelty_N: Novelty scores, float32, higher is stranger.
        candidates: Conformal prediction set of each image, best first; may be empty.
        outcomes: `identified`, `ambiguous` or `unknown`.
    """

    probabilities_NC: Array
    novelty_N: Array
    candidates: list[list[int]]
    outcomes: list[Outcome]


def decide(num_candidates: int, novelty: float, threshold: float) -> Outcome:
    """Return the outcome of an image with so many candidates and this novelty."""
    if novelty > threshold or num_candidates == 0:
        return Outcome.UNKNOWN
    return Outcome.IDENTIFIED if num_candidates == 1 else Outcome.AMBIGUOUS


def predict(package: ModelPackage, logs_NC: Array, novelty_N: Array) -> Predictions:
    """Make statements of what the networks measured.

    Args:
        package: Has temperature, conformal quantiles and the novelty threshold.
        logs_NC: Log probabilities, before calibration.
        novelty_N: Novelty scores.

    Raises:
        PackageError: A value is not finite.
    """
    probabilities_NC = softmax(logs_NC, package.temperature).astype(np.float32)
    if not (np.isfinite(probabilities_NC).all() and np.isfinite(novelty_N).all()):
        raise PackageError(
            f"The networks of {package.id} gave a value that is not finite; the weights are not "
            "usable."
        )
    candidates = prediction_sets(probabilities_NC, package.quantiles_C)
    outcomes = [
        decide(len(chosen), novelty, package.novelty.threshold)
        for chosen, novelty in zip(candidates, novelty_N.tolist(), strict=True)
    ]
    return Predictions(probabilities_NC, novelty_N, candidates, outcomes)


def check_size(package: ModelPackage, images_NHW: Images) -> None:
    """Check that images are as the package's preprocessing makes them.

    Raises:
        ValueError: They are of another size.
    """
    size_px = package.preprocessing.size_px
    if images_NHW.shape[1:] != (size_px, size_px):
        raise ValueError(
            f"Images of shape {images_NHW.shape} do not fit; (N, {size_px}, {size_px}) as "
            "made by the package's preprocessing is expected."
        )
