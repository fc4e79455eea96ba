"""The rate of errors with all that is not known in its interval: accuracy and correlation.

How alike the classifier errs on radiographs of one joint is assumed and nowhere measured. The rate
is given for a correlation of 0.5; its interval spans those for 0 (each image errs for itself), 0.5
and 1 (all err alike), and is then widened by what is not known of the classifier's accuracy.

A joint counts once: of records that mean the same implant and share a voting image only the first
is fitted, since the same images would speak twice. Each has its verdict all the same.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from jobs.auditing.confusion import Confusion, estimate, widened
from jobs.auditing.evidence import Evidence, combine, lapse
from jobs.auditing.images import Images
from jobs.auditing.joining import Joined
from jobs.auditing.package_facts import PackageFacts
from jobs.auditing.registry.claims import Claims
from training.metrics import Figure

Places = npt.NDArray[np.int64]
EXTREMES: Final = (0.0, 1.0)


def estimate_rate(
    images: Images,
    joined: Joined,
    evidence: Evidence,
    claims: Claims,
    model: PackageFacts,
    first_M: Places,
) -> Confusion:
    """Fit the registry's confusion, and its rate at the extremes where these differ.

    Args:
        images: All images.
        joined: Which of them vote on what.
        evidence: What they say at the assumed correlation.
        claims: What the records claim.
        model: The classifier.
        first_M: Of `first_of_joint`; a record has the probability to be wrong of its first.
    """
    fitted = estimate(once(evidence, first_M), claims.claim_M, claims.sets, model.shares_K)
    others: list[Figure] = []
    if model.accuracy_sd is not None and evidence.num_images_M.max(initial=0) > 1:
        count, ignored = len(evidence.num_images_M), lapse(model.num_measured)
        for correlation in EXTREMES:
            combined = combine(images, joined, count, model.shares_K, ignored, correlation)
            combined = once(combined, first_M)
            others.append(estimate(combined, claims.claim_M, claims.sets, model.shares_K).rate)
    rate = widened(span(fitted.rate, others), model.accuracy_sd)
    return replace(fitted, wrong_M=fitted.wrong_M[first_M], rate=rate)


def first_of_joint(joined: Joined, num_records: int) -> Places:
    """Return the place of the first record that shares a voting image with each, else its own.

    All of these mean the same: `joining.exclude_several` has left out the others.
    """
    record_V, image_V = joined.record_P[joined.votes_P], joined.image_P[joined.votes_P]
    least_N = np.full(int(image_V.max(initial=-1)) + 1, num_records)
    np.minimum.at(least_N, image_V, record_V)
    first_M = np.arange(num_records)
    np.minimum.at(first_M, record_V, least_N[image_V])
    while (first_M[first_M] < first_M).any():  # the first of the first, where images overlap
        first_M = first_M[first_M]
    return first_M


def once(evidence: Evidence, first_M: Places) -> Evidence:
    """Return the evidence of the first record of each joint alone."""
    is_first_E = first_M[evidence.record_E] == evidence.record_E
    if is_first_E.all():
        return evidence
    return replace(
        evidence,
        record_E=evidence.record_E[is_first_E],
        implant_E=evidence.implant_E[is_first_E],
        likelihood_E=evidence.likelihood_E[is_first_E],
        probability_E=evidence.probability_E[is_first_E],
        num_left_E=evidence.num_left_E[is_first_E],
        num_beyond_E=evidence.num_beyond_E[is_first_E],
    )


def span(rate: Figure, others: Sequence[Figure]) -> Figure:
    """Return a rate with the interval that holds its own and all others'."""
    low, high = (rate.low, *(o.low for o in others)), (rate.high, *(o.high for o in others))
    return Figure(rate.value, min(low), max(high), rate.count)
