"""Metrics against values worked out by hand or published."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from training.metrics import (
    Statistic,
    auroc,
    auroc_of,
    bootstrap,
    calibration_error,
    calibration_error_of,
    confusion,
    covered,
    evaluate,
    macro_f1,
    macro_f1_of,
    mean_auroc,
    mean_auroc_of,
    mean_of,
    scarcer,
    share,
    top_k_hits,
    wilson,
)

LABELS_N = np.array([0, 0, 1, 1, 2, 2])
PROBABILITIES_NK = np.array(
    [
        [0.7, 0.2, 0.1],
        [0.3, 0.6, 0.1],
        [0.2, 0.5, 0.3],
        [0.1, 0.8, 0.1],
        [0.4, 0.5, 0.1],
        [0.1, 0.2, 0.7],
    ]
)


def test_wilson_matches_published_intervals() -> None:
    # Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3: 81/263, 15/148, 0/20, 1/29.
    for hits, count, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        figure = wilson(hits, count)
        assert (figure.low, figure.high) == pytest.approx((low, high), abs=1e-4)


def test_wilson_of_nothing_says_so() -> None:
    figure = wilson(0, 0)
    assert math.isnan(figure.value)
    assert (figure.low, figure.high, figure.count) == (0.0, 1.0, 0)
    assert figure.to_json()["value"] is None


@example(0, 7)
@given(st.integers(0, 200), st.integers(1, 200))
def test_wilson_holds_its_estimate(hits: int, more: int) -> None:
    figure = wilson(hits, hits + more)
    assert 0 <= figure.low <= figure.value <= figure.high <= 1


def test_top_k() -> None:
    assert top_k_hits(LABELS_N, PROBABILITIES_NK, 1).tolist() == [1, 0, 1, 1, 0, 1]
    assert top_k_hits(LABELS_N, PROBABILITIES_NK, 2).tolist() == [1, 1, 1, 1, 0, 1]
    assert top_k_hits(LABELS_N, PROBABILITIES_NK, 3).all()


def test_confusion_and_macro_f1() -> None:
    predicted_N = PROBABILITIES_NK.argmax(axis=1)
    assert confusion(LABELS_N, predicted_N, 3).tolist() == [[1, 1, 0], [0, 2, 0], [0, 1, 1]]
    # class 0: 2 / (2 + 1) = 2/3; class 1: 4 / (2 + 4) = 2/3; class 2: 2 / (2 + 1) = 2/3
    assert macro_f1(LABELS_N, predicted_N) == pytest.approx(2 / 3)


def test_calibration_error_of_a_known_set() -> None:
    probabilities_NK = np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10)
    labels_N = np.array([0] * 8 + [1] * 2 + [0] * 6 + [1] * 4)
    # Bins of 10: |8 - 9| and |6 - 6|, over 20 images.
    assert calibration_error(labels_N, probabilities_NK, bins=2) == pytest.approx(1 / 20)


def test_auroc_counts_ties_as_half() -> None:
    scores_N = np.array([1.0, 2.0, 2.0, 3.0])
    assert auroc(scores_N, np.array([False, True, False, True])) == pytest.approx(3.5 / 4)
    assert math.isnan(auroc(scores_N, np.ones(4, dtype=bool)))


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=40))
def test_auroc_is_the_share_of_ordered_pairs(pairs: list[tuple[int, bool]]) -> None:
    high = [score for score, positive in pairs if positive]
    low = [score for score, positive in pairs if not positive]
    area = auroc(np.array([p[0] for p in pairs], float), np.array([p[1] for p in pairs]))
    if not high or not low:
        assert math.isnan(area)
        return
    wins = sum((h > x) + 0.5 * (h == x) for h in high for x in low)
    assert area == pytest.approx(wins / (len(high) * len(low)))


def test_mean_auroc_of_perfect_order() -> None:
    assert mean_auroc(np.array([0, 1]), np.array([[0.6, 0.4], [0.1, 0.9]])) == 1.0


def test_coverage() -> None:
    assert covered(np.array([0, 1, 2]), [[0], [], [1, 2]]).tolist() == [True, False, True]


def test_bootstrap_draws_whole_groups() -> None:
    values_N = np.array([0.0] * 50 + [1.0] * 50)
    alone = bootstrap(mean_of(values_N), np.arange(100), rounds=300)
    pairs = bootstrap(mean_of(values_N), np.arange(100) // 10, rounds=300)
    assert alone.value == pairs.value == 0.5
    assert pairs.high - pairs.low > 1.8 * (alone.high - alone.low)  # sqrt(10) in the limit


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("num_groups", [1, 4])
def test_an_interval_of_finite_data_has_a_width(value: float, num_groups: int) -> None:
    figure = bootstrap(lambda i: value, np.arange(12) % num_groups, rounds=20)
    same = wilson(int(value) * num_groups, num_groups)
    assert (figure.low, figure.high) == pytest.approx((same.low, same.high))


def test_unseen_groups_may_lie_at_either_end_of_the_span() -> None:
    figure = bootstrap(lambda i: 0.0, np.arange(100), rounds=20, span=(-1.0, 1.0))
    unseen = wilson(0, 100).high
    assert (figure.low, figure.high) == pytest.approx((-unseen, unseen))


def test_an_area_rests_on_the_scarcer_side() -> None:
    scores_N, positive_N = np.arange(100.0), np.arange(100) >= 96
    units = scarcer(positive_N, np.arange(100) // 2)
    assert units == 2
    area = auroc_of(scores_N, positive_N)
    figure = bootstrap(area, np.arange(100) // 2, 20, num_units=units)
    assert figure.value == 1
    assert figure.low == pytest.approx(wilson(2, 2).low)


def test_evaluate_allows_for_groups_and_claims_no_certainty() -> None:
    """All right, three images of a patient: as sure as one image of each would be."""
    labels_N, groups_N = np.arange(30) // 3 % 2, np.arange(30) // 3
    figures = evaluate(
        labels_N, np.eye(2)[labels_N], [[x] for x in labels_N.tolist()], groups_N, ("a", "b")
    )
    assert figures["top_1"] == share(np.ones(30, bool), groups_N)
    for name in ("top_1", "macro_f1", "mean_auroc", "coverage"):
        assert figures[name].low == pytest.approx(wilson(10, 10).low)
    assert figures["sensitivity: a"].low == pytest.approx(wilson(5, 5).low)
    for figure in figures.values():
        assert figure.low < figure.high


def test_evaluate_names_every_figure() -> None:
    candidates = [[0], [1, 0], [1], [1], [1, 0], [2]]
    figures = evaluate(LABELS_N, PROBABILITIES_NK, candidates, np.arange(6), ("a", "b", "c"))
    assert figures["top_1"].value == pytest.approx(4 / 6)
    assert figures["top_3"].value == 1.0
    assert figures["coverage"].value == pytest.approx(5 / 6)
    assert figures["set_size"].value == pytest.approx(8 / 6)
    assert figures["sensitivity: b"].value == 1.0
    assert figures["sensitivity: c"].count == 2
    for name in ("macro_f1", "mean_auroc", "calibration_error"):
        assert figures[name].low <= figures[name].value <= figures[name].high


def test_the_calibration_errors_interval_is_not_widened_by_resampling() -> None:
    """Of few, perfectly calibrated images each resampling has the larger gaps."""
    rng = np.random.default_rng(0)
    confidence_N = rng.uniform(0.5, 1, 60)
    labels_N = (rng.random(60) > confidence_N).astype(np.int64)
    probabilities_NK = np.stack([confidence_N, 1 - confidence_N], axis=1)

    error = calibration_error_of(labels_N, probabilities_NK)
    plain = bootstrap(error, np.arange(60))
    centred = bootstrap(error, np.arange(60), centred=True)
    assert (plain.low + plain.high) / 2 > plain.value
    assert centred.low < centred.value < centred.high < plain.high


def test_a_statistic_counts_an_image_as_often_as_it_was_drawn() -> None:
    """What each figure is of the drawn images themselves, with repetitions."""
    rng = np.random.default_rng(0)
    probabilities_NK = rng.dirichlet([1, 1, 1], 60).round(1)
    labels_N, values_N = rng.integers(0, 3, 60), rng.random(60)
    predicted_N = probabilities_NK.argmax(axis=1)
    confidence_N = probabilities_NK.max(axis=1) + np.arange(60) / 1e6  # no two are alike
    sure_NK = np.stack([confidence_N, 1 - confidence_N], axis=1)
    pairs: list[tuple[Statistic, Callable[[np.ndarray], float]]] = [
        (mean_of(values_N), lambda i: float(values_N[i].mean())),
        (macro_f1_of(labels_N, predicted_N), lambda i: macro_f1(labels_N[i], predicted_N[i])),
        (
            mean_auroc_of(labels_N, probabilities_NK),
            lambda i: mean_auroc(labels_N[i], probabilities_NK[i]),
        ),
        (
            calibration_error_of(labels_N % 2, sure_NK),
            lambda i: calibration_error(labels_N[i] % 2, sure_NK[i]),
        ),
        (
            auroc_of(probabilities_NK[:, 0], labels_N == 0),
            lambda i: auroc(probabilities_NK[i, 0], labels_N[i] == 0),
        ),
    ]
    for _ in range(20):
        drawn = rng.integers(60, size=rng.integers(1, 120))
        weights_N = np.bincount(drawn, minlength=60)
        for statistic, of_images in pairs:
            assert statistic(weights_N) == pytest.approx(of_images(drawn), nan_ok=True)
