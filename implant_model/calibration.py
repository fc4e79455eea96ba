"""Probabilities that can be believed: temperature, conformal sets, thresholds. numpy only.

Letters: N images, C classes (implants), B images of a block, M members of all sets. Pure functions;
all figures come from held-out images that neither trained the networks nor test them. What needs
float64 of all classes is worked out for some images at a time, with the same result.
"""

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import overload

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]
Array64 = npt.NDArray[np.float64]

MIN_TEMPERATURE = 0.05
MAX_TEMPERATURE = 20.0
# A candidate that is at least as likely as not is never left out of a set, see conformal_quantile.
MIN_QUANTILE = 0.5
BLOCK_VALUES = 1 << 20
"""Of images and classes that are worked on at a time: 8 MB of float64."""


@dataclass(frozen=True, eq=False)
class CandidateSets(Sequence[list[int]]):
    """Sets of candidates, some bytes an image; each is a list where it is asked for.

    Attributes:
        members_M: All sets, one after the other, int32.
        ends_N: Where each ends, int64.
    """

    members_M: npt.NDArray[np.int32]
    ends_N: npt.NDArray[np.int64]

    @classmethod
    def of(cls, sets: Iterable[Sequence[int]]) -> "CandidateSets":
        """Hold sets that come one after the other."""
        members, ends = array("i"), array("q")
        for candidates in sets:
            members.extend(candidates)
            ends.append(len(members))
        return cls(np.array(members, np.int32), np.array(ends, np.int64))

    def __len__(self) -> int:
        return len(self.ends_N)

    @overload
    def __getitem__(self, at: int) -> list[int]: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[list[int]]: ...

    def __getitem__(self, at: int | slice) -> list[int] | Sequence[list[int]]:
        """Return the candidates of one image, best first, or those of some."""
        if isinstance(at, slice):
            return [self[place] for place in range(*at.indices(len(self)))]
        place = range(len(self))[at]
        start = int(self.ends_N[place - 1]) if place else 0
        found: list[int] = self.members_M[start : self.ends_N[place]].tolist()
        return found


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
    logits_NC = _checked(logits_NC, labels_N)
    own_N = np.asarray(logits_NC[np.arange(len(logits_NC)), labels_N], np.float64)
    expected_N = np.empty(len(logits_NC))
    low, high = math.log(1 / MAX_TEMPERATURE), math.log(1 / MIN_TEMPERATURE)
    for _ in range(60):  # halves an interval of 6 to below 1e-17
        middle = (low + high) / 2
        for part in blocks(*logits_NC.shape):
            logits_BC = np.asarray(logits_NC[part], np.float64)
            expected_N[part] = (softmax(logits_BC, math.exp(-middle)) * logits_BC).sum(axis=1)
        if float((expected_N - own_N).mean()) > 0:
            high = middle
        else:
            low = middle
    return math.exp(-(low + high) / 2)


def blocks(num_images: int, num_classes: int) -> Iterator[slice]:
    """Yield images some at a time, so that the values of all classes are `BLOCK_VALUES` or less."""
    step = max(1, BLOCK_VALUES // max(1, num_classes))
    for start in range(0, num_images, step):
        yield slice(start, min(start + step, num_images))


def label_probabilities(logits_NC: Floats, labels_N: Ints, temperature: float) -> Array64:
    """Return the calibrated probability of each image's own implant, float64 (N,).

    Raises:
        ValueError: As of `fit_temperature`.
    """
    logits_NC, labels = _checked(logits_NC, labels_N), np.asarray(labels_N)
    found_N = np.empty(len(labels))
    for part in blocks(*logits_NC.shape):
        mine_B = labels[part]
        found_N[part] = softmax(logits_NC[part], temperature)[np.arange(len(mine_B)), mine_B]
    return found_N


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
    return quantile_of(_own(probabilities_NC, labels_N), coverage, least)


def quantile_of(probabilities_N: Array64, coverage: float, least: float = MIN_QUANTILE) -> float:
    """Find the threshold by the probabilities of the images' own implants.

    Raises:
        ValueError: Coverage not in 0..1.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage is {coverage}; a share inside 0..1 is expected.")
    return max(_upper(np.sort(1 - probabilities_N), coverage, beyond=1.0), least)


def _own(probabilities_NC: Floats, labels_N: Ints) -> Array64:
    values_NC = _checked(probabilities_NC, labels_N)
    return np.asarray(values_NC[np.arange(len(values_NC)), labels_N], np.float64)


def class_quantiles(
    probabilities_NC: Floats, labels_N: Ints, coverage: float, least: float = MIN_QUANTILE
) -> list[float]:
    """Find a threshold for each implant, so that each is covered and not only all together.

    An implant with enough held-out images for a finite quantile, coverage / (1 - coverage) of them,
    gets that of its own images (class-conditional or Mondrian conformal prediction, Vovk 2012); one
    with fewer gets the threshold of all images together.

    Args and errors are those of `conformal_quantile`; returns C thresholds in 0..1.
    """
    own_N = _own(probabilities_NC, labels_N)
    return class_quantiles_of(own_N, labels_N, np.shape(probabilities_NC)[1], coverage, least)


def class_quantiles_of(
    probabilities_N: Array64,
    labels_N: Ints,
    num_classes: int,
    coverage: float,
    least: float = MIN_QUANTILE,
) -> list[float]:
    """Find a threshold for each implant by the probabilities of the images' own implants."""
    labels = np.asarray(labels_N)
    together = quantile_of(probabilities_N, coverage, least)
    enough = math.ceil(coverage / (1 - coverage) - 1e-9)
    own_C = []
    for index in range(num_classes):
        mine_N = labels == index
        many = int(mine_N.sum()) >= enough
        own_C.append(quantile_of(probabilities_N[mine_N], coverage, least) if many else together)
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


def _checked(values_NC: Floats, labels_N: Ints) -> Floats:
    values = np.asarray(values_NC)
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
