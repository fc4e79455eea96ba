import math
import random
from collections import Counter

import pytest

from jobs.pipeline.drift import measure_novelty_shift, measure_shift
from jobs.tables.receipts import NO_NUMBER, novelty_bin


def test_index_is_that_of_its_formula() -> None:
    shift = measure_shift({"a": 300, "b": 700}, {"a": 5000, "b": 5000})
    by_hand = (0.3 - 0.5) * math.log(0.3 / 0.5) + (0.7 - 0.5) * math.log(0.7 / 0.5)
    assert shift.psi == pytest.approx(by_hand, rel=0.01)  # half a count is added to each
    assert not shift.exceeds(0.25)
    assert shift.exceeds(0.1)


def test_new_category_is_a_shift_and_no_infinity() -> None:
    shift = measure_shift({"new": 400}, {"a": 5000, "b": 5000})
    assert 1 < shift.psi < 100
    assert shift.exceeds(0.25)


def test_rare_categories_are_one() -> None:
    before = {"common": 10_000} | {f"rare-{n}": 10 for n in range(50)}
    now = {"common": 1000, "rare-7": 50}
    assert measure_shift(now, before).psi < 0.01


@pytest.mark.parametrize("size", [20, 200, 2000])
def test_chance_alone_seldom_alarms(size: int) -> None:
    """Of 200 runs without a shift, one in a thousand may be called one."""
    drawn = random.Random(size)
    names = [f"implant-{n}" for n in range(12)]
    alarms = 0
    for _ in range(200):
        before = Counter(drawn.choices(names, k=3000))
        alarms += measure_shift(Counter(drawn.choices(names, k=size)), before).exceeds(0)
    assert alarms <= 3  # Poisson of mean 0.2: more has a probability of 6e-5


def test_novelty_is_compared_in_tenths_of_what_was() -> None:
    drawn = random.Random(1)

    def histogram(centre: float, size: int) -> Counter[int]:
        return Counter(novelty_bin(drawn.gauss(centre, 10)) for _ in range(size))

    before = histogram(100, 5000)
    assert not measure_novelty_shift(histogram(100, 500), before).exceeds(0.25)
    assert measure_novelty_shift(histogram(115, 500), before).exceeds(0.25)
    assert measure_novelty_shift(histogram(85, 500), before).exceeds(0.25)


def test_bins_are_ordered_for_scores_of_either_sign() -> None:
    scores = [-300.0, -3.0, 0.0, 0.2, 3.0, 10.0, 12.0, 300.0, 1e9]
    bins = [novelty_bin(score) for score in scores]
    assert bins == sorted(set(bins))
    assert novelty_bin(100.0) == novelty_bin(101.0)
    assert novelty_bin(math.inf) == novelty_bin(math.nan) == NO_NUMBER
