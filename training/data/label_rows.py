"""Rows of a labels file, held as columns: some 60 bytes a row, of a million as of a dozen.

A row is a `Label` where it is asked for, by its archive and member. Rows of an archive that are
asked for one after the other are found by a dictionary of that archive's members.
"""

from abc import abstractmethod
from array import array
from collections.abc import ItemsView, Iterator, Mapping, Sequence, ValuesView
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.data.set_columns import CodedTexts, Rows, TextCodes, Texts

Value = TypeVar("Value", covariant=True)
AT_ONCE: Final = 1 << 14
"""Rows of which there are objects of Python at a time."""


@dataclass(frozen=True, slots=True)
class Label:
    """One row of a labels file.

    Attributes:
        archive: As the file has it.
        member: Name inside the archive, "" for a loose radiograph.
        label: Name of the implant.
        patient: Whose image it is; never logged.
        row: Its number in the file, from 1, the header not counted.
    """

    archive: str
    member: str
    label: str
    patient: str | None
    row: int

    def __repr__(self) -> str:
        return f"Label(row={self.row})"


@dataclass(frozen=True, slots=True)
class MaskRow:
    """What one row of a labels file states of a mask; see `training.masks.table_masks`.

    Attributes:
        archive: As the file has it.
        member: Name inside the archive, "" for a loose radiograph.
        row: Its number in the file, from 1.
        mask: Path of the mask as the file has it; "" for none.
        is_valid: As the file has it; None where it has no such column.
    """

    archive: str
    member: str
    row: int
    mask: str
    is_valid: str | None

    def __repr__(self) -> str:
        return f"MaskRow(row={self.row})"


class _Pairs(Mapping[str, Value]):
    """A mapping whose pairs come one after the other without being looked up."""

    __slots__ = ()

    @abstractmethod
    def pairs(self) -> Iterator[tuple[str, Value]]:
        """Yield keys with their values, in their order."""

    def __iter__(self) -> Iterator[str]:
        return (key for key, _ in self.pairs())

    def items(self) -> ItemsView[str, Value]:
        """Return keys with their values."""
        return _Items(self)

    def values(self) -> ValuesView[Value]:
        """Return the values."""
        return _Values(self)


class _Items(ItemsView[str, Value]):
    _mapping: _Pairs[Value]

    def __iter__(self) -> Iterator[tuple[str, Value]]:
        return self._mapping.pairs()


class _Values(ValuesView[Value]):
    _mapping: _Pairs[Value]

    def __iter__(self) -> Iterator[Value]:
        return (value for _, value in self._mapping.pairs())


class LabelRows(_Pairs[Mapping[str, Label]]):
    """All rows, by archive in the order of their first rows.

    Args:
        archives: Different ones, as the file has them.
        archive_N: Of each row, int32, a position in `archives`.
        members: Of each row.
        labels: Of each row.
        patients: Of each row; None where unknown.
    """

    def __init__(
        self,
        archives: Sequence[str],
        archive_N: NDArray[np.int32],
        members: pa.ChunkedArray,
        labels: CodedTexts,
        patients: pa.ChunkedArray,
    ) -> None:
        self.archives, self.archive_N, self.members = archives, archive_N, members
        self.labels, self.patients = labels, patients
        self._row_N = np.argsort(archive_N, kind="stable").astype(np.int32)
        counts = np.bincount(archive_N, minlength=len(archives))
        self._ends_A = np.concatenate([[0], np.cumsum(counts)])
        self._numbers: dict[str, int] = {}
        self._last: tuple[int, dict[str, int]] = (-1, {})

    def __len__(self) -> int:
        return len(self.archives)

    def __getitem__(self, archive: str) -> Mapping[str, Label]:
        if not self._numbers:
            self._numbers = {name: number for number, name in enumerate(self.archives)}
        return _ArchiveRows(self, self._numbers[archive])

    def __iter__(self) -> Iterator[str]:
        return iter(self.archives)

    def pairs(self) -> Iterator[tuple[str, Mapping[str, Label]]]:
        """Yield archives with their rows by member."""
        return ((name, _ArchiveRows(self, at)) for at, name in enumerate(self.archives))

    def rows_of(self, number: int) -> NDArray[np.int32]:
        """Return which rows an archive has, ascending, from 0."""
        return self._row_N[self._ends_A[number] : self._ends_A[number + 1]]

    def row(self, at: int) -> Label:
        """Return one row, by its place in the file from 0."""
        archive, patient = self.archives[int(self.archive_N[at])], self.patients[at].as_py()
        return Label(archive, self.members[at].as_py(), self.labels[at], patient, at + 1)

    def place_of(self, number: int, member: str) -> int:
        """Return the row of an archive's member, from 0.

        Raises:
            KeyError: There is none.
        """
        if self._last[0] != number:
            rows = self.rows_of(number).tolist()
            self._last = number, {self.members[at].as_py(): at for at in rows}
        return self._last[1][member]


class _ArchiveRows(_Pairs[Label]):
    """The rows of one archive, by member."""

    __slots__ = ("_number", "_rows")

    def __init__(self, rows: LabelRows, number: int) -> None:
        self._rows, self._number = rows, number

    def __len__(self) -> int:
        return len(self._rows.rows_of(self._number))

    def __getitem__(self, member: str) -> Label:
        return self._rows.row(self._rows.place_of(self._number, member))

    def __iter__(self) -> Iterator[str]:
        rows = self._rows.rows_of(self._number).tolist()
        return (self._rows.members[at].as_py() for at in rows)

    def pairs(self) -> Iterator[tuple[str, Label]]:
        """Yield members with their rows."""
        for at in self._rows.rows_of(self._number).tolist():
            label = self._rows.row(at)
            yield label.member, label


class LabelColumns:
    """The columns as they grow, row by row."""

    def __init__(self) -> None:
        self._archives: dict[str, int] = {}
        self._archive_N, self._key_N = array("i"), array("q")
        self._labels = TextCodes()
        self._texts = {name: _Column() for name in ("member", "patient", "mask", "is_valid")}
        self._mask_N = array("i")

    def __len__(self) -> int:
        return len(self._archive_N)

    def add(self, archive: str, member: str, label: str, patient: str | None) -> None:
        """Add one row."""
        number = self._archives.setdefault(archive, len(self._archives))
        self._archive_N.append(number)
        self._key_N.append(hash((number, member)))
        self._labels.add(label)
        self._texts["member"].add(member)
        self._texts["patient"].add(patient)

    def add_mask(self, mask: str, is_valid: str | None) -> None:
        """Add what the row that was added last states of a mask."""
        self._mask_N.append(len(self) - 1)
        self._texts["mask"].add(mask)
        self._texts["is_valid"].add(is_valid)

    def first_twice(self) -> tuple[int, int] | None:
        """Return the first row that names an image again and the one that did before, from 1."""
        key_N, members = np.array(self._key_N, np.int64), self._texts["member"].whole()
        order_N = np.argsort(key_N, kind="stable")
        is_same_N = np.diff(key_N[order_N]) == 0
        alike: dict[int, list[int]] = {}
        for at in np.flatnonzero(is_same_N).tolist():
            rows = alike.setdefault(int(key_N[order_N[at]]), [int(order_N[at])])
            rows.append(int(order_N[at + 1]))
        found = []
        for rows in alike.values():
            first: dict[tuple[int, str], int] = {}
            for row in rows:
                place = self._archive_N[row], members[row].as_py()
                if first.setdefault(place, row) != row:
                    found.append((row + 1, first[place] + 1))
        return min(found, default=None)

    def rows(self) -> LabelRows:
        """Return all rows."""
        archives = Texts(self._archives)
        members, patients = (self._texts[name].whole() for name in ("member", "patient"))
        archive_N = np.array(self._archive_N, np.int32)
        return LabelRows(archives, archive_N, members, self._labels.coded(), patients)

    def masks(self, rows: LabelRows) -> Rows[MaskRow]:
        """Return what rows state of masks."""
        masks, are_valid = (self._texts[name].whole() for name in ("mask", "is_valid"))
        mask_N = np.array(self._mask_N, np.int32)

        def mask_row(at: int) -> MaskRow:
            here = rows.row(int(mask_N[at]))
            texts = masks[at].as_py(), are_valid[at].as_py()
            return MaskRow(here.archive, here.member, here.row, *texts)

        return Rows(len(mask_N), mask_row)


class _Column:
    """A column of texts as it grows."""

    def __init__(self) -> None:
        self._parts: list[pa.Array] = []
        self._waiting: list[str | None] = []

    def add(self, text: str | None) -> None:
        self._waiting.append(text)
        if len(self._waiting) >= AT_ONCE:
            self._put()

    def _put(self) -> None:
        self._parts.append(pa.array(self._waiting, pa.string()))
        self._waiting.clear()

    def whole(self) -> pa.ChunkedArray:
        """Return it as it is now."""
        self._put()
        return pa.chunked_array(self._parts, pa.string())
