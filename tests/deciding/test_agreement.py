"""Kappa and AC1 against published tables, and intervals that hold what they promise."""

import math

import numpy as np
import pytest

from jobs.deciding.agreement import ac1, kappa, student_95, table_of, with_interval


def test_kappa_of_a_table_by_hand() -> None:
    counts = np.array([[20, 5], [10, 15]])
    assert kappa(counts) == pytest.approx(0.4)  # (0.7 - 0.5) / (1 - 0.5)
    assert kappa(np.array([[50, 0], [0, 50]])) == 1
    assert kappa(np.array([[0, 50], [50, 0]])) == -1
    assert math.isnan(kappa(np.array([[9, 0], [0, 0]]))), "no chance of disagreement"
    assert math.isnan(kappa(np.zeros((2, 2), np.int64)))


def test_ac1_of_gwet_s_own_example() -> None:
    """Gwet 2008, table 1: 118 and 2 agree of 125; kappa is 0.43 and AC1 0.95 there."""
    counts = np.array([[118, 5], [0, 2]])
    chance = 2 * (2 + 7) / 250 * (1 - 9 / 250)
    assert ac1(counts) == pytest.approx((0.96 - chance) / (1 - chance))
    assert ac1(counts) == pytest.approx(0.957, abs=1e-3)
    assert kappa(counts) == pytest.approx(0.432, abs=1e-2)


def test_table_counts_pairs_in_the_order_of_the_categories() -> None:
    counts = table_of("aabc", "abbc", "abcd")
    assert counts.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_interval_is_that_of_leaving_out_each_case() -> None:
    counts = np.array([[14, 3, 1], [2, 9, 0], [0, 1, 5]])
    cases = [place for place in np.ndindex(3, 3) for _ in range(counts[place])]
    values = []
    for case in cases:
        less = counts.copy()
        less[case] -= 1
        values.append(kappa(less))
    squares = (np.array(values) - np.mean(values)) ** 2
    error = math.sqrt((len(cases) - 1) / len(cases) * squares.sum())
    figure = with_interval(kappa, counts)
    assert figure.high - figure.value == pytest.approx(student_95(34) * error)
    assert figure.count == 35
    assert math.isnan(with_interval(kappa, np.array([[1, 0], [0, 1]])).low)


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042), (10_000, 1.960)]
)
def test_quantiles_are_those_of_the_tables(degrees: int, quantile: float) -> None:
    assert student_95(degrees) == pytest.approx(quantile, rel=0.01)


def test_interval_covers_the_agreement_of_the_population() -> None:
    rng = np.random.default_rng(0)
    shares = np.array([[0.5, 0.1], [0.1, 0.3]])
    truth = kappa(shares * 1_000_000)
    covered = 0
    for _ in range(400):
        counts = rng.multinomial(80, shares.ravel()).reshape(2, 2)
        figure = with_interval(kappa, counts)
        covered += figure.low <= truth <= figure.high
    assert 0.92 <= covered / 400 <= 0.98
