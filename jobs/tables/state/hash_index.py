"""Numbers by name, for millions of names: 16 bytes each, and names can be added.

A name is known by 64 bits of its hash, so what is found may, once in a long while, be another
name's: who asks compares the names, or bears with one too many.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]
_AT_ONCE = 1 << 16


def hash_names(names: Iterable[str]) -> Ints:
    """Return 64 bits of each name, the same within one process alone."""
    return np.fromiter(map(hash, names), np.int64)


def hash_column(names: pa.ChunkedArray) -> Ints:
    """Return `hash_names` of a column, without a Python string for each at the same time."""
    found = np.empty(len(names), np.int64)
    for start in range(0, len(names), _AT_ONCE):
        part = names.slice(start, _AT_ONCE).to_pylist()
        found[start : start + len(part)] = hash_names(part)
    return found


class HashIndex:
    """A map from names to numbers, several a name.

    Kept as sorted runs of which each is at least twice as long as the next, so that adding costs a
    few copies of each pair, and looking up a few searches.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[Ints, Ints]] = []

    def add(self, hash_N: Ints, number_N: Ints) -> None:
        """Add pairs of a name's hash and a number."""
        if not len(hash_N):
            return
        run = hash_N, number_N
        while self._runs and len(self._runs[-1][0]) < 2 * len(run[0]):
            before = self._runs.pop()
            run = np.concatenate((before[0], run[0])), np.concatenate((before[1], run[1]))
        order = np.argsort(run[0], kind="stable")
        self._runs.append((run[0][order], run[1][order]))

    def find(self, hash_K: Ints) -> tuple[Ints, Ints]:
        """Return the pairs of a position in `hash_K` and a number, in order of positions.

        The numbers of one name come in the order in which they were added.
        """
        positions, numbers = [], []
        for run_hash, run_number in self._runs:
            first_K = np.searchsorted(run_hash, hash_K, "left")
            count_K = np.searchsorted(run_hash, hash_K, "right") - first_K
            position = np.repeat(np.arange(len(hash_K)), count_K)
            within = np.arange(len(position)) - np.repeat(np.cumsum(count_K) - count_K, count_K)
            positions.append(position)
            numbers.append(run_number[first_K[position] + within])
        if not positions:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        position_M, number_M = np.concatenate(positions), np.concatenate(numbers)
        order = np.argsort(position_M, kind="stable")
        return position_M[order], number_M[order]
