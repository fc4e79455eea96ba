"""Quantiles and threshold of a package with enrolled implants: what holds, and by which images.

New implants are judged by their own few images, each by rows and centres that were made without its
group. The package has no calibration images of the known implants: theirs are set again where held
out images of them are given, and are otherwise kept or made wider, never narrower.

Letters: N images, C implants, the known ones first, P drawn points.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from implant_model.calibration import (
    MIN_QUANTILE,
    conformal_quantile,
    novelty_threshold,
    softmax,
)
from implant_model.package.load import ModelPackage

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Judged:
    """Images that are new to what judges them.

    Attributes:
        logs_NC: Logs of the averaged probabilities.
        labels_N: Their implants.
        groups_N: Images of one patient, or near duplicates, have one number.
        novelty_N: Scores.
    """

    logs_NC: Floats
    labels_N: Indices
    groups_N: Indices
    novelty_N: Floats

    def of(self, label: int) -> NDArray[np.bool_]:
        """Return which images show an implant."""
        return np.asarray(self.labels_N == label, np.bool_)


@dataclass(frozen=True)
class Promise:
    """What holds for the candidates of one implant.

    Attributes:
        quantile: Largest 1 - probability at which it is a candidate.
        images: Images of it that set the quantile; 0 where none was given.
        share: Share of its images whose candidates hold it, as far as these images allow a
            statement; None where the package's own quantile was carried over.
    """

    quantile: float
    images: int
    share: float | None


@dataclass(frozen=True)
class Promises:
    """All that is set again.

    Attributes:
        implants: Of each implant, in the catalogue's order.
        threshold: Novelty above it makes the outcome `unknown`.
        is_threshold_anew: Whether images of the known implants took part in it.
        yielded: Share of probability that known implants give up to the new ones at most, in a
            share `coverage` of the points that were drawn around them.
    """

    implants: Sequence[Promise]
    threshold: float
    is_threshold_anew: bool
    yielded: float


def make_promises(
    package: ModelPackage, new: Judged, known: Judged, drawn_logs_PC: Floats
) -> Promises:
    """Set quantiles and threshold.

    Args:
        package: That the implants are added to.
        new: Images of the new implants, held out from what judges them.
        known: Images of known implants that the networks did not learn from; may be none.
        drawn_logs_PC: Of points around the known implants.
    """
    num_known = len(package.catalogue)
    yielded = _yielded(package, drawn_logs_PC)
    widened_C = 1 - (1 - package.quantiles_C) * (1 - yielded)
    promises = [
        _known_promise(package, known, label, float(quantile))
        for label, quantile in enumerate(np.maximum(widened_C, MIN_QUANTILE))
    ]
    labels = range(num_known, new.logs_NC.shape[1])
    promises += [_new_promise(package, new, label) for label in labels]
    threshold, is_anew = _threshold(package, new, known)
    return Promises(promises, threshold, is_anew, yielded)


def fewest(share: float) -> int:
    """Return how many images a quantile of this share takes: 9 for 0.9."""
    return math.ceil(share / (1 - share) - 1e-9)


def _yielded(package: ModelPackage, drawn_logs_PC: Floats) -> float:
    probabilities = softmax(drawn_logs_PC, package.temperature)
    new_P = probabilities[:, len(package.catalogue) :].sum(axis=1)
    return float(np.quantile(new_P, package.coverage, method="higher"))


def _quantile(package: ModelPackage, judged: Judged, inside_N: NDArray[np.bool_]) -> float:
    probabilities = softmax(judged.logs_NC[inside_N], package.temperature)
    return conformal_quantile(probabilities, judged.labels_N[inside_N], package.coverage)


def _known_promise(package: ModelPackage, known: Judged, label: int, widened: float) -> Promise:
    mine_N = known.of(label)
    if len(np.unique(known.groups_N[mine_N])) < fewest(package.coverage):
        return Promise(widened, 0, None)
    own = _quantile(package, known, mine_N)
    return Promise(own, int(mine_N.sum()), package.coverage)


def _new_promise(package: ModelPackage, new: Judged, label: int) -> Promise:
    """Of an implant with too few images for the coverage, its least likely image decides.

    Of n images that and the next are alike in rank: the next is no less likely than all of them in
    n / (n + 1) of the cases.
    """
    mine_N = new.of(label)
    groups = len(np.unique(new.groups_N[mine_N]))
    if groups >= fewest(package.coverage):
        own = _quantile(package, new, mine_N)
        return Promise(own, int(mine_N.sum()), package.coverage)
    right_N = softmax(new.logs_NC[mine_N], package.temperature)[:, label]
    worst = max(1 - float(right_N.min()), MIN_QUANTILE)
    return Promise(worst, int(mine_N.sum()), groups / (groups + 1))


def _threshold(package: ModelPackage, new: Judged, known: Judged) -> tuple[float, bool]:
    share = package.novelty.known_pass_rate
    own = novelty_threshold(new.novelty_N, share)
    num_known = len(np.unique(known.labels_N))
    many = len(np.unique(known.groups_N)) >= fewest(share)
    is_anew = many and num_known == len(package.catalogue)
    before = novelty_threshold(known.novelty_N, share) if is_anew else package.novelty.threshold
    return max(own, before), is_anew
