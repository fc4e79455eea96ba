"""The sample: over all verdicts, probabilities that are kept, the same from the same data."""

import numpy as np
import pytest

from jobs.deciding.sample import MIN_DRAWN, allocate, draw, seed_of


def population(rng: np.random.Generator, count: int = 5000) -> tuple[list[str], np.ndarray]:
    verdicts = rng.choice(["agrees", "contradicts", "undecided", "not_in_catalogue"], count,
                          p=[0.8, 0.1, 0.07, 0.03])  # fmt: skip
    wrong = np.where(verdicts == "contradicts", rng.random(count), rng.random(count) / 100)
    wrong[verdicts == "not_in_catalogue"] = np.nan
    return verdicts.tolist(), wrong


def test_sample_has_its_size_and_every_verdict() -> None:
    verdicts, wrong = population(np.random.default_rng(0))
    drawn = draw(verdicts, wrong, 200, 7)
    assert len(drawn.places) == len(set(drawn.places.tolist())) == 200
    assert {verdicts[place] for place in drawn.places} == set(verdicts)
    assert sum(stratum.records for stratum in drawn.strata) == 5000
    for h, stratum in enumerate(drawn.strata):
        assert stratum.drawn == (drawn.stratum_S == h).sum() >= MIN_DRAWN
        assert stratum.inclusion_probability == stratum.drawn / stratum.records
    likely = next(s for s in drawn.strata if s.name == "contradicts, likelier wrong")
    sure = next(s for s in drawn.strata if s.name == "agrees")
    assert likely.inclusion_probability > 2.5 * sure.inclusion_probability
    assert sure.inclusion_probability > 0.5 * 200 / 5000 * 0.9, "the constant share"


def test_more_than_there_are_draws_all_once() -> None:
    verdicts = ["agrees"] * 5 + ["contradicts"]
    drawn = draw(verdicts, np.array([0.01] * 5 + [0.9]), 10**30, 1)
    assert sorted(drawn.places.tolist()) == list(range(6))
    assert {stratum.inclusion_probability for stratum in drawn.strata} == {1.0}


def test_same_data_draw_the_same_sample_and_other_data_another() -> None:
    verdicts, wrong = population(np.random.default_rng(0))
    one, same, other = (
        draw(verdicts, wrong, 50, seed_of(d)) for d in ("ab12cd34", "ab12cd34", "00000001")
    )
    assert one.places.tolist() == same.places.tolist()
    assert one.places.tolist() != other.places.tolist()


def test_each_record_has_the_probability_of_its_row() -> None:
    verdicts, wrong = population(np.random.default_rng(0), 300)
    counts = np.zeros(300)
    for seed in range(2000):
        counts[draw(verdicts, wrong, 40, seed).places] += 1
    drawn = draw(verdicts, wrong, 40, 0)
    for h, stratum in enumerate(drawn.strata):
        members = drawn.places[drawn.stratum_S == h]
        share = counts[members] / 2000
        assert share == pytest.approx(stratum.inclusion_probability, abs=0.06)


def test_who_stops_early_has_read_of_every_stratum() -> None:
    verdicts, wrong = population(np.random.default_rng(0))
    drawn = draw(verdicts, wrong, 200, 7)
    assert set(drawn.stratum_S[: len(drawn.strata)].tolist()) == set(range(len(drawn.strata)))
    half = np.bincount(drawn.stratum_S[:100], minlength=len(drawn.strata))
    for stratum, read in zip(drawn.strata, half.tolist(), strict=True):
        assert abs(read - stratum.drawn / 2) <= 3


def test_small_strata_give_all_and_the_rest_goes_to_others() -> None:
    drawn = allocate(np.array([3, 1, 1000]), np.array([0.5, 0.5, 0.001]), 100)
    assert drawn.tolist() == [2, 1, 97]
    assert allocate(np.array([3, 1, 10]), np.array([0.5, 0.5, 0.1]), 100).tolist() == [3, 1, 10]
    assert draw([], np.array([]), 5, 1).strata == ()
