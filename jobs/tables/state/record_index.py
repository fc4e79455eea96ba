"""What the table `archives` holds under one model, as columns: ten million rows are 2 GB.

A plan asks for each listed object by name and version, a batch at a time. Names are found by their
64-bit hashes, which are sorted, and then compared to the letter.
"""

import copy
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from implant_model.decode.version import DECODE_VERSION
from implant_model.errors import ArchiveReason, ArchiveStatus, Outcome
from jobs.tables.loose_names import any_named_as_it_is, any_pseudonym
from jobs.tables.records import ArchiveRecord
from jobs.tables.state.hash_index import HashIndex, Ints, hash_column, hash_names

Flags = npt.NDArray[np.bool_]
_OUTCOMES: Final = tuple(map(str, Outcome))
_WORD: Final = pa.dictionary(pa.int8(), pa.string())
_REASONS: Final = pa.list_(pa.struct([("reason", pa.string()), ("members", pa.int64())]))
RECORD: Final = pa.schema(
    [
        pa.field("archive", pa.large_string()),
        pa.field("archive_version", pa.large_string()),
        pa.field("source", pa.large_string()),
        pa.field("status", _WORD),
        pa.field("reason", _WORD),
        pa.field("attempt", pa.int32()),
        pa.field("members", pa.int64()),
        *(pa.field(outcome, pa.int32()) for outcome in _OUTCOMES),
        pa.field("reasons", _REASONS),
        pa.field("decode_version", pa.int32()),
        pa.field("has_rows", pa.bool_()),
    ]
)
"""One of `ArchiveRecord`."""


class Records(Mapping[str, Mapping[str, ArchiveRecord]]):
    """The rows, by archive and then by version.

    Args:
        rows: Of schema `RECORD`, N of them.
        key_ids: Of keys.

    Attributes:
        rows: The same, each column in one piece.
        hash_N: `hash_names` of the archives.
        any_pseudonym: Whether an archive is a loose radiograph under a pseudonym.
        any_named_as_it_is: Whether one is a loose radiograph under its own name.
        key_ids: Of the keys that pseudonyms of these rows were made by.
    """

    def __init__(self, rows: pa.Table, key_ids: Iterable[str] = ()) -> None:
        self.key_ids = frozenset(key_ids)
        columns = [_whole(column) for column in rows.columns]
        self.rows = pa.Table.from_arrays(columns, schema=RECORD)
        names = self.rows["archive"]
        self.hash_N = hash_column(names)
        self._by_name = HashIndex()
        self._by_name.add(self.hash_N, np.arange(len(names)))
        self.any_pseudonym = any_pseudonym(names)
        self.any_named_as_it_is = any_named_as_it_is(names)

    def with_rows(self, has_rows_N: Flags) -> "Records":
        """Return the same records with another column `has_rows`."""
        other = copy.copy(self)
        place = RECORD.get_field_index("has_rows")
        other.rows = self.rows.set_column(place, RECORD.field(place), pa.array(has_rows_N))
        return other

    @classmethod
    def of(cls, records: Iterable[ArchiveRecord] = ()) -> "Records":
        """Return the records as columns."""
        rows = [_row(record) for record in records]
        return cls(pa.Table.from_pylist(rows, schema=RECORD))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[str]:
        return iter(pc.unique(self.rows["archive"]).to_pylist())

    def __contains__(self, archive: object) -> bool:
        return isinstance(archive, str) and bool(self._places(archive))

    def __getitem__(self, archive: str) -> Mapping[str, ArchiveRecord]:
        places = self._places(archive)
        if not places:
            raise KeyError(archive)
        return {record.version: record for record in map(self.record, places)}

    def record(self, place: int) -> ArchiveRecord:
        """Return one of the rows."""
        row = self.rows.slice(place, 1).to_pylist()[0]
        return ArchiveRecord(
            archive=row["archive"],
            version=row["archive_version"],
            source=row["source"],
            status=ArchiveStatus(row["status"]),
            reason=None if row["reason"] is None else ArchiveReason(row["reason"]),
            attempt=row["attempt"],
            members=row["members"],
            outcomes={outcome: row[outcome] for outcome in _OUTCOMES},
            member_reasons={pair["reason"]: pair["members"] for pair in row["reasons"] or ()},
            has_rows=row["has_rows"],
            decode_version=row["decode_version"],
        )

    def match(self, archives: Sequence[str], versions: Sequence[str]) -> tuple[Ints, Ints]:
        """Look archives up.

        Args:
            archives: Names, K of them.
            versions: Of each.

        Returns:
            The place of the row of each version, and that of the first row of each name, whatever
            its version; -1 where there is none. Each (K,).
        """
        position_M, place_M = self._by_name.find(hash_names(archives))
        row_K, name_K = np.full(len(archives), -1), np.full(len(archives), -1)
        found = self.rows.select(["archive", "archive_version"]).take(pa.array(place_M))
        is_name_M = _equal(found["archive"], archives, position_M)
        is_row_M = is_name_M & _equal(found["archive_version"], versions, position_M)
        row_K[position_M[is_row_M]] = place_M[is_row_M]
        name_K[position_M[is_name_M][::-1]] = place_M[is_name_M][::-1]  # the first one stays
        return row_K, name_K

    def _places(self, archive: str) -> list[int]:
        _, places = self._by_name.find(hash_names([archive]))
        return [
            place for place in places.tolist() if self.rows["archive"][place].as_py() == archive
        ]


class Done:
    """Records that a run need not read again, counted without an object for each.

    Args:
        records: All of them.
        places: Of the rows that are done.
    """

    def __init__(self, records: Records, places: Sequence[int]) -> None:
        self._records = records
        self._places = np.asarray(places, np.int64)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[ArchiveRecord]:
        return map(self._records.record, self._places.tolist())

    @property
    def members(self) -> int:
        """Return members of all of them."""
        return int(pc.sum(self._column("members")).as_py() or 0)

    @property
    def rejected(self) -> int:
        """Return rejected members of all of them."""
        return int(pc.sum(self._column(str(Outcome.REJECTED))).as_py() or 0)

    @property
    def num_incomplete(self) -> int:
        """Return how many are not `complete`."""
        return len(self._incomplete())

    def incomplete(self, most: int) -> list[ArchiveRecord]:
        """Return records that are not `complete`, the first ones."""
        return [self._records.record(place) for place in self._incomplete()[:most].tolist()]

    def _incomplete(self) -> Ints:
        is_other = pc.not_equal(self._column("status"), str(ArchiveStatus.COMPLETE))
        return self._places[_flags(is_other)]

    def _column(self, name: str) -> pa.ChunkedArray:
        return self._records.rows[name].take(pa.array(self._places))

    def older(self) -> Counter[int]:
        """Return how many each older version of the decode has read."""
        counts = pc.value_counts(self._column("decode_version")).to_pylist()
        return Counter({c["values"]: c["counts"] for c in counts if c["values"] < DECODE_VERSION})


def _equal(found: pa.ChunkedArray, wanted: Sequence[str], position_M: Ints) -> Flags:
    named = pa.array(wanted, pa.large_string()).take(pa.array(position_M))
    return _flags(pc.equal(found, named))


def _flags(found: pa.ChunkedArray | pa.Array) -> Flags:
    return np.asarray(found.to_numpy(zero_copy_only=False), np.bool_)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """Return a column in one piece; one that is gets no copy."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _row(record: ArchiveRecord) -> dict[str, Any]:
    row = {field.name: getattr(record, field.name) for field in fields(record)}
    reasons = [{"reason": r, "members": n} for r, n in record.member_reasons.items()]
    outcomes = {outcome: record.outcomes.get(outcome, 0) for outcome in _OUTCOMES}
    return row | outcomes | {"archive_version": record.version, "reasons": reasons}
