"""The radiographs of one joint > one likelihood for each implant.

A calibrated probability p(k | image) is that of an image like those of the calibration; divided by
the implant's share there it is a likelihood, up to a factor. Of the implants beyond the best three
only the rest of the probability is known, which is dealt to them by their shares, candidates of the
image among them.

Several radiographs: the product of their likelihoods would hold if each erred for itself, their
geometric mean if all erred alike. Views of one joint share patient, implant and device, so the
truth lies between: the product is tempered by 1 / (1 + (n - 1) r), the design effect of n values
with correlation r = 0.5. Two views then count as 1.33, and any number as less than 2. Nobody
measured r, so the rate of errors is also estimated with both extremes, see `rate.py`.

No classifier is believed beyond what it was measured on: with n held-out images a share of
1 / (n + 2) of answers (Laplace's rule of succession) is taken to say nothing.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from jobs.auditing.images import Images
from jobs.auditing.joining import Joined

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
CORRELATION: Final = 0.5
NOT_MEASURED: Final = 0.01
"""Share of answers that say nothing where the package does not tell on how much it was measured."""
_LEAST: Final = 1e-12


@dataclass(frozen=True)
class Evidence:
    """What the voting images say, sparse: implants that no image lists have likelihood 1.

    Listed are the best three of each image, and its candidates beyond them.

    Attributes:
        record_E: Place of the record, ascending.
        implant_E: Index of the implant; within a record ascending.
        likelihood_E: Against that of an implant that no image of the record lists.
        probability_E: Of the implant by the images alone, by shares as in the calibration.
        num_left_E: Voting images of the record that have the implant among their candidates.
        num_beyond_E: Those of them that have it beyond their best three, its probability unknown.
        num_images_M: Voting images of each record.
    """

    record_E: Places
    implant_E: Places
    likelihood_E: Floats
    probability_E: Floats
    num_left_E: Places
    num_beyond_E: Places
    num_images_M: Places


def lapse(num_measured: int) -> float:
    """Share of answers that are taken to say nothing."""
    return 1 / (num_measured + 2) if num_measured else NOT_MEASURED


def combine(
    images: Images,
    joined: Joined,
    num_records: int,
    shares_K: Floats,
    lapse_rate: float,
    correlation: float = CORRELATION,
) -> Evidence:
    """Combine the voting images of each record.

    Args:
        images: All images.
        joined: Which of them vote on what.
        num_records: M.
        shares_K: Share of each implant in the calibration; adds up to 1.
        lapse_rate: Share of answers that say nothing, inside 0..1.
        correlation: Of what the radiographs of one joint say, 0..1.
    """
    record_V = joined.record_P[joined.votes_P]
    image_V = joined.image_P[joined.votes_P]
    top_V3, log_V3 = _log_likelihoods(images, image_V, shares_K, lapse_rate)
    num_images_M = np.bincount(record_V, minlength=num_records)
    weight_M = 1 / (1 + (np.maximum(num_images_M, 1) - 1) * correlation)
    listed_V3 = top_V3 >= 0
    num_implants = len(shares_K)
    code = (record_V[:, None] * num_implants + top_V3)[listed_V3]
    at_B, beyond_B = _beyond(images, image_V)
    is_beyond = np.repeat([0, 1], [len(code), len(beyond_B)])
    code = np.concatenate([code, record_V[at_B] * num_implants + beyond_B])
    log = np.concatenate([log_V3[listed_V3], np.zeros(len(beyond_B))])
    is_left = is_beyond + np.concatenate([images.is_candidate_N3[image_V][listed_V3], 0 * beyond_B])
    code_E, sums_E, num_left_E, num_beyond_E = _summed(code, log, is_left, is_beyond)
    record_E, implant_E = np.divmod(code_E, num_implants)
    likelihood_E = np.exp(sums_E * weight_M[record_E])
    probability_E = _probabilities(record_E, implant_E, likelihood_E, shares_K, num_records)
    plain_E = np.clip((probability_E - lapse_rate * shares_K[implant_E]) / (1 - lapse_rate), 0, 1)
    return Evidence(
        record_E, implant_E, likelihood_E, plain_E, num_left_E, num_beyond_E, num_images_M
    )


def _log_likelihoods(
    images: Images, image_V: Places, shares_K: Floats, lapse_rate: float
) -> tuple[Places, Floats]:
    """Listed implants of each voting image, and the log of how much likelier than the others."""
    top_V3 = images.top_N3[image_V].astype(np.int64)
    listed_V3 = top_V3 >= 0
    probability_V3 = np.where(listed_V3, images.probability_N3[image_V], 0).astype(np.float64)
    share_V3 = np.where(listed_V3, shares_K[top_V3], 0)
    rest_V = np.clip(1 - probability_V3.sum(axis=1), 0, 1)
    rest_share_V = np.clip(1 - share_V3.sum(axis=1), 0, 1)
    others_V = rest_V / np.maximum(rest_share_V, _LEAST)
    base_V = (1 - lapse_rate) * np.where(rest_share_V > _LEAST, others_V, 0) + lapse_rate
    ratio_V3 = probability_V3 / np.maximum(share_V3, _LEAST)
    return top_V3, np.log(((1 - lapse_rate) * ratio_V3 + lapse_rate) / base_V[:, None])


def _beyond(images: Images, image_V: Places) -> tuple[Places, Places]:
    """Return candidates beyond the best three: place of the voting image, and implant."""
    count_V = images.num_beyond_N[image_V].astype(np.int64)
    start_N = np.cumsum(images.num_beyond_N) - images.num_beyond_N
    at_B = np.repeat(np.arange(len(image_V)), count_V)
    within_B = np.arange(len(at_B)) - np.repeat(np.cumsum(count_V) - count_V, count_V)
    return at_B, images.beyond_B[start_N[image_V][at_B] + within_B].astype(np.int64)


def _summed(code: Places, *values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
    """Return distinct codes, ascending, and the sums of the values of each."""
    order = np.argsort(code, kind="stable")
    ordered = code[order]
    start = np.flatnonzero(np.diff(ordered, prepend=-1))
    if not len(start):
        return ordered, *values
    return ordered[start], *(np.add.reduceat(value[order], start) for value in values)


def _probabilities(
    record_E: Places, implant_E: Places, likelihood_E: Floats, shares_K: Floats, num_records: int
) -> Floats:
    """Return each listed implant's probability by the images alone."""
    share_E = shares_K[implant_E]
    listed_M = np.bincount(record_E, share_E, minlength=num_records)
    weight_M = np.bincount(record_E, share_E * likelihood_E, minlength=num_records)
    total_M = weight_M + np.clip(1 - listed_M, 0, 1)
    return np.asarray(share_E * likelihood_E / np.maximum(total_M[record_E], _LEAST), np.float64)
