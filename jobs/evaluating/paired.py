"""Two readers of the same images: who was right where, and McNemar's exact test. Pure functions.

Shapes: N images.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.metrics import Figure, bootstrap, mean_of

Hits = NDArray[np.bool_]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Paired:
    """How two readers of the same images differ.

    Attributes:
        both: Images that both named rightly.
        only_first: That the first alone named rightly.
        only_second: That the second alone did.
        neither: That none did.
        p_value: McNemar's exact test, two-sided: how often a fair coin for each image on which one
            alone is right would part them at least as unevenly.
        difference: First's share of right answers less the second's; interval over groups.
    """

    both: int
    only_first: int
    only_second: int
    neither: int
    p_value: float
    difference: Figure

    @property
    def count(self) -> int:
        """Return images that were compared."""
        return self.both + self.only_first + self.only_second + self.neither


def compare_readers(first_N: Hits, second_N: Hits, groups_N: Indices) -> Paired:
    """Compare two readers.

    Args:
        first_N: Whether the first was right.
        second_N: Whether the second was.
        groups_N: Patient of each image; the test itself takes images as independent.
    """
    only_first = int((first_N & ~second_N).sum())
    only_second = int((second_N & ~first_N).sum())
    gain_N = first_N.astype(np.float64) - second_N.astype(np.float64)
    return Paired(
        int((first_N & second_N).sum()),
        only_first,
        only_second,
        int((~first_N & ~second_N).sum()),
        mcnemar_exact(only_first, only_second),
        bootstrap(mean_of(gain_N), groups_N, span=(-1.0, 1.0)),
    )


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Return the two-sided exact p-value of McNemar's test; 1 where no image parts the two.

    Twice the binomial probability, at one half, of at most the smaller count (McNemar 1947,
    doi:10.1007/BF02295996, with the binomial in place of chi-squared). In whole numbers, so that
    thousands of images neither overflow nor round.
    """
    total, fewer = only_first + only_second, min(only_first, only_second)
    term, tail = 1, 0
    for k in range(fewer + 1):
        tail += term
        term = term * (total - k) // (k + 1)
    power: int = 2**total
    return min(1.0, 2 * tail / power)  # Python divides whole numbers of any size rightly
