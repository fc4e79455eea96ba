"""Letters: N images, C classes."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from implant_model import calibration
from implant_model.calibration import (
    CandidateSets,
    class_quantiles,
    conformal_quantile,
    fit_temperature,
    label_probabilities,
    novelty_threshold,
    prediction_sets,
    softmax,
)

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def prediction_set(probabilities_C: np.ndarray, quantile: float | np.ndarray) -> list[int]:
    """The set of one image."""
    (only,) = prediction_sets(probabilities_C[None], quantile)
    return only


def simulate(rng: np.random.Generator, number: int, classes: int = 5) -> tuple[Array, Labels]:
    """Logits of which softmax is the truth: labels are drawn from it."""
    logits_NC = 2 * rng.standard_normal((number, classes))
    chances_NC = softmax(logits_NC).cumsum(axis=1)
    labels_N = (rng.random((number, 1)) > chances_NC).sum(axis=1)
    return logits_NC, labels_N.astype(np.int64)


def nll(logits_NC: Array, labels_N: Labels, temperature: float) -> float:
    chosen = softmax(logits_NC, temperature)[np.arange(len(labels_N)), labels_N]
    return float(-np.log(chosen).mean())


def test_softmax_is_a_distribution_however_large_the_logits() -> None:
    probabilities = softmax(np.array([[1e4, 0, -1e4], [1, 1, 1]], np.float32))
    wanted = np.array([[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]])
    np.testing.assert_allclose(probabilities, wanted, atol=1e-12)


@pytest.mark.parametrize("true", [0.3, 1.0, 2.5, 8.0])
def test_temperature_is_the_one_that_was_put_in(true: float) -> None:
    logits_NC, labels_N = simulate(np.random.default_rng(1), 20_000)
    assert fit_temperature(true * logits_NC, labels_N) == pytest.approx(true, rel=0.05)


@pytest.mark.parametrize("seed", range(8))
def test_no_temperature_of_a_fine_grid_is_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits_NC, labels_N = simulate(rng, int(rng.integers(5, 300)), int(rng.integers(2, 8)))
    logits_NC *= rng.uniform(0.2, 5)
    fitted = fit_temperature(logits_NC, labels_N)
    grid = np.geomspace(0.05, 20, 2001)
    best = grid[np.argmin([nll(logits_NC, labels_N, t) for t in grid])]
    assert nll(logits_NC, labels_N, fitted) <= nll(logits_NC, labels_N, best) + 1e-9
    assert fitted == pytest.approx(best, rel=0.01)


def test_temperature_stays_within_bounds() -> None:
    logits = np.array([[5.0, 0.0], [0.0, 5.0]])
    assert fit_temperature(logits, np.array([0, 1])) == pytest.approx(0.05)
    assert fit_temperature(logits, np.array([1, 0])) == pytest.approx(20)


def coverages(least: float, trials: int = 400) -> tuple[float, float, float]:
    """Mean coverage over calibrations of 99 images, its standard error, mean size of a set."""
    rng = np.random.default_rng(7)
    shares, sizes = [], []
    for _ in range(trials):
        logits_NC, labels_N = simulate(rng, 99)
        probabilities = softmax(0.5 * logits_NC)  # badly calibrated: the guarantee needs no better
        quantile = conformal_quantile(probabilities, labels_N, 0.9, least)
        new_NC, new_labels_N = simulate(rng, 200)
        sets = [prediction_set(row, quantile) for row in softmax(0.5 * new_NC)]
        hits = [label in chosen for label, chosen in zip(new_labels_N, sets, strict=True)]
        shares.append(np.mean(hits))
        sizes.append(np.mean([len(chosen) for chosen in sets]))
    spread = float(np.std(shares)) / math.sqrt(trials)
    return float(np.mean(shares)), spread, float(np.mean(sizes))


def test_sets_cover_what_was_asked_for_and_hardly_more() -> None:
    share, error, size = coverages(least=0)
    # With 99 scores without ties the expected coverage is 0.9 exactly: ceil(100 x 0.9) / 100.
    assert share == pytest.approx(0.9, abs=4 * error)
    assert error < 0.003
    assert size < 4


def test_without_the_finite_sample_correction_coverage_would_fall_short() -> None:
    """The test above can fail: a plain quantile of few scores covers less."""
    rng = np.random.default_rng(3)
    shares = {"plain": [], "corrected": []}  # type: dict[str, list[float]]
    for _ in range(400):
        scores, new = rng.random(9), rng.random(200)
        probabilities = np.stack([1 - scores, scores], axis=1)
        corrected = conformal_quantile(probabilities, np.zeros(9, np.int64), 0.8, least=0)
        shares["corrected"].append(float((new <= corrected).mean()))
        shares["plain"].append(float((new <= np.quantile(scores, 0.8)).mean()))
    assert np.mean(shares["corrected"]) == pytest.approx(0.8, abs=0.02)
    assert np.mean(shares["plain"]) < 0.77


def test_a_sharp_network_keeps_the_images_that_it_is_sure_about() -> None:
    probabilities = np.full((1000, 2), 0.01)
    probabilities[:, 0] = np.linspace(0.9, 0.999, 1000)
    labels = np.zeros(1000, np.int64)
    bare = conformal_quantile(probabilities, labels, 0.9, least=0)
    assert prediction_set(np.array([0.905, 0.095]), bare) == []
    quantile = conformal_quantile(probabilities, labels, 0.9)
    assert prediction_set(np.array([0.905, 0.095]), quantile) == [0]
    assert prediction_set(np.array([0.4, 0.35, 0.25]), quantile) == []


def test_too_few_images_make_every_implant_a_candidate() -> None:
    quantile = conformal_quantile(np.array([[0.9, 0.1]] * 8), np.zeros(8, np.int64), 0.9)
    assert quantile == 1
    assert prediction_set(np.array([0.0, 0.3, 0.7]), quantile) == [2, 1, 0]


def test_a_quantile_that_is_a_whole_place_is_that_place() -> None:
    # (9 + 1) x 0.7 is 7.000000000000001 in floating point: the 7th smallest, not the 8th.
    right = np.linspace(0.9, 0.1, 9)
    probabilities = np.stack([right, 1 - right], axis=1)
    quantile = conformal_quantile(probabilities, np.zeros(9, np.int64), 0.7, least=0)
    assert quantile == pytest.approx(0.7)


def test_candidates_come_best_first_and_ties_by_index() -> None:
    assert prediction_set(np.array([0.2, 0.3, 0.3, 0.2], np.float32), 0.75) == [1, 2]
    assert prediction_set(np.array([0.25, 0.3, 0.3, 0.15], np.float32), 0.75) == [1, 2, 0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=50)
def test_a_larger_quantile_only_adds_candidates(values: list[float], a: float, b: float) -> None:
    small, large = (prediction_set(np.array(values), q) for q in sorted((a, b)))
    assert large[: len(small)] == small


def test_known_implants_pass_at_the_rate_that_was_asked_for() -> None:
    rng = np.random.default_rng(5)
    rates = []
    for _ in range(300):
        threshold = novelty_threshold(rng.standard_normal(199), 0.95)
        rates.append(float((rng.standard_normal(500) <= threshold).mean()))
    assert np.mean(rates) == pytest.approx(0.95, abs=0.004)
    assert novelty_threshold(np.array([1.0, 3.0, 2.0]), 0.99) == 3


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((0, 3)), np.zeros(0, np.int64), "at least one image"),
        (np.zeros((2, 3)), np.zeros(3, np.int64), "do not fit"),
        (np.zeros(3), np.zeros(3, np.int64), "do not fit"),
        (np.array([[0.0, math.nan]]), np.array([0]), "not finite"),
        (np.zeros((1, 3)), np.array([3]), "0 to 2 are expected"),
        (np.zeros((1, 3)), np.array([-1]), "0 to 2 are expected"),
    ],
)
def test_senseless_input_is_refused(logits: Array, labels: Labels, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_temperature(logits, labels)
    with pytest.raises(ValueError, match=message):
        conformal_quantile(logits, labels, 0.9)


@pytest.mark.parametrize("share", [0, 1, -1, 2, math.nan])
def test_a_share_is_inside_zero_to_one(share: float) -> None:
    with pytest.raises(ValueError, match="inside 0..1"):
        conformal_quantile(np.full((2, 2), 0.5), np.zeros(2, np.int64), share)
    with pytest.raises(ValueError, match="inside 0..1"):
        novelty_threshold(np.ones(3), share)


@pytest.mark.parametrize("scores", [[], [1, math.nan], [[1.0]]])
def test_novelty_scores_are_finite_and_some(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one finite value"):
        novelty_threshold(np.array(scores), 0.9)


def test_each_class_is_covered_by_itself_where_its_images_are_enough() -> None:
    """A class that the network knows less well is covered too, and one of few images with all."""
    rng = np.random.default_rng(0)

    def draw(count: int) -> tuple[Array, Labels]:
        labels = rng.choice(3, count, p=[0.69, 0.3, 0.01])
        sure = np.array([3.0, 0.5, 3.0])[labels]
        return softmax(rng.normal(size=(count, 3)) + sure[:, None] * np.eye(3)[labels]), labels

    covered: list[list[bool]] = [[], []]
    together = []
    for _ in range(200):
        held, labels = draw(300)
        own = class_quantiles(held, labels, 0.9, least=0)
        assert (own[2] == conformal_quantile(held, labels, 0.9, least=0)) == (sum(labels == 2) < 9)
        new, truth = draw(100)
        for row, label in zip(new, truth, strict=True):
            if label < 2:
                covered[label].append(label in prediction_set(row, np.array(own)))
        marginal = conformal_quantile(held, labels, 0.9, least=0)
        hard = [
            label in prediction_set(row, marginal) for row, label in zip(new, truth, strict=True)
        ]
        together += [hit for hit, label in zip(hard, truth, strict=True) if label == 1]
    assert np.mean(covered[0]) == pytest.approx(0.9, abs=0.02)
    assert np.mean(covered[1]) == pytest.approx(0.9, abs=0.02)
    assert np.mean(together) < 0.8  # what it mends


def test_images_that_are_worked_on_in_blocks_give_the_same_to_the_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logits_NC, labels_N = simulate(np.random.default_rng(3), 1000, 7)
    logits = logits_NC.astype(np.float32)
    whole = fit_temperature(logits, labels_N), label_probabilities(logits, labels_N, 1.3)
    expected = softmax(logits, 1.3)[np.arange(1000), labels_N]
    monkeypatch.setattr(calibration, "BLOCK_VALUES", 7 * 33)
    in_blocks = fit_temperature(logits, labels_N), label_probabilities(logits, labels_N, 1.3)
    assert in_blocks[0] == whole[0]
    assert in_blocks[1].tolist() == whole[1].tolist() == expected.tolist()


def test_sets_of_candidates_are_held_as_numbers() -> None:
    probabilities = softmax(simulate(np.random.default_rng(4), 200, 5)[0])
    lists = prediction_sets(probabilities, 0.7)
    sets = CandidateSets.of(lists)
    assert [*sets] == lists
    assert (len(sets), sets[-1], sets[3:6]) == (200, lists[-1], lists[3:6])
    assert sets.members_M.nbytes + sets.ends_N.nbytes < 200 * 24
    with pytest.raises(IndexError):
        sets[200]
