"""The rate of errors with all that is not known in its interval: accuracy and correlation.

How alike the classifier errs on radiographs of one joint is assumed and nowhere measured. The rate
is given for a correlation of 0.5; its interval spans those for 0 (each image errs for itself), 0.5
and 1 (all err alike), and is then widened by what is not known of the classifier's accuracy.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from jobs.auditing.confusion import Confusion, estimate, widened
from jobs.auditing.evidence import Evidence, combine, lapse
from jobs.auditing.images import Images
from jobs.auditing.joining import Joined
from jobs.auditing.names import Claims
from jobs.auditing.package_facts import PackageFacts
from training.evaluation import Figure

EXTREMES: Final = (0.0, 1.0)


def estimate_rate(
    images: Images, joined: Joined, evidence: Evidence, claims: Claims, model: PackageFacts
) -> Confusion:
    """Fits the registry's confusion, and its rate at the extremes where these differ.

    Args:
        images: All images.
        joined: Which of them vote on what.
        evidence: What they say at the assumed correlation.
        claims: What the records claim.
        model: The classifier.
    """
    fitted = estimate(evidence, claims.claim_M, claims.sets, model.shares_K)
    others: list[Figure] = []
    if model.accuracy_sd is not None and evidence.num_images_M.max(initial=0) > 1:
        count, ignored = len(evidence.num_images_M), lapse(model.num_measured)
        for correlation in EXTREMES:
            told = combine(images, joined, count, model.shares_K, ignored, correlation)
            others.append(estimate(told, claims.claim_M, claims.sets, model.shares_K).rate)
    return replace(fitted, rate=widened(span(fitted.rate, others), model.accuracy_sd))


def span(rate: Figure, others: Sequence[Figure]) -> Figure:
    """A rate with the interval that holds its own and all others'."""
    low, high = (rate.low, *(o.low for o in others)), (rate.high, *(o.high for o in others))
    return Figure(rate.value, min(low), max(high), rate.count)
