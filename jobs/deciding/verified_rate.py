"""The rate of errors of a registry by records that people have looked at.

Two estimates of the same rate, from a stratified sample:

- `design`: the mean over strata of the share of wrong ones among the verified records of each,
  weighted by size (Horvitz and Thompson; Cochran 1977, chapter 5). It assumes nothing of the model.
- `powered`: the same with the audit's own probabilities as control variate. Their mean over all
  records of a stratum is known, so what the sample's mean departs from it is taken off, times a
  coefficient that is fitted on the verified records and 0 where it would not help (prediction-
  powered inference, PPI++, arXiv 2311.01453, stratified as in 2406.04291). It is right whatever the
  probabilities are worth, and narrower if they are worth something.

The interval of `design` is built from those of the strata by the recovery of variance estimates
(Zou and Donner 2008, 10.1002/sim.3095): the squared distances of the strata's lower limits from
their shares, times the squared weights, add up to that of the sum's lower limit, and so do those of
the upper limits. The strata's limits are mid-p. It needs no normal approximation, and a stratum
without a wrong one still adds what is not known of it, 3 / n. Such a stratum's limit cannot be
missed when its errors are rarer yet, since its records then show none in nearly every sample: no
interval that is not drawn by lot covers 95 % there (Brown, Cai and DasGupta 2001,
10.1214/ss/1009213286). What a stratum was verified of without replacement narrows it by the finite
population correction. That of `powered` has the same shape about its value, narrowed by the ratio
of both standard errors.

Records of the sample that nobody can judge are left out, as if they were missing at random within
their stratum; their number is with the figures.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from training.metrics import Figure

NUM_DRAWS: Final = 20_000
TAIL: Final = 0.025
"""Beyond either limit of an interval."""
MIN_VERIFIED: Final = 30
"""Of a hospital, maker or product that has a figure of its own."""
MIN_FITTED: Final = 5
"""Wrong records, and right ones, from which the coefficient is fitted."""
GOAL: Final = 0.01
"""Half of the interval that 'n more' is about: one point."""
GROUPS: Final = ("hospital", "manufacturer", "product")
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sampled:
    """The verified records of one stratum.

    Attributes:
        weight: Share of all records that are in the stratum.
        records: How many are.
        is_wrong: Of each verified record.
        predicted: The audit's probability that each is wrong.
        mean_predicted: Of all records of the stratum.
    """

    weight: float
    records: int
    is_wrong: npt.NDArray[np.bool_]
    predicted: Floats
    mean_predicted: float

    @property
    def verified(self) -> int:
        """Return how many are verified."""
        return len(self.is_wrong)

    @property
    def unseen(self) -> float:
        """Return the finite population correction."""
        return 1 - self.verified / self.records


@dataclass(frozen=True)
class VerifiedRate:
    """What is known by verified records.

    Attributes:
        design: The rate by the sample alone; NaN while a stratum has no verified record.
        powered: The rate with the audit's probabilities.
        coefficient: Of these; 0 where they do not help.
        verified: Records that were found wrong or right.
        not_judged: Records that were read and cannot be judged.
        drawn: Records of the sample.
        num_more: Records to verify until the interval is one point to each side; None where that
            is not known, 0 where it is reached.
        groups: The rate by hospital, maker and product, where enough are verified.
    """

    design: Figure
    powered: Figure
    coefficient: float
    verified: int
    not_judged: int
    drawn: int
    num_more: int | None
    groups: Mapping[str, Mapping[str, Figure]]

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers for the audit's document."""
        return {
            "design": self.design.to_json(),
            "powered": self.powered.to_json(),
            "coefficient": round(self.coefficient, 6),
            "verified": self.verified,
            "not_judged": self.not_judged,
            "drawn": self.drawn,
            "more_for_one_point": self.num_more,
            "groups": {
                field: {name: figure.to_json() for name, figure in figures.items()}
                for field, figures in self.groups.items()
            },
        }

    @property
    def best(self) -> Figure:
        """Return the narrower of both."""
        return self.powered if self.coefficient else self.design


def estimate(sample: pa.Table, judged: Mapping[int, bool | None]) -> VerifiedRate:
    """Estimate the rate of errors.

    Args:
        sample: As `sample.sample_table` gives it.
        judged: By the record's row whether it is wrong; None where it cannot be judged.
    """
    row_S = sample["row"].to_pylist()
    known_S = np.array([judged.get(row) is not None for row in row_S], bool)
    wrong_S = np.array([bool(judged.get(row)) for row in row_S], bool)
    strata = _strata(sample, known_S, wrong_S)
    design, powered, coefficient = rates(strata)
    verified = int(known_S.sum())
    return VerifiedRate(
        design,
        powered,
        coefficient,
        verified,
        sum(row in judged and judged[row] is None for row in row_S),
        len(row_S),
        _num_more(powered if coefficient else design, verified, strata),
        _groups(sample, known_S, wrong_S, strata),
    )


def rates(strata: list[Sampled]) -> tuple[Figure, Figure, float]:
    """Return the rate by design, the prediction-powered one, and the latter's coefficient.

    Args:
        strata: All of the population's. Those without a verified record give no rate.
    """
    verified = sum(stratum.verified for stratum in strata)
    if not strata or not all(stratum.verified for stratum in strata):
        nothing = Figure(math.nan, 0.0, 1.0, verified)
        return nothing, nothing, 0.0
    value = sum(s.weight * float(s.is_wrong.mean()) for s in strata)
    low, high = recovered(strata)
    design = Figure(value, min(low, value), max(high, value), verified)
    coefficient = fit_coefficient(strata)
    if not coefficient:
        return design, design, 0.0
    shift = sum(
        s.weight * (s.mean_predicted - float(s.predicted.mean())) * coefficient for s in strata
    )
    ratio = min(_error(strata, coefficient) / _error(strata, 0.0), 1.0)
    moved = min(max(value + shift, 0.0), 1.0)
    low, high = moved - ratio * (value - design.low), moved + ratio * (design.high - value)
    return design, Figure(moved, max(low, 0.0), min(high, 1.0), verified), coefficient


def recovered(strata: list[Sampled]) -> tuple[float, float]:
    """Return the 95 % interval of the weighted sum of the strata's shares."""
    value = below = above = 0.0
    for stratum in strata:
        hits, count = int(stratum.is_wrong.sum()), stratum.verified
        low, high = limits(hits, count)
        share, scale = hits / count, stratum.weight**2 * stratum.unseen
        value += stratum.weight * share
        below += scale * (share - low) ** 2
        above += scale * (high - share) ** 2
    return max(value - math.sqrt(below), 0.0), min(value + math.sqrt(above), 1.0)


@lru_cache(maxsize=4096)
def limits(hits: int, count: int) -> tuple[float, float]:
    """Return the mid-p limits of a share, each for 97.5 % (Lancaster 1961).

    Args:
        hits: Records that were found wrong.
        count: Of so many, at least 1.
    """
    steps = np.arange(1, count + 1)
    ways = np.concatenate(([0.0], np.cumsum(np.log((count - steps + 1) / steps))))
    numbers = np.arange(count + 1)

    def above(share: float) -> float:
        """Return the chance of more hits than these, and half of that of as many."""
        logs = ways + numbers * math.log(share) + (count - numbers) * math.log1p(-share)
        chances = np.exp(logs)
        return float(chances[hits + 1 :].sum() + chances[hits] / 2)

    low = _root(above, TAIL) if hits else 0.0
    return low, _root(above, 1 - TAIL) if hits < count else 1.0


def _root(rising: Callable[[float], float], level: float) -> float:
    """Return where a function that rises on 0..1 has a level."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if rising(middle) < level:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def fit_coefficient(strata: list[Sampled]) -> float:
    """Return the coefficient of the predictions that makes the variance least, within 0..1.

    It is common to all strata, which a few errors in each could not fit.
    """
    wrong = sum(int(s.is_wrong.sum()) for s in strata)
    if min(wrong, sum(s.verified for s in strata) - wrong) < MIN_FITTED:
        return 0.0
    shared = spread = 0.0
    for s in strata:
        if s.verified < 2:
            continue
        scale = s.weight**2 * s.unseen / s.verified
        covariance = np.cov(s.is_wrong.astype(np.float64), s.predicted)
        shared += scale * float(covariance[0, 1])
        spread += scale * float(covariance[1, 1])
    return min(max(shared / spread, 0.0), 1.0) if spread > 0 else 0.0


def _error(strata: list[Sampled], coefficient: float) -> float:
    """Return the standard error of the estimate with a coefficient."""
    variance = 0.0
    for s in strata:
        if s.verified > 1:
            rest = s.is_wrong - coefficient * s.predicted
            variance += s.weight**2 * s.unseen * float(rest.var(ddof=1)) / s.verified
    return math.sqrt(max(variance, 1e-18))


def _num_more(rate: Figure, verified: int, strata: list[Sampled]) -> int | None:
    """Return how many more records to verify, dealt as the ones before, for one point each side."""
    if math.isnan(rate.value):
        return None
    half = (rate.high - rate.low) / 2
    if half <= GOAL:
        return 0
    left = sum(stratum.records for stratum in strata) - verified
    return min(math.ceil(verified * ((half / GOAL) ** 2 - 1)), left)


def _strata(
    sample: pa.Table, known_S: npt.NDArray[np.bool_], wrong_S: npt.NDArray[np.bool_]
) -> list[Sampled]:
    names = np.array(sample["stratum"].to_pylist(), dtype=str)
    predicted_S = np.array(
        [np.nan if p is None else p for p in sample["wrong_probability"].to_pylist()], np.float64
    )
    records_S = np.array(sample["stratum_records"].to_pylist(), np.int64)
    mean_S = np.array(sample["stratum_predicted"].to_pylist(), np.float64)
    first = {name: int(np.flatnonzero(names == name)[0]) for name in sorted(set(names.tolist()))}
    total = sum(int(records_S[at]) for at in first.values())
    found = []
    for name, at in first.items():
        is_in = (names == name) & known_S
        mean = float(mean_S[at])
        predicted = np.where(np.isnan(predicted_S[is_in]), mean, predicted_S[is_in])
        records = int(records_S[at])
        found.append(Sampled(records / total, records, wrong_S[is_in], predicted, mean))
    return found


def _groups(
    sample: pa.Table,
    known_S: npt.NDArray[np.bool_],
    wrong_S: npt.NDArray[np.bool_],
    strata: list[Sampled],
) -> dict[str, dict[str, Figure]]:
    """Return the rate of each hospital, maker and product of which enough is verified.

    Ratio of weighted sums; its interval is Clopper and Pearson's with the effective number of
    records that the weights leave (Korn and Graubard 1998), which holds where errors are rare.
    """
    if not strata or not all(stratum.verified for stratum in strata):
        return {}
    names = np.array(sample["stratum"].to_pylist(), dtype=str)
    weight_S = np.zeros(len(names))
    for name, stratum in zip(sorted(set(names.tolist())), strata, strict=True):
        weight_S[(names == name) & known_S] = stratum.records / stratum.verified
    groups: dict[str, dict[str, Figure]] = {}
    for field in GROUPS:
        if field not in sample.column_names:
            continue
        texts = np.array([str(text or "") for text in sample[field].to_pylist()], dtype=str)
        for text in sorted(set(texts[known_S].tolist())):
            is_in = (texts == text) & known_S
            if is_in.sum() >= MIN_VERIFIED and text:
                figure = weighted_share(wrong_S[is_in], weight_S[is_in])
                groups.setdefault(field, {})[text] = figure
    return groups


def weighted_share(is_wrong: npt.NDArray[np.bool_], weights: Floats) -> Figure:
    """Return a weighted share with Korn and Graubard's interval."""
    value = float((weights * is_wrong).sum() / weights.sum())
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    hits = value * effective
    rng = np.random.default_rng(0)
    low = 0.0 if hits <= 0 else _quantile(rng, hits, effective - hits + 1, 0.025)
    high = 1.0 if hits >= effective else _quantile(rng, hits + 1, effective - hits, 0.975)
    return Figure(value, min(low, value), max(high, value), len(is_wrong))


def _quantile(rng: np.random.Generator, first: float, second: float, share: float) -> float:
    return float(np.quantile(rng.beta(first, max(second, 1e-9), NUM_DRAWS), share))
