"""Probabilities that can be believed: temperature, conformal sets, thresholds. numpy only.

Letters: N images, C classes (implants). Pure functions; all figures come from held-out images that
neither trained the networks nor test them.
"""

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]

MIN_TEMPERATURE = 0.05
MAX_TEMPERATURE = 20.0
# A candidate that is at least as likely as not is never left out of a set, see conformal_quantile.
MIN_QUANTILE = 0.5


def softmax(logits_NC: Floats, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Return probabilities, NC, of logits (or log-probabilities) divided by a temperature."""
    scaled = np.asarray(logits_NC, np.float64) / temperature
    scaled = scaled - scaled.max(axis=-1, keepdims=True)
    powers = np.exp(scaled)
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float64)


def fit_temperature(logits_NC: Floats, labels_N: Ints) -> float:
    """Find the temperature of least negative log-likelihood (Guo et al. 2017).

    The likelihood is convex in 1 / temperature, and its slope, the mean of expected logit minus
    logit of the label, is bisected: no step size, no local minimum.

    Args:
        logits_NC: Logits, or logs of averaged probabilities, finite.
        labels_N: Index of each image's implant.

    Returns:
        The temperature, within 0.05..20: a bound where the images call for more (all of them
        right, or worse than chance).

    Raises:
        ValueError: No image, shapes that do not fit, or a value that is not finite.
    """
    logits = _checked(logits_NC, labels_N)
    rows = np.arange(len(logits))
    low, high = math.log(1 / MAX_TEMPERATURE), math.log(1 / MIN_TEMPERATURE)
    for _ in range(60):  # halves an interval of 6 to below 1e-17
        middle = (low + high) / 2
        expected = (softmax(logits, math.exp(-middle)) * logits).sum(axis=1)
        if float((expected - logits[rows, labels_N]).mean()) > 0:
            high = middle
        else:
            low = middle
    return math.exp(-(low + high) / 2)


def conformal_quantile(
    probabilities_NC: Floats, labels_N: Ints, coverage: float, least: float = MIN_QUANTILE
) -> float:
    """Find the threshold of split conformal prediction, score 1 - probability of the label.

    With k = ceil((N + 1) coverage), the k-th smallest of N held-out scores: a set of all implants
    with 1 - probability <= it holds the right one for a share of at least `coverage` of new images
    like the held-out ones (Sadinle et al. 2019, least ambiguous sets; the guarantee is over all
    images together, not for each implant). A network that is right more often than `coverage` asks
    gets a small threshold, which leaves sets empty for images that it is sure about, too. `least`
    mends that: raising the threshold only widens sets, so the guarantee holds, and an empty set
    then means that no implant is even half likely.

    Args:
        probabilities_NC: Calibrated probabilities of held-out images.
        labels_N: Index of each image's implant.
        coverage: Share of images whose set shall hold the right implant, inside 0..1.
        least: The threshold is raised to this.

    Returns:
        The threshold, in 0..1; 1 (every implant is a candidate) with too few images for the
        coverage asked for.

    Raises:
        ValueError: No image, shapes that do not fit, a value not finite, or coverage not in 0..1.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage is {coverage}; a share inside 0..1 is expected.")
    probabilities = _checked(probabilities_NC, labels_N)
    scores = np.sort(1 - probabilities[np.arange(len(probabilities)), labels_N])
    return max(_upper(scores, coverage, beyond=1.0), least)


def class_quantiles(
    probabilities_NC: Floats, labels_N: Ints, coverage: float, least: float = MIN_QUANTILE
) -> list[float]:
    """Find a threshold for each implant, so that each is covered and not only all together.

    An implant with enough held-out images for a finite quantile, coverage / (1 - coverage) of them,
    gets that of its own images (class-conditional or Mondrian conformal prediction, Vovk 2012); one
    with fewer gets the threshold of all images together.

    Args and errors are those of `conformal_quantile`; returns C thresholds in 0..1.
    """
    labels = np.asarray(labels_N)
    together = conformal_quantile(probabilities_NC, labels, coverage, least)
    probabilities = np.asarray(probabilities_NC)
    enough = math.ceil(coverage / (1 - coverage) - 1e-9)
    own_C = []
    for index in range(probabilities.shape[1]):
        mine = labels == index
        many = int(mine.sum()) >= enough
        own = (probabilities[mine], labels[mine], coverage, least)
        own_C.append(conformal_quantile(*own) if many else together)
    return own_C


def prediction_sets(probabilities_NC: Floats, quantile: float | Floats) -> list[list[int]]:
    """Return the indices with 1 - probability <= quantile, most probable first, ties by index.

    Args:
        probabilities_NC: Calibrated probabilities; N may be 0.
        quantile: One threshold, or one for each implant.
    """
    scores = 1 - np.asarray(probabilities_NC, np.float64)
    order = np.argsort(scores, axis=1, kind="stable")
    inside = np.take_along_axis(scores <= quantile, order, axis=1)
    members = order[inside].tolist()
    ends_N = np.cumsum(inside.sum(axis=1)).tolist()
    return [members[start:end] for start, end in pairwise([0, *ends_N])]


def novelty_threshold(scores_N: Floats, known_pass_rate: float) -> float:
    """Find the novelty that a share of at most 1 - `known_pass_rate` of known implants exceeds.

    The k-th smallest score of held-out known implants, k = ceil((N + 1) rate); with too few images
    for that rate, the largest.

    Raises:
        ValueError: No score, one that is not finite, or a rate not inside 0..1.
    """
    scores = np.sort(np.asarray(scores_N, np.float64))
    if not 0 < known_pass_rate < 1:
        raise ValueError(f"known_pass_rate is {known_pass_rate}; a share inside 0..1 is expected.")
    if scores.ndim != 1 or not len(scores) or not np.isfinite(scores).all():
        raise ValueError("Novelty scores must be a vector of at least one finite value.")
    return _upper(scores, known_pass_rate, beyond=float(scores[-1]))


def _upper(sorted_N: npt.NDArray[np.float64], share: float, beyond: float) -> float:
    # 1e-9: (N + 1) * share is a whole number in arithmetic, not always in floating point.
    place = math.ceil((len(sorted_N) + 1) * share - 1e-9)
    return float(sorted_N[place - 1]) if place <= len(sorted_N) else beyond


def _checked(values_NC: Floats, labels_N: Ints) -> npt.NDArray[np.float64]:
    values = np.asarray(values_NC, np.float64)
    labels = np.asarray(labels_N)
    if values.ndim != 2 or not len(values) or labels.shape != (len(values),):
        raise ValueError(
            f"Values of shape {values.shape} and labels of shape {labels.shape} do not fit; "
            "(images, classes) and (images,) with at least one image are expected."
        )
    if not np.isfinite(values).all():
        raise ValueError("A logit or probability is not finite.")
    if labels.min() < 0 or labels.max() >= values.shape[1]:
        raise ValueError(
            f"Labels run from {labels.min()} to {labels.max()}; "
            f"0 to {values.shape[1] - 1} are expected."
        )
    return values
