"""The registry's confusion and its rate of errors, estimated from the batch itself.

The model: a share e of the records is wrong. A right record claims what the images show; the truth
behind a wrong one that claims c is the implant k with probability v(k | c). With the likelihood L
of the images, a record's evidence is A = sum over claimed k of a(k) L(k) if it is right, and
B = sum over the others of v(k | c) L(k) if it is wrong, so that

    P(wrong | images, record) = e_c B / ((1 - e_c) A + e_c B).

Expectation-maximisation (Dawid and Skene 1979; with known likelihoods it is the prior shift of
Saerens et al. 2002) fits e, the rates e_c of the claims, drawn towards e as by `RATE_WEIGHT`
records, and v, drawn towards the implants' shares in the batch as by `CONFUSION_WEIGHT` errors.
Since L is what the classifier states with all its doubt, its own errors are in B and A alike and do
not count as the registry's.

The interval of e is the profile of the likelihood (95 %). `rate.py` spans it over the correlations
of radiographs of one joint, and joins it in quadrature, end by end (MOVER, Zou and Donner 2008),
with what is not known of the classifier: its accuracy was measured on n images, and a share of
answers that is wrong beyond what the probabilities say goes one for one into e. So no batch,
however large, gives a tighter interval than the package's own measurement; and of a classifier that
nobody measured, e is not known.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from jobs.auditing.evidence import Evidence
from training.metrics import Z_95, Figure

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
RATE_WEIGHT: Final = 50.0
CONFUSION_WEIGHT: Final = 20.0
ROUNDS: Final = 30
FIRST_RATE: Final = 0.03
_LEAST: Final = 1e-12
_HALF_DEVIANCE: Final = Z_95**2 / 2


@dataclass(frozen=True)
class Confusion:
    """What was fitted.

    Attributes:
        wrong_M: Probability that the record is wrong; NaN where no image votes.
        rate: The registry's rate of errors, with its interval and the records that it rests on.
            As `estimate` leaves it, that of a classifier known exactly; see `rate.py`.
        sampling: The same with the interval that a classifier known exactly would give, at the
            assumed correlation.
        rate_C: Rate of each claim.
        shares_K: Share of each implant among the records' joints, as estimated.
    """

    wrong_M: Floats
    rate: Figure
    sampling: Figure
    rate_C: Floats
    shares_K: Floats


def estimate(
    evidence: Evidence,
    claim_M: npt.NDArray[np.int32],
    claims: Sequence[frozenset[int]],
    shares_K: Floats,
) -> Confusion:
    """Fit the model.

    Args:
        evidence: Of the records with voting images.
        claim_M: Index of each record's claim.
        claims: Sets of implants, none of them empty where a record with evidence claims it.
        shares_K: Shares to begin with.
    """
    seen_R, record_E = np.unique(evidence.record_E, return_inverse=True)
    fit = _Fit(evidence, record_E, claim_M[seen_R].astype(np.int64), claims, shares_K)
    for _ in range(ROUNDS if len(seen_R) else 0):
        fit.step()
    wrong_M = np.full(len(claim_M), np.nan)
    wrong_M[seen_R] = fit.wrong_R
    sampling = rate_interval(fit.right_R, fit.other_R)
    return Confusion(wrong_M, sampling, sampling, fit.rate_C, fit.shares_K)


class _Fit:
    """The state of the expectation-maximisation; R records with evidence."""

    def __init__(
        self,
        evidence: Evidence,
        record_E: Places,
        claim_R: Places,
        claims: Sequence[frozenset[int]],
        shares_K: Floats,
    ) -> None:
        self.num_records, self.num_implants = len(claim_R), len(shares_K)
        self.record_E, self.implant_E, self.claim_R = record_E, evidence.implant_E, claim_R
        self.gain_E = evidence.likelihood_E - 1
        self.likelihood_E = evidence.likelihood_E
        self.claim_E = claim_R[record_E]
        code_E = self.claim_E * self.num_implants + self.implant_E
        self.code_P, self.pair_E = np.unique(code_E, return_inverse=True)
        self.claim_P, self.implant_P = np.divmod(self.code_P, self.num_implants)
        members = [c * self.num_implants + k for c, claim in enumerate(claims) for k in claim]
        self.member_claim, self.member_implant = np.divmod(
            np.array(members, np.int64), self.num_implants
        )
        self.is_claimed_P = np.isin(self.code_P, members)
        self.num_claims = len(claims)
        self.rate, self.rate_C = FIRST_RATE, np.full(len(claims), FIRST_RATE)
        self.shares_K, self.first_K = shares_K, shares_K
        self.wrong_in_P = np.zeros(len(self.code_P))
        self.wrong_C = np.zeros(len(claims))
        self.wrong_R = self.right_R = self.other_R = np.zeros(self.num_records)

    def step(self) -> None:
        """One round: evidence under the present confusion, then confusion and rates from it."""
        within_C = _sums(self.member_claim, self.shares_K[self.member_implant], self.num_claims)
        truth_P = self._truths(within_C)
        part_E = truth_P[self.pair_E]
        claimed_E = self.is_claimed_P[self.pair_E]
        gain_E = part_E * self.gain_E
        self.right_R = 1 + _sums(self.record_E, gain_E * claimed_E, self.num_records)
        self.other_R = 1 + _sums(self.record_E, gain_E * ~claimed_E, self.num_records)
        self.other_R[within_C[self.claim_R] >= 1 - _LEAST] = _LEAST  # nothing is left to be wrong
        rate_R = self.rate_C[self.claim_R]
        against_R = rate_R * self.other_R
        self.wrong_R = against_R / ((1 - rate_R) * self.right_R + against_R)
        weight_E = part_E * self.likelihood_E
        self._update(
            np.where(
                claimed_E,
                weight_E * ((1 - self.wrong_R) / self.right_R)[self.record_E],
                weight_E * (self.wrong_R / self.other_R)[self.record_E],
            )
        )

    def _truths(self, within_C: Floats) -> Floats:
        """a(k) where the claim holds k, else v(k | claim), of each pair of claim and implant."""
        share_P = self.shares_K[self.implant_P]
        inside_P = share_P / np.maximum(within_C[self.claim_P], _LEAST)
        base_P = share_P / np.maximum(1 - within_C[self.claim_P], _LEAST)
        listed_C = _sums(self.claim_P, self.wrong_in_P, self.num_claims)
        # What went to implants that no image lists is dealt out by shares, as the prior is.
        spread_C = CONFUSION_WEIGHT + np.clip(self.wrong_C - listed_C, 0, None)
        outside_P = self.wrong_in_P + spread_C[self.claim_P] * base_P
        outside_P /= self.wrong_C[self.claim_P] + CONFUSION_WEIGHT
        return np.where(self.is_claimed_P, inside_P, outside_P)

    def _update(self, share_E: Floats) -> None:
        """New rates, confusion and shares from the probabilities of the truths."""
        sums_P = _sums(self.pair_E, share_E, len(self.code_P))
        self.wrong_in_P = np.where(self.is_claimed_P, 0.0, sums_P)
        self.wrong_C = _sums(self.claim_R, self.wrong_R, self.num_claims)
        count_C = np.bincount(self.claim_R, minlength=self.num_claims)
        against_R = self.rate * self.other_R
        self.rate = float(np.mean(against_R / ((1 - self.rate) * self.right_R + against_R)))
        self.rate_C = (self.wrong_C + RATE_WEIGHT * self.rate) / (count_C + RATE_WEIGHT)
        found_K = _sums(self.implant_P, sums_P, self.num_implants)
        left = max(self.num_records - found_K.sum(), 0.0)
        # One record more of each implant on average: none is ever thought impossible.
        found_K += (left + self.num_implants) * self.first_K
        self.shares_K = found_K / found_K.sum()


def rate_interval(right_R: Floats, other_R: Floats) -> Figure:
    """Return the rate of errors that is likeliest, and the rates within 1.92 of its log-likelihood.

    Args:
        right_R: Likelihood of each record's images if it is right.
        other_R: If it is wrong.
    """
    if not len(right_R):
        return Figure(math.nan, 0.0, 1.0, 0)
    ratio_R = other_R / right_R - 1

    def slope(rate: float) -> float:
        return float((ratio_R / (1 + rate * ratio_R)).sum())

    def height(rate: float) -> float:
        return float(np.log1p(rate * ratio_R).sum())

    # The log-likelihood is concave: its slope falls from end to end.
    value = _root(slope, 0.0, 1 - _LEAST)
    least = height(value) - _HALF_DEVIANCE
    low = _root(lambda rate: least - height(rate), 0.0, value)
    high = _root(lambda rate: height(rate) - least, value, 1 - _LEAST)
    return Figure(value, low, high, len(right_R))


def widened(rate: Figure, accuracy_sd: float | None) -> Figure:
    """Return an interval joined with the uncertainty of the classifier's accuracy, end by end.

    Nothing is left of it (NaN) where that was not measured.
    """
    if math.isnan(rate.value):
        return rate
    if accuracy_sd is None:
        return Figure(math.nan, math.nan, math.nan, rate.count)
    half = Z_95 * accuracy_sd
    low = rate.value - math.hypot(rate.value - rate.low, half)
    high = rate.value + math.hypot(rate.high - rate.value, half)
    return Figure(rate.value, max(low, 0.0), min(high, 1.0), rate.count)


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Return where a falling function crosses 0, or the end at which it does not reach it."""
    if falling(low) <= 0:
        return low
    if falling(high) >= 0:
        return high
    for _ in range(45):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2


def _sums(places: Places, values: Floats, count: int) -> Floats:
    """Return the sum of the values at each of `count` places."""
    return np.asarray(np.bincount(places, values, count), np.float64)
