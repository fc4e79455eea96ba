"""One verdict for each record, from the radiographs of its joint."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from jobs.auditing.evidence import Evidence
from jobs.auditing.joining import Joined
from jobs.auditing.registry.claims import Claims
from jobs.auditing.registry.records import Records

Codes = npt.NDArray[np.int8]


class Verdict(IntEnum):
    """What the audit states of a record."""

    AGREES = 0
    CONTRADICTS = 1
    UNDECIDED = 2
    NOT_IN_CATALOGUE = 3
    NO_READABLE_IMAGE = 4
    NO_IMAGE = 5
    EXCLUDED = 6

    @property
    def word(self) -> str:
        """As it is in the tables."""
        return self.name.lower()


class Doubt(IntEnum):
    """Why a record is undecided; 0 for the others."""

    NONE = 0
    LOOKS_UNKNOWN = 1
    SEVERAL_LEFT = 2
    NONE_LEFT = 3


VERDICTS: Final = {
    Verdict.AGREES: "Every implant that the images leave is one that the record means.",
    Verdict.CONTRADICTS: "The images leave no implant that the record means.",
    Verdict.UNDECIDED: "The images leave the record's implant and others, or none at all.",
    Verdict.NOT_IN_CATALOGUE: "The record names no implant that the model knows.",
    Verdict.NO_READABLE_IMAGE: "It has images, and none is a picture that the model may see.",
    Verdict.NO_IMAGE: "No image was found for it.",
    Verdict.EXCLUDED: "The row could not be audited; the reasons are below.",
}
DOUBTS: Final = {
    Doubt.LOOKS_UNKNOWN: "Its images look like none of the model's implants.",
    Doubt.SEVERAL_LEFT: "More than one implant is left, the record's among them.",
    Doubt.NONE_LEFT: "Several images together leave no implant likely enough.",
}


@dataclass(frozen=True)
class Verdicts:
    """What the images say of each record.

    Attributes:
        verdict_M: `Verdict` of each record.
        doubt_M: `Doubt` of each record.
        seen_M: Index of the best implant by the images alone; -1 without a voting image.
        seen_probability_M: Its probability; NaN likewise.
        claim_probability_M: Probability of the record's implants by the images alone; NaN likewise.
        num_images_M: Voting images.
        first_image_M: Place of the first voting image, else of the first image; -1 without one.
    """

    verdict_M: Codes
    doubt_M: Codes
    seen_M: npt.NDArray[np.int32]
    seen_probability_M: npt.NDArray[np.float64]
    claim_probability_M: npt.NDArray[np.float64]
    num_images_M: npt.NDArray[np.int64]
    first_image_M: npt.NDArray[np.int64]


def judge(
    records: Records,
    claims: Claims,
    joined: Joined,
    evidence: Evidence,
    readable_P: npt.NDArray[np.bool_],
    quantiles_K: npt.NDArray[np.float64],
    shares_K: npt.NDArray[np.float64],
) -> Verdicts:
    """Set the images' candidates against what each record claims.

    A single image's candidates are those of its row. Several together leave an implant if 1 - its
    probability is at most the package's quantile of it, for several images as for one. Where one of
    them has it beyond its best three, so that its probability is not known, it is also left beside
    others if it is a candidate of each.

    Args:
        records: All of the registry's.
        claims: What they claim.
        joined: Their images.
        evidence: What these say.
        readable_P: Whether the image of each pair is a picture that the model has seen.
        quantiles_K: The package's, one for each implant.
        shares_K: Shares of the implants in the calibration.
    """
    count, num_implants = len(records), len(shares_K)
    claimed_E = is_claimed(claims, evidence, num_implants)
    candidate_E = is_candidate(evidence, quantiles_K)
    left_M = np.bincount(evidence.record_E, candidate_E, count)
    claimed_left_M = np.bincount(evidence.record_E, candidate_E & claimed_E, count)
    has_vote_M = evidence.num_images_M > 0
    seen_M, best_M = _best(evidence, count)
    verdict_M = np.full(count, Verdict.NO_IMAGE, np.int8)
    verdict_M[joined.record_P] = Verdict.NO_READABLE_IMAGE
    verdict_M[joined.record_P[readable_P]] = Verdict.UNDECIDED
    verdict_M[has_vote_M & (left_M > 0) & (claimed_left_M == left_M)] = Verdict.AGREES
    verdict_M[has_vote_M & (left_M > 0) & (claimed_left_M == 0)] = Verdict.CONTRADICTS
    verdict_M[~is_known(claims)] = Verdict.NOT_IN_CATALOGUE
    verdict_M[~records.is_in_M] = Verdict.EXCLUDED
    doubt_M = np.where(has_vote_M, np.where(left_M > 0, 2, 3), 1).astype(np.int8)
    doubt_M[verdict_M != Verdict.UNDECIDED] = Doubt.NONE
    return Verdicts(
        verdict_M,
        doubt_M,
        seen_M,
        best_M,
        _claim_probability(evidence, claimed_E, claims, shares_K, count),
        evidence.num_images_M,
        _first_images(joined, count),
    )


def is_candidate(evidence: Evidence, quantiles_K: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return whether the images of a record leave each listed implant, see `judge`."""
    num_E = evidence.num_images_M[evidence.record_E]
    is_left_E = evidence.num_left_E == num_E
    is_likely_E = 1 - evidence.probability_E <= quantiles_K[evidence.implant_E]
    others_M = np.bincount(evidence.record_E, is_likely_E, len(evidence.num_images_M))
    is_beside_E = (evidence.num_beyond_E > 0) & (others_M[evidence.record_E] > 0)
    together_E = is_likely_E | (is_left_E & is_beside_E)
    return np.asarray(np.where(num_E == 1, is_left_E, together_E), bool)


def is_claimed(claims: Claims, evidence: Evidence, num_implants: int) -> npt.NDArray[np.bool_]:
    """Return whether each entry's implant is one that its record means."""
    members = [c * num_implants + k for c, claim in enumerate(claims.sets) for k in claim]
    code_E = claims.claim_M[evidence.record_E].astype(np.int64) * num_implants + evidence.implant_E
    return np.isin(code_E, np.array(members, np.int64))


def is_known(claims: Claims) -> npt.NDArray[np.bool_]:
    """Return whether the catalogue has the implant that each record means."""
    knows_C = np.array([*map(bool, claims.sets), False], bool)
    return np.asarray(knows_C[claims.claim_M], bool)


def _best(evidence: Evidence, count: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """Return the most probable implant of each record, ties to the lower index."""
    order = np.lexsort((evidence.implant_E, -evidence.probability_E, evidence.record_E))
    first = np.flatnonzero(np.diff(evidence.record_E[order], prepend=-1))
    at = order[first]
    seen_M, best_M = np.full(count, -1, np.int32), np.full(count, np.nan)
    seen_M[evidence.record_E[at]] = evidence.implant_E[at]
    best_M[evidence.record_E[at]] = evidence.probability_E[at]
    return seen_M, best_M


def _claim_probability(
    evidence: Evidence,
    claimed_E: npt.NDArray[np.bool_],
    claims: Claims,
    shares_K: npt.NDArray[np.float64],
    count: int,
) -> npt.NDArray[np.float64]:
    """Of listed implants as they are, of the others by their shares of the rest."""
    share_C = np.array([*(shares_K[sorted(claim)].sum() for claim in claims.sets), 0.0])
    share_E = shares_K[evidence.implant_E]
    listed_M = np.bincount(evidence.record_E, evidence.probability_E, count)
    listed_share_M = np.bincount(evidence.record_E, share_E, count)
    inside_M = np.bincount(evidence.record_E, evidence.probability_E * claimed_E, count)
    inside_share_M = np.bincount(evidence.record_E, share_E * claimed_E, count)
    unlisted_M = np.clip(share_C[claims.claim_M] - inside_share_M, 0, 1)
    rest_share_M = np.maximum(1 - listed_share_M, 1e-12)
    rest_M = np.clip(1 - listed_M, 0, 1) * np.clip(unlisted_M / rest_share_M, 0, 1)
    return np.where(evidence.num_images_M > 0, np.clip(inside_M + rest_M, 0, 1), np.nan)


def _first_images(joined: Joined, count: int) -> npt.NDArray[np.int64]:
    first_M = np.full(count, -1, np.int64)
    first_M[joined.record_P[::-1]] = joined.image_P[::-1]
    votes_P = joined.votes_P[::-1]
    first_M[joined.record_P[::-1][votes_P]] = joined.image_P[::-1][votes_P]
    return first_M
