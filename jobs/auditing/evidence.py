"""The radiographs of one joint > one likelihood for each implant.

A calibrated probability p(k | image) is that of an image like those of the calibration; divided by
the implant's share there it is a likelihood, up to a factor. Of the implants beyond the best three
only the rest of the probability is known, which is dealt to them by their shares.

Several radiographs: the product of their likelihoods would hold if each erred for itself, their
geometric mean if all erred alike. Views of one joint share patient, implant and device, so the
truth lies between: the product is tempered by 1 / (1 + (n - 1) r), the design effect of n values
with correlation r = 0.5. Two views then count as 1.33, and any number as less than 2. Nobody
measured r, so the rate of errors is also estimated with both extremes, see `rate.py`.

No classifier is believed beyond what it was measured on: with n held-out images a share of
1 / (n + 2) of answers (Laplace's rule of succession) is taken to say nothing.
"""

from dataclasses import dataclass
from typing import Final

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

    Attributes:
        record_E: Place of the record, ascending.
        implant_E: Index of the implant; within a record ascending.
        likelihood_E: Against that of an implant that no image of the record lists.
        probability_E: Of the implant by the images alone, by shares as in the calibration.
        num_images_M: Voting images of each record.
    """

    record_E: Places
    implant_E: Places
    likelihood_E: Floats
    probability_E: Floats
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
    """Combines the voting images of each record.

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
    code_E, sums_E = _summed(code, log_V3[listed_V3])
    record_E, implant_E = np.divmod(code_E, num_implants)
    likelihood_E = np.exp(sums_E * weight_M[record_E])
    probability_E = _probabilities(record_E, implant_E, likelihood_E, shares_K, num_records)
    plain_E = np.clip((probability_E - lapse_rate * shares_K[implant_E]) / (1 - lapse_rate), 0, 1)
    return Evidence(record_E, implant_E, likelihood_E, plain_E, num_images_M)


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


def _summed(code: Places, values: Floats) -> tuple[Places, Floats]:
    """Distinct codes, ascending, and the sum of the values of each."""
    order = np.argsort(code, kind="stable")
    ordered = code[order]
    start = np.flatnonzero(np.diff(ordered, prepend=-1))
    sums = np.add.reduceat(values[order], start) if len(start) else np.zeros(0)
    return ordered[start], sums


def _probabilities(
    record_E: Places, implant_E: Places, likelihood_E: Floats, shares_K: Floats, num_records: int
) -> Floats:
    """Each listed implant's probability by the images alone."""
    share_E = shares_K[implant_E]
    listed_M = np.bincount(record_E, share_E, minlength=num_records)
    weight_M = np.bincount(record_E, share_E * likelihood_E, minlength=num_records)
    total_M = weight_M + np.clip(1 - listed_M, 0, 1)
    return np.asarray(share_E * likelihood_E / np.maximum(total_M[record_E], _LEAST), np.float64)
