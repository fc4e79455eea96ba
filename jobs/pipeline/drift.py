"""Whether this run's images are still like those of the last weeks: the population stability index.

PSI = sum over categories of (p - q) ln(p / q), with p the shares of this run and q those before it.
Practice takes 0.1 for a shift to look at and 0.25 for one to act on. Without any shift it is not 0
but about (categories - 1) (1/n + 1/m), and spreads as that times a chi-squared variable does
(Yurdakul 2018, Statistical Properties of the Population Stability Index): of few images it is large
by chance. So a shift counts only if it is also above what chance gives once in a thousand runs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

Key = TypeVar("Key")
Group = TypeVar("Group")

NOVELTY_BINS = 10
RARE_SHARE = 0.01
"""Categories below this share before are taken together: their ratios are noise."""
CHANCE_Z = 3.09
"""Normal quantile of 0.999."""


@dataclass(frozen=True)
class Shift:
    """How far one distribution has moved.

    Attributes:
        psi: Population stability index.
        chance: What it stays below without any shift, 999 times of 1,000.
    """

    psi: float
    chance: float

    def exceeds(self, accepted: float) -> bool:
        """Return whether it is more than is accepted, and more than chance."""
        return self.psi > max(accepted, self.chance)


def measure_shift(now: Mapping[str, int], before: Mapping[str, int]) -> Shift:
    """Compare counts by category.

    Args:
        now: Of this run, not empty.
        before: Of the runs before it, not empty; categories may differ.
    """
    total = sum(before.values())
    common = {name for name, count in before.items() if count >= RARE_SHARE * total}
    groups = {name: name if name in common else "" for name in (*now, *before)}
    return _shift(_gather(now, groups), _gather(before, groups))


def measure_novelty_shift(now: Mapping[int, int], before: Mapping[int, int]) -> Shift:
    """Compare histograms of novelty in tenths of the distribution before.

    Args:
        now: Counts by `receipts.novelty_bin`, not empty.
        before: The same of the runs before.
    """
    total, below, groups = sum(before.values()), 0, {}
    for place in sorted({*now, *before}):
        groups[place] = min(NOVELTY_BINS * below // total, NOVELTY_BINS - 1)
        below += before.get(place, 0)
    return _shift(_gather(now, groups), _gather(before, groups))


def _gather(counts: Mapping[Key, int], groups: Mapping[Key, Group]) -> dict[Group, int]:
    gathered = dict.fromkeys(groups.values(), 0)
    for key, count in counts.items():
        gathered[groups[key]] += count
    return gathered


def _shift(now: Mapping[Group, int], before: Mapping[Group, int]) -> Shift:
    """Return half a count is added to each, so that an empty category is no infinity."""
    size = len(before)
    n, m = sum(now.values()) + size / 2, sum(before.values()) + size / 2
    psi = 0.0
    for group, count in before.items():
        p, q = (now[group] + 0.5) / n, (count + 0.5) / m
        psi += (p - q) * math.log(p / q)
    return Shift(psi, _chi_squared(size - 1) * (1 / n + 1 / m))


def _chi_squared(degrees: int) -> float:
    """The 0.999 quantile by Wilson and Hilferty (1931), 1 % above the table's value at most."""
    if degrees < 1:
        return 0.0
    spread = 2 / (9 * degrees)
    return degrees * (1 - spread + CHANCE_Z * math.sqrt(spread)) ** 3
