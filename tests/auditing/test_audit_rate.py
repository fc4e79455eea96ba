"""Evidence, confusion and the rate of errors, on batches whose truth is known. Arrays only."""

import math

import numpy as np
import numpy.typing as npt
import pytest

from implant_model.package.catalogue import ORTHONET
from jobs.auditing.confusion import Confusion, estimate, rate_interval, widened
from jobs.auditing.evidence import NOT_MEASURED, Evidence, combine, lapse
from jobs.auditing.images import Images
from jobs.auditing.joining import Joined
from jobs.auditing.package_facts import PackageFacts
from jobs.auditing.rate import estimate_rate, first_of_joint, span
from jobs.auditing.registry.claims import Claims
from tests.support.audit_samples import IMPLANTS, probabilities
from training.metrics import Figure

K = len(IMPLANTS)
FLAT_K = np.full(K, 1 / K)
SINGLES = [frozenset([k]) for k in range(K)]
LAPSE = lapse(360)


def images_of(chance_NK: npt.NDArray[np.float64]) -> Images:
    top_N3 = np.argsort(-chance_NK, axis=1)[:, :3]
    zero_N = np.zeros(len(chance_NK), np.int64)
    return Images(
        key_N=zero_N,
        side_N=zero_N.astype(np.int8),
        joint_N=zero_N.astype(np.int32),
        said_joint_N=zero_N.astype(np.int32),
        joints=(),
        outcome_N=zero_N.astype(np.int8),
        top_N3=top_N3.astype(np.int32),
        probability_N3=np.take_along_axis(chance_NK, top_N3, 1).astype(np.float32),
        is_candidate_N3=np.take_along_axis(chance_NK, top_N3, 1) >= 0.5,
        num_beyond_N=zero_N.astype(np.int32),
        beyond_B=np.zeros(0, np.int32),
        member_index_N=zero_N,
        texts={},
    )


def joined_of(record_N: npt.NDArray[np.int64]) -> Joined:
    count = len(record_N)
    return Joined(record_N, np.arange(count), np.ones(count, bool), np.zeros(count, np.int8))


def evidence_of(
    chance_NK: npt.NDArray[np.float64], record_N: npt.NDArray[np.int64] | None = None
) -> Evidence:
    count = len(chance_NK)
    record_N = np.arange(count) if record_N is None else record_N
    num_records = int(record_N.max()) + 1
    return combine(images_of(chance_NK), joined_of(record_N), num_records, FLAT_K, LAPSE)


def batch(
    count: int, rate: float, seed: int, strength: float, astray: float = 0.0
) -> tuple[Confusion, npt.NDArray[np.bool_], float]:
    """An audit of single images: what was fitted, which records are wrong, and the accuracy.

    A share `astray` of the images is answered as if it showed another implant: wrong, and as sure
    of it as of any other.
    """
    rng = np.random.default_rng(seed)
    truth_M = rng.choice(K, count, p=rng.dirichlet(np.full(K, 3.0)))
    wrong_M = rng.random(count) < rate
    claim_M = np.where(wrong_M, (truth_M + rng.integers(1, K, count)) % K, truth_M)
    shown_M = np.where(rng.random(count) < astray, rng.integers(0, K, count), truth_M)
    chance_NK = probabilities(shown_M, rng, strength)
    accuracy = float((chance_NK.argmax(axis=1) == truth_M).mean())
    fitted = estimate(evidence_of(chance_NK), claim_M.astype(np.int32), SINGLES, FLAT_K)
    return fitted, wrong_M, accuracy


@pytest.mark.parametrize(("strength", "accurate"), [(4.5, 0.99), (3.0, 0.89)])
def test_the_true_rate_lies_in_the_interval_as_often_as_it_says(
    strength: float, accurate: float
) -> None:
    """120 registries; 95 % of them is 114, and fewer than 107 come by chance once in 500 times."""
    fits = [batch(500, 0.05, seed, strength) for seed in range(120)]
    assert np.mean([accuracy for _, _, accuracy in fits]) == pytest.approx(accurate, abs=0.01)
    covered = [fitted.sampling.low <= 0.05 <= fitted.sampling.high for fitted, _, _ in fits]
    assert sum(covered) >= 107
    values = [fitted.rate.value for fitted, _, _ in fits]
    assert np.mean(values) == pytest.approx(0.05, abs=0.004)
    # An interval that holds everything would pass the above: they are not wide.
    widths = [fitted.sampling.high - fitted.sampling.low for fitted, _, _ in fits]
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.std(values), rel=0.25)


def test_contradictions_alone_would_overstate_the_rate() -> None:
    fitted, wrong_M, accuracy = batch(4000, 0.05, seed=1, strength=3.0)
    assert accuracy < 0.9
    assert fitted.rate.value == pytest.approx(wrong_M.mean(), abs=0.012)
    assert fitted.wrong_M.sum() == pytest.approx(wrong_M.sum(), rel=0.2)


def test_a_classifier_that_is_surer_than_it_should_be_is_covered_by_its_measurement() -> None:
    """Up to 2 % of answers are wrong and sure; the package was measured on 360 images."""
    covered, narrow = 0, 0
    for seed in range(60):
        rng = np.random.default_rng(10_000 + seed)
        fitted, _, accuracy = batch(1500, 0.05, seed, 4.5, astray=rng.uniform(0, 0.02))
        hits = rng.binomial(360, accuracy)
        share = (hits + 1) / 362
        rate = widened(fitted.sampling, math.sqrt(share * (1 - share) / 362))
        covered += rate.low <= 0.05 <= rate.high
        narrow += fitted.sampling.low <= 0.05 <= fitted.sampling.high
    assert covered >= 51  # of 60; 57 are 95 %
    assert covered >= narrow


def test_the_interval_covers_a_registry_that_is_nearly_right() -> None:
    """0.5 % of records are wrong, as in Tyrol's; the package was measured on 360 images."""
    covered, highest = 0, []
    for seed in range(40):
        fitted, _, accuracy = batch(2000, 0.005, seed, 4.5)
        share = (round(360 * accuracy) + 1) / 362
        rate = widened(fitted.sampling, math.sqrt(share * (1 - share) / 362))
        covered += rate.low <= 0.005 <= rate.high
        highest.append(rate.high)
    assert covered >= 36  # of 40; 38 are 95 %
    assert max(highest) < 0.025, "an interval that holds everything would pass the above"


def test_probabilities_that_a_record_is_wrong_are_calibrated() -> None:
    pairs = [batch(1000, 0.08, seed, 2.5)[:2] for seed in range(8)]
    chance = np.concatenate([fitted.wrong_M for fitted, _ in pairs])
    wrong = np.concatenate([wrong_M for _, wrong_M in pairs])
    for low, high in ((0.05, 0.35), (0.35, 0.65), (0.65, 0.9), (0.9, 1.0)):
        at = (chance >= low) & (chance < high)
        assert at.sum() > 50
        spread = 3.5 * math.sqrt(0.25 / at.sum()) + 0.04
        assert wrong[at].mean() == pytest.approx(chance[at].mean(), abs=spread), (low, high)


def test_the_registrys_usual_mistake_is_learnt() -> None:
    """Nine of ten errors claim 0 for 1: such a contradiction is likelier an error than another."""
    rng = np.random.default_rng(5)
    truth_M = rng.integers(0, K, 6000)
    claim_M = truth_M.copy()
    claim_M[np.flatnonzero(truth_M == 1)[:250]] = 0
    chance_NK = probabilities(truth_M, rng, 2.5)
    fitted = estimate(evidence_of(chance_NK), claim_M.astype(np.int32), SINGLES, FLAT_K)
    assert fitted.rate_C[0] > 5 * fitted.rate_C[2:].max()
    doubtful = np.full((2, K), 0.01)
    doubtful[:, [0, 1, 2]] = [[0.35, 0.55, 0.01], [0.35, 0.01, 0.55]]
    both = np.concatenate([chance_NK, doubtful / doubtful.sum(axis=1, keepdims=True)])
    claims_M = np.concatenate([claim_M, [0, 0]]).astype(np.int32)
    wrong_M = estimate(evidence_of(both), claims_M, SINGLES, FLAT_K).wrong_M
    assert wrong_M[-2] > wrong_M[-1] + 0.2


def test_one_image_keeps_its_own_probabilities() -> None:
    chance_NK = probabilities(np.array([3]), np.random.default_rng(0), 2.0)
    found = evidence_of(chance_NK)
    assert found.num_images_M.tolist() == [1]
    assert found.probability_E == pytest.approx(chance_NK[0, found.implant_E], abs=1e-6)


def test_more_images_say_more_but_less_than_their_product() -> None:
    one = np.full(K, 0.3 / (K - 1))
    one[3] = 0.7
    said = []
    for count in (1, 2, 4, 50):
        found = evidence_of(np.tile(one, (count, 1)), np.zeros(count, np.int64))
        said.append(float(found.probability_E[found.implant_E == 3][0]))
    odds = np.array(said) / (1 - np.array(said))
    assert (np.diff(said) > 0).all()
    # Two views count as 4/3 of one, and no number of them as two.
    # Odds against the other eleven together: powers of the ratio to one of them, over eleven.
    ratio = 0.7 / (0.3 / (K - 1))
    assert odds[1] == pytest.approx(ratio ** (4 / 3) / (K - 1), rel=0.05)
    assert odds[3] < 1.05 * ratio**2 / (K - 1)


def test_images_that_differ_leave_doubt() -> None:
    two = np.full((2, K), 0.2 / (K - 1))
    two[0, 3] = two[1, 5] = 0.8
    found = evidence_of(two, np.zeros(2, np.int64))
    best = dict(zip(found.implant_E.tolist(), found.probability_E.tolist(), strict=True))
    assert best[3] == pytest.approx(best[5])
    assert 0.35 < best[3] < 0.5


def test_no_classifier_is_believed_beyond_its_measurement() -> None:
    assert lapse(0) == NOT_MEASURED
    sure = np.zeros((200, K))
    sure[:, 0] = 1.0
    claim_M = np.zeros(200, np.int32)
    claim_M[0] = 1
    fitted = estimate(evidence_of(sure), claim_M, SINGLES, FLAT_K)
    assert 0.5 < fitted.wrong_M[0] < 0.995
    assert np.isfinite(fitted.wrong_M).all()


def test_a_claim_of_several_implants_is_right_if_one_of_them_is_seen() -> None:
    chance_NK = probabilities(np.array([0, 1, 2]), np.random.default_rng(0), 5.0)
    claims = [frozenset([0, 1]), frozenset(range(K))]
    fitted = estimate(evidence_of(chance_NK), np.zeros(3, np.int32), claims, FLAT_K)
    assert fitted.wrong_M[:2] == pytest.approx([0, 0], abs=0.02)
    assert fitted.wrong_M[2] > 0.5
    anything = estimate(evidence_of(chance_NK), np.ones(3, np.int32), claims, FLAT_K)
    assert anything.wrong_M == pytest.approx([0, 0, 0], abs=1e-6)
    assert anything.rate.value == pytest.approx(0, abs=1e-6)


def test_interval_by_hand_and_at_the_ends() -> None:
    """Sure records are a binomial: 5 wrong of 100."""
    right = np.where(np.arange(100) < 5, 1e-9, 1.0)
    other = np.where(np.arange(100) < 5, 1.0, 1e-9)
    found = rate_interval(right, other)
    assert found.value == pytest.approx(0.05, abs=1e-6)
    deviance = [
        2 * (5 * math.log(0.05 / e) + 95 * math.log(0.95 / (1 - e)))
        for e in (found.low, found.high)
    ]
    assert deviance == pytest.approx([3.8415, 3.8415], abs=1e-3)
    none = rate_interval(right[5:], other[5:])
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(1 - math.exp(-3.8415 / 2 / 95), abs=1e-5)
    every = rate_interval(right[:5], other[:5])
    assert every.value == pytest.approx(1, abs=1e-6)
    assert every.low < 0.8
    empty = rate_interval(right[:0], other[:0])
    assert math.isnan(empty.value)
    assert (empty.low, empty.high) == (0, 1)
    assert math.isnan(widened(empty, 0.1).value)


MEASURED = PackageFacts("m@0", ORTHONET, np.full(K, 0.5), FLAT_K, 10_000_000, 0.95, "images", None)
"""So many images that the accuracy adds nothing to the interval."""


def several_images(num_images: int, alike: bool) -> tuple[Confusion, Confusion]:
    """3,000 records of so many images each: with the span, and without."""
    rng = np.random.default_rng(8)
    truth_M = rng.integers(0, K, 3000)
    wrong_M = rng.random(3000) < 0.05
    claim_M = np.where(wrong_M, (truth_M + 1) % K, truth_M).astype(np.int32)
    record_N = np.repeat(np.arange(3000), num_images)
    if alike:
        chance_NK = np.repeat(probabilities(truth_M, rng, 3.0), num_images, axis=0)
    else:
        chance_NK = probabilities(truth_M[record_N], rng, 3.0)
    joined = joined_of(record_N)
    evidence = evidence_of(chance_NK, record_N)
    claims = Claims(claim_M, tuple(SINGLES), ("",) * K)
    own_M = np.arange(3000)
    fitted = estimate_rate(images_of(chance_NK), joined, evidence, claims, MEASURED, own_M)
    return fitted, estimate(evidence, claim_M, SINGLES, FLAT_K)


@pytest.mark.parametrize("alike", [False, True])
def test_interval_spans_what_is_not_known_of_the_correlation(alike: bool) -> None:
    spanned, assumed = several_images(4, alike)
    assert spanned.rate.value == assumed.rate.value
    assert spanned.rate.low < 0.05 < spanned.rate.high
    width = assumed.rate.high - assumed.rate.low
    assert spanned.rate.high - spanned.rate.low > 1.2 * width
    assert spanned.sampling == assumed.sampling
    assert spanned.wrong_M.tolist() == assumed.wrong_M.tolist()


def test_correlation_of_single_images_is_nothing() -> None:
    spanned, assumed = several_images(1, alike=False)
    assert spanned.rate.low == pytest.approx(assumed.rate.low, abs=2e-4)
    assert spanned.rate.high == pytest.approx(assumed.rate.high, abs=2e-4)
    assert span(Figure(0.1, 0.05, 0.2, 9), []) == Figure(0.1, 0.05, 0.2, 9)


def test_first_record_of_a_joint_by_shared_images() -> None:
    """Records 0, 2 and 3 overlap image by image; 1 is alone, and of 4 no image votes."""
    record_P = np.array([0, 1, 2, 2, 3, 4])
    image_P = np.array([0, 1, 0, 2, 2, 0])
    votes_P = np.array([True] * 5 + [False])
    joined = Joined(record_P, image_P, votes_P, np.zeros(3, np.int8))
    assert first_of_joint(joined, 6).tolist() == [0, 1, 0, 0, 4, 5]


def test_a_joint_that_is_recorded_again_counts_once() -> None:
    """All wrong records written three times would triple the rate's numerator."""
    rng = np.random.default_rng(4)
    truth_M = rng.integers(0, K, 400)
    claim_M = truth_M.copy()
    claim_M[:20] = (truth_M[:20] + 1) % K
    again_M = np.concatenate([np.arange(400), np.repeat(np.arange(20), 2)])
    images = images_of(probabilities(truth_M, rng, 5.0))
    pairs = Joined(np.arange(440), again_M, np.ones(440, bool), np.zeros(400, np.int8))
    evidence = combine(images, pairs, 440, FLAT_K, LAPSE)
    claims = Claims(claim_M[again_M].astype(np.int32), tuple(SINGLES), ("",) * K)
    first_M = first_of_joint(pairs, 440)
    fitted = estimate_rate(images, pairs, evidence, claims, MEASURED, first_M)
    assert fitted.rate.count == 400
    assert fitted.rate.value == pytest.approx(0.05, abs=0.01)
    assert fitted.wrong_M[400:].tolist() == fitted.wrong_M[again_M[400:]].tolist()


def test_uncertainties_join_in_quadrature() -> None:
    rate = widened(Figure(0.10, 0.07, 0.14, 9), 0.04 / 1.959963984540054)
    assert (rate.low, rate.high) == pytest.approx((0.05, 0.10 + math.hypot(0.04, 0.04)))
    assert widened(Figure(0.01, 0.0, 0.03, 9), 0.5).low == 0.0
    unknown = widened(rate, None)
    assert (unknown.count, math.isnan(unknown.value), math.isnan(unknown.high)) == (9, True, True)
