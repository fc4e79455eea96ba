"""How far two readers agree beyond chance: Cohen's kappa and Gwet's AC1, with intervals.

kappa = (p - e) / (1 - e) with p the share of cases on which both agree, and e the share that chance
would give: for kappa the product of both readers' own shares (Cohen 1960, 10.1177/
001316446002000104), for AC1 the sum of q (1 - q) / (K - 1) over the K categories with q the mean
share of both (Gwet 2008, 10.1348/000711006X126600). Where almost all cases are of one category,
as records that are right are, kappa falls although readers agree; AC1 does not.

Intervals are of the jackknife over cases (Efron and Tibshirani 1993, chapter 11), with Student's t:
the cases are the sample, the readers are who they are.
"""

import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import numpy.typing as npt

from training.metrics import Figure

Counts = npt.NDArray[np.int64]
"""Cases by the category of the first and of the second reader, K x K."""


def table_of(
    first: Sequence[Hashable], second: Sequence[Hashable], categories: Sequence[Hashable]
) -> Counts:
    """Count cases by both readers' categories; those are in the order of `categories`."""
    places = {category: place for place, category in enumerate(categories)}
    counts = np.zeros((len(places), len(places)), np.int64)
    for one, other in zip(first, second, strict=True):
        counts[places[one], places[other]] += 1
    return counts


def kappa(counts: Counts) -> float:
    """Return Cohen's kappa; NaN where chance alone gives full agreement, or there is no case."""
    total = counts.sum()
    if not total:
        return math.nan
    chance = float((counts.sum(axis=0) * counts.sum(axis=1)).sum() / total**2)
    return math.nan if chance == 1 else (_agreed(counts) - chance) / (1 - chance)


def ac1(counts: Counts) -> float:
    """Return Gwet's AC1 over all categories that could be chosen; NaN where there is no case."""
    total = counts.sum()
    if not total:
        return math.nan
    share_K = (counts.sum(axis=0) + counts.sum(axis=1)) / (2 * total)
    chance = float((share_K * (1 - share_K)).sum() / (len(counts) - 1))
    return (_agreed(counts) - chance) / (1 - chance)


def with_interval(statistic: Callable[[Counts], float], counts: Counts) -> Figure:
    """Return a statistic with its 95 % interval by the jackknife over cases.

    A cell's cases give the same value when one of them is left out, so that K x K values are
    enough. The interval is NaN with fewer than 3 cases, or where leaving one out has no value.
    """
    value, total = statistic(counts), int(counts.sum())
    values, weights = [], []
    for place in zip(*np.nonzero(counts), strict=True):
        less = counts.copy()
        less[place] -= 1
        values.append(statistic(less))
        weights.append(int(counts[place]))
    if total < 3 or math.isnan(value) or any(map(math.isnan, values)):
        return Figure(value, math.nan, math.nan, total)
    mean = np.average(values, weights=weights)
    spread = np.average((np.array(values) - mean) ** 2, weights=weights)
    error = math.sqrt((total - 1) * float(spread))
    half = student_95(total - 1) * error
    return Figure(value, max(value - half, -1.0), min(value + half, 1.0), total)


def student_95(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t, by Cornish and Fisher's expansion.

    It is off by less than 1 % from 3 degrees on; below that it is taken from a table.
    """
    if degrees < 3:
        return {1: 12.706, 2: 4.303}[max(degrees, 1)]
    z = 1.959964
    terms = [
        z,
        (z**3 + z) / (4 * degrees),
        (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2),
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3),
    ]
    return sum(terms)


def _agreed(counts: Counts) -> float:
    return float(np.trace(counts) / counts.sum())
