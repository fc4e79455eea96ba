"""The rate of errors by verified records: right on average, with intervals that hold."""

import math

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.review.rate_simulation import make_registry, measure, page_of
from jobs.deciding.sample import draw, sample_table
from jobs.deciding.verified_rate import (
    Sampled,
    estimate,
    fit_coefficient,
    limits,
    rates,
    recovered,
    weighted_share,
)


def stratum(weight: float, hits: int, count: int, records: int = 1_000_000) -> Sampled:
    is_wrong = np.arange(count) < hits
    return Sampled(weight, records, is_wrong, np.full(count, 0.1), 0.1)


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [  # by scipy 1.17: roots of binom.cdf less half of binom.pmf
        (3, 50, 0.015487, 0.154638),
        (11, 155, 0.037884, 0.119982),
        (0, 300, 0.0, 1 - 0.05 ** (1 / 300)),
        (20, 20, 0.05 ** (1 / 20), 1.0),
    ],
)
def test_limits_are_mid_p(hits: int, count: int, low: float, high: float) -> None:
    assert limits(hits, count) == pytest.approx((low, high), abs=2e-6)


def test_limits_miss_a_share_seldom_wherever_it_is() -> None:
    for share in np.linspace(0.002, 0.998, 60):
        hits = np.random.default_rng(0).binomial(80, share, 2000)
        found = np.array([limits(int(each), 80) for each in hits])
        assert np.mean((found[:, 0] > share) | (found[:, 1] < share)) < 0.075


def test_one_stratum_has_the_limits_of_its_share() -> None:
    assert recovered([stratum(1, 3, 50)]) == pytest.approx(limits(3, 50), abs=1e-4)


def test_no_error_seen_leaves_the_rule_of_three() -> None:
    low, high = recovered([stratum(1, 0, 300)])
    assert low == 0
    assert high == pytest.approx(3 / 300, rel=0.05)
    low, high = recovered([stratum(0.9, 0, 300), stratum(0.1, 20, 40)])
    assert low < 0.05 < 0.06 < high < 0.08


def test_all_that_there_are_verified_leave_no_doubt() -> None:
    design, _, _ = rates([stratum(0.5, 2, 10, 10), stratum(0.5, 0, 10, 10)])
    assert design.value == pytest.approx(0.1)
    assert design.high - design.low < 1e-9


def test_without_a_verified_record_in_a_stratum_there_is_no_rate() -> None:
    for strata in ([stratum(0.5, 0, 0), stratum(0.5, 1, 10)], []):
        design, _, _ = rates(strata)
        assert math.isnan(design.value)
        assert (design.low, design.high) == (0, 1)


def test_predictions_that_are_worthless_are_not_used_and_good_ones_narrow() -> None:
    rng = np.random.default_rng(0)
    is_wrong = rng.random(400) < 0.2
    noise = Sampled(1.0, 100_000, is_wrong, rng.random(400), 0.5)
    assert fit_coefficient([noise]) < 0.15
    good = np.clip(is_wrong * 0.8 + 0.1 + rng.normal(0, 0.05, 400), 0, 1)
    design, powered, coefficient = rates([Sampled(1.0, 100_000, is_wrong, good, 0.26)])
    assert coefficient > 0.8
    assert powered.high - powered.low < 0.4 * (design.high - design.low)
    few = Sampled(1.0, 100_000, np.arange(400) < 4, rng.random(400), 0.5)
    assert fit_coefficient([few]) == 0, "4 errors fit no coefficient"


@pytest.mark.parametrize(("rate", "accuracy"), [(0.02, 0.75), (0.05, 0.95)])
def test_estimates_are_right_on_average_and_intervals_hold(rate: float, accuracy: float) -> None:
    found = measure(True, rate, accuracy, 500, 60)
    for name in ("design", "powered"):
        errors = [getattr(one, name) for one in found]
        assert abs(np.mean(errors)) < 3.5 * np.std(errors) / math.sqrt(len(errors))
        assert np.mean([getattr(one, f"covers_{name}") for one in found]) >= 0.88
    simple = np.mean([one.simple**2 for one in found])
    assert np.mean([one.powered**2 for one in found]) < simple
    assert "| dependent |" not in page_of([], 1, 1.0)


def test_rate_of_an_audit_by_what_was_judged() -> None:
    rng = np.random.default_rng(1)
    registry = make_registry(rng, 0.05, 0.95, dependent=False)
    drawn = draw(registry.verdicts.tolist(), registry.predicted_M, 400, 3)
    rows = pa.table(
        {
            "row": np.arange(len(registry.verdicts)),
            "hospital": [f"H{n % 3}" for n in range(len(registry.verdicts))],
            "wrong_probability": registry.predicted_M,
        }
    )
    sample = sample_table(rows, range(len(registry.verdicts)), drawn, "aa")
    judged: dict[int, bool | None] = {
        row: bool(registry.is_wrong_M[row]) for row in sample["row"].to_pylist()
    }
    left_out = sample["row"].to_pylist()[:7]
    judged |= dict.fromkeys(left_out)
    judged[-5] = True  # of no record of the sample
    found = estimate(sample, judged)
    truth = registry.is_wrong_M.mean()
    assert (found.verified, found.not_judged, found.drawn) == (393, 7, 400)
    assert found.design.low < truth < found.design.high
    assert set(found.groups["hospital"]) == {"H0", "H1", "H2"}
    for figure in found.groups["hospital"].values():
        assert figure.low < figure.value < figure.high
    assert found.num_more is not None
    half = (found.best.high - found.best.low) / 2
    assert (found.num_more == 0) == (half <= 0.01)
    few = estimate(sample, dict(list(judged.items())[7:60]))
    assert few.num_more is None or few.num_more > (found.num_more or 0)
    assert estimate(sample, {}).verified == 0


def test_interval_of_a_group_is_that_of_the_records_that_weights_leave() -> None:
    same = weighted_share(np.arange(100) < 4, np.ones(100))
    assert same.low == pytest.approx(0.011, abs=2e-3)
    assert same.high == pytest.approx(0.099, abs=4e-3)
    uneven = weighted_share(np.arange(100) < 4, np.where(np.arange(100) % 2, 1.0, 20.0))
    assert uneven.high - uneven.low > same.high - same.low
    assert weighted_share(np.zeros(40, bool), np.ones(40)).low == 0
