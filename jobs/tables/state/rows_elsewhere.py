"""Rows in files that no row of `archives` names, as other tools leave them: 25 bytes for each."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.tables.state.hash_index import HashIndex, Ints


class Members(NamedTuple):
    """Members of one archive version that follow each other."""

    model: str
    archive: str
    version: str
    first: int
    number: int


class RowsElsewhere:
    """Where each member's row lies, and whether an archive has claimed it."""

    def __init__(self) -> None:
        self._index = HashIndex()
        self._paths: list[str] = []
        self._file_N = np.empty(0, np.int32)
        self._is_taken_N = np.empty(0, np.bool_)

    def __len__(self) -> int:
        return len(self._file_N)

    def add(self, path: str, model: str, rows: pa.Table) -> None:
        """Add a file's rows.

        Args:
            path: Of the file.
            model: Its partition.
            rows: With the columns archive, archive_version and member_index.
        """
        columns = (rows[name].to_pylist() for name in ("archive", "archive_version"))
        keys = zip(*columns, rows["member_index"].to_pylist(), strict=True)
        hash_N = _hashes((model, *key) for key in keys)
        self._index.add(hash_N, np.arange(len(self), len(self) + len(hash_N)))
        of_this_file = np.full(len(hash_N), len(self._paths), np.int32)
        self._file_N = np.concatenate((self._file_N, of_this_file))
        self._is_taken_N = np.concatenate((self._is_taken_N, np.zeros(len(hash_N), np.bool_)))
        self._paths.append(path)

    def take(self, wanted: Sequence[Members]) -> npt.NDArray[np.bool_]:
        """Take the rows of some members; return whether each of them had one row that was left."""
        counts = np.array([members.number for members in wanted], np.int64)
        unit_K = np.repeat(np.arange(len(wanted)), counts)
        position_M, number_M = self._index.find(_hashes(_each(wanted)))
        _, first = np.unique(number_M, return_index=True)
        is_new_M = np.zeros(len(number_M), np.bool_)
        is_new_M[first] = True
        is_new_M &= ~self._is_taken_N[number_M]
        self._is_taken_N[number_M] = True
        found_K = np.bincount(position_M[is_new_M], minlength=len(unit_K))
        wrong = np.bincount(unit_K[found_K != 1], minlength=len(wanted))
        return np.asarray(wrong == 0, np.bool_)

    def untaken(self) -> list[str]:
        """Return the paths of the files that hold a row which no archive has claimed, sorted."""
        return sorted(self._paths[n] for n in np.unique(self._file_N[~self._is_taken_N]))


def _each(wanted: Sequence[Members]) -> Iterator[tuple[str, str, str, int]]:
    for model, archive, version, first, number in wanted:
        for index in range(first, first + number):
            yield model, archive, version, index


def _hashes(keys: Iterator[tuple[str, str, str, int]]) -> Ints:
    return np.fromiter(map(hash, keys), np.int64)
