"""Rows of the table `archives`: read into records, and entered in place of those they make void."""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from implant_model import storage
from implant_model.decode.version import DECODE_VERSION, FIRST_DECODE_VERSION
from implant_model.errors import Outcome, StorageError
from jobs.tables import delta
from jobs.tables.delta import Action, Table
from jobs.tables.file_statistics import statistics_of
from jobs.tables.records import ArchiveResult
from jobs.tables.schema import ARCHIVE_ROW, BUNDLE
from jobs.tables.shared_files import SharedFiles
from jobs.tables.state.hash_index import Ints, hash_column, hash_names
from jobs.tables.state.record_index import RECORD, Records
from jobs.tables.state.table_files import File, TableFiles
from jobs.tables.stored_parquet import SMALL_BYTES, read_batches, side_by_side

ROWS_AT_ONCE: Final = 4096
Row = Mapping[str, Any]
_COLUMNS: Final = (
    *("archive", "archive_version", "source", "status", "reason", "attempt", "members"),
    *(*map(str, Outcome), "reasons", "decode_version", "units", "key_id"),
)


@dataclass(frozen=True)
class RunIdentity:
    """What the archives' rows say of the run that wrote them."""

    model: str
    configuration_hash: str
    software_version: str
    run: str
    key_id: str | None = None


class ArchiveRows:
    """The table `archives` under one model.

    Args:
        uri: Of the table.
        table: The same as deltalake has opened it.
        identity: Of this run.

    Raises:
        UsageError: Another tool has made it one that this software does not write.
    """

    def __init__(self, uri: str, table: Table, identity: RunIdentity) -> None:
        self._uri = uri
        self._identity = identity
        self._files = TableFiles(uri, table, identity.model, self._names)

    def read(self, files: TableFiles, shared: SharedFiles) -> Records:
        """Read all rows, and learn from them which file of `predictions` holds what.

        Args:
            files: Of `predictions`, under the same model.
            shared: Of the same table.

        Raises:
            StorageError: A file is damaged or gone, or the store does not answer.
        """
        reading = _Reading(files)
        listed = [self._files.file(number) for number in range(len(self._files.listed))]
        for number, rows in enumerate(side_by_side(self._columns_of, listed)):
            for part in rows:
                hash_N = hash_column(part["archive"])
                self._files.learn(hash_N, np.full(len(hash_N), number))
                reading.add(part)
        return reading.finish(shared)

    def _columns_of(self, file: File) -> Iterable[pa.Table]:
        """Return the columns of a file that `read` needs: of a small one now, else part by part."""
        parts = self._parts(file, _COLUMNS)
        return list(parts) if file["size_bytes"] <= SMALL_BYTES else parts

    def _parts(self, file: File, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        try:
            yield from read_batches(
                storage.join(self._uri, unquote(file["path"])), ARCHIVE_ROW, columns
            )
        except StorageError as error:
            raise StorageError(
                f"The rows of the table {self._uri} cannot be read; jobs.verify names the file "
                f"that is damaged. {error}"
            ) from error

    def _names(self, file: File) -> pa.ChunkedArray:
        return pa.concat_tables(self._parts(file, ["archive"]))["archive"]

    def enter(self, look: Callable[[], list[ArchiveResult]]) -> list[ArchiveResult]:
        """Write the rows of archives, in place of those that they make void, by one commit.

        Args:
            look: Returns the results as they stand; asked before each attempt.

        Returns:
            What it returned last.

        Raises:
            StorageError: The table could not be written.
        """
        standing: list[ArchiveResult] = []

        def work() -> Sequence[Action]:
            standing[:] = look()
            return self._exchange(standing)

        self._files.commit(work)
        return standing

    def _exchange(self, results: Sequence[ArchiveResult]) -> list[Action]:
        """The actions that put in the results' rows and take out those that these make void."""
        names = {result.archive.name for result in results}
        held = [
            _Part(file, pa.concat_tables(self._parts(file)), names)
            for file in self._files.holding(names)
        ]
        rows = [row for part in held for row in part.rows]
        read = {(row["archive"], row["archive_version"]) for row in rows if row["members"]}
        # Of a version that gave rows, a reading that gave none says nothing.
        entering = [r for r in results if r.is_readable or _key(r) not in read]
        new = {result.archive.name: result for result in entering}
        if not new:
            return []
        voided = [part for part in held if part.is_voided_by(new)]
        table = pa.concat_tables(
            [*self._rows(list(new.values())), *(part.kept(new) for part in voided)],
            promote_options="default",
        )
        model = self._identity.model
        path = f"model={model}/part-{uuid.uuid4().hex}.parquet"
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
        data = bytes(sink.getvalue())
        storage.put_if_absent(storage.join(self._uri, path), data)
        return [
            delta.add_action(path, len(data), statistics_of(table), model),
            *(delta.remove_action(part.file, model) for part in voided),
        ]

    def _rows(self, results: Sequence[ArchiveResult]) -> Iterator[pa.Table]:
        """Yield the rows of results; as values of Python one takes 3 kB."""
        for start in range(0, len(results), ROWS_AT_ONCE):
            some = results[start : start + ROWS_AT_ONCE]
            rows = [_row(result, self._identity) for result in some]
            yield pa.Table.from_pylist(rows, schema=ARCHIVE_ROW).drop_columns("model")


class _Part:
    """A file of the table, and its rows of the archives at hand.

    Args:
        file: Of the table.
        table: All that it holds.
        archives: Names.
    """

    def __init__(self, file: File, table: pa.Table, archives: Iterable[str]) -> None:
        self.file = file
        self._table = table
        is_one = pc.is_in(table["archive"], pa.array(sorted(archives), pa.string()))
        self._places = np.flatnonzero(is_one.to_numpy())
        columns = table.select(["archive", "archive_version", "members"])
        self.rows: list[dict[str, Any]] = columns.take(pa.array(self._places)).to_pylist()

    def is_voided_by(self, new: Mapping[str, ArchiveResult]) -> bool:
        """Whether any row of it makes way."""
        return any(_is_voided(row, new) for row in self.rows)

    def kept(self, new: Mapping[str, ArchiveResult]) -> pa.Table:
        """Return the rows that stay."""
        stays_N = np.ones(len(self._table), np.bool_)
        stays_N[self._places] = [not _is_voided(row, new) for row in self.rows]
        return self._table.filter(pa.array(stays_N))


class _Reading:
    """Rows of `archives` on their way into `Records`.

    Args:
        files: Of `predictions`.
    """

    def __init__(self, files: TableFiles) -> None:
        self._files = files
        listed = files.listed
        self._paths = pa.array(listed["path"].to_pylist(), pa.string())
        self._named_F = np.zeros(len(listed), np.int64)  # members that rows say are in each file
        self._parts: list[pa.Table] = []
        self._found: list[Ints] = []
        self._bundles: list[Ints] = []
        self._key_ids: set[str] = set()

    def add(self, part: pa.Table) -> None:
        """Enter some rows."""
        units = part["units"].combine_chunks()
        row_U = pc.list_parent_indices(units).to_numpy()
        unit = pc.list_flatten(units)
        path = pc.struct_field(unit, "path")
        members_U = pc.struct_field(unit, "members").to_numpy(zero_copy_only=False)
        file_U = pc.fill_null(pc.index_in(path, self._paths), -1).to_numpy()
        active_U = file_U >= 0
        found_N, bundle_N = np.zeros(len(part), np.int64), np.full(len(part), -1)
        np.add.at(found_N, row_U[active_U], members_U[active_U])
        np.add.at(self._named_F, file_U[active_U], members_U[active_U])
        shared_U = active_U & pc.match_substring(path, f"/{BUNDLE}").to_numpy(zero_copy_only=False)
        bundle_N[row_U[shared_U]] = file_U[shared_U]
        self._found.append(found_N)
        self._bundles.append(bundle_N)
        self._parts.append(_record_columns(part))
        if "key_id" in part.column_names:
            self._key_ids.update(pc.unique(part["key_id"]).drop_null().to_pylist())

    def finish(self, shared: SharedFiles) -> Records:
        """Return the records, once all rows are entered.

        Rows in files that no row of `archives` names, as Delta's own maintenance and copies leave
        them, count as well.
        """
        records = Records(self._whole_columns(), self._key_ids)
        found_N = np.concatenate([np.empty(0, np.int64), *self._found])
        members_N = records.rows["members"].to_numpy()
        rows_F = self._rows_of_files()
        for number in np.flatnonzero(self._named_F == 0).tolist():
            np.add.at(found_N, *self._count(number, records, shared))
        missing_N = found_N < members_N
        if missing_N.any():  # copied with others into a file that is named for these
            for number in np.flatnonzero((self._named_F > 0) & (self._named_F != rows_F)).tolist():
                place_M, count_M = self._count(number, records, shared)
                is_missing = missing_N[place_M]
                np.add.at(found_N, place_M[is_missing], count_M[is_missing])
        bundle_N = np.concatenate([np.empty(0, np.int64), *self._bundles])
        whole_N = bundle_N >= 0
        whole_N[whole_N] = (self._named_F == rows_F)[bundle_N[whole_N]]
        self._files.learn(records.hash_N[whole_N], bundle_N[whole_N])
        self._files.learn_the_rest()
        return records.with_rows(found_N == members_N)

    def _whole_columns(self) -> pa.Table:
        """Return all rows, each column in one piece, and let the parts go: they are gigabytes."""
        columns = [
            [chunk for part in self._parts for chunk in part.column(name).chunks]
            for name in RECORD.names
        ]
        self._parts.clear()
        whole = []
        for field in RECORD:
            column = pa.chunked_array(columns.pop(0), field.type)
            whole.append(column.unify_dictionaries().combine_chunks())
            del column
        return pa.Table.from_arrays(whole, schema=RECORD)

    def _rows_of_files(self) -> Ints:
        if "num_records" not in self._files.listed.column_names:
            return np.full(len(self._named_F), -1)
        rows = pc.fill_null(self._files.listed["num_records"], -1)
        return np.asarray(rows.to_numpy(), np.int64)

    def _count(self, number: int, records: Records, shared: SharedFiles) -> tuple[Ints, Ints]:
        """Return the places of records of which a file has rows, and how many."""
        file = self._files.file(number)
        counts = shared.count(file)
        names = counts["archive"].to_pylist()
        self._files.learn(hash_names(names), np.full(len(names), number))
        place_M, _ = records.match(names, counts["archive_version"].to_pylist())
        return place_M[place_M >= 0], counts["count_all"].to_numpy()[place_M >= 0]


def _record_columns(part: pa.Table) -> pa.Table:
    """Return rows of `archives` in schema `RECORD`; older ones lack the version of the decode."""
    version = FIRST_DECODE_VERSION
    if "decode_version" in part.column_names:
        version = pc.fill_null(part["decode_version"], FIRST_DECODE_VERSION)
    else:
        version = pa.array(np.full(len(part), FIRST_DECODE_VERSION))
    columns = {name: part[name] for name in part.column_names if name in RECORD.names}
    columns |= {"decode_version": version, "has_rows": pa.array(np.zeros(len(part), np.bool_))}
    return pa.table({name: columns[name] for name in RECORD.names}).cast(RECORD)


def _key(result: ArchiveResult) -> tuple[str, str]:
    return result.archive.name, result.archive.known.version


def _is_voided(old: Row, new: Mapping[str, ArchiveResult]) -> bool:
    return old["archive"] in new and _voids(new[old["archive"]], old)


def _voids(new: ArchiveResult, old: Row) -> bool:
    """Return whether a result takes the place of an old row of `archives`.

    A reading that succeeded takes the place of all versions, one that did not only of its own.
    """
    return new.is_readable or new.archive.known.version == old["archive_version"]


def _row(result: ArchiveResult, identity: RunIdentity) -> dict[str, Any]:
    archive = result.archive
    return {
        "archive": archive.name,
        "archive_version": archive.known.version,
        "source": archive.known.uri,
        "bytes": archive.known.size,
        "members": result.members,
        **{str(outcome): result.counts.outcomes[outcome] for outcome in Outcome},
        "reasons": [{"reason": r, "members": n} for r, n in sorted(result.counts.reasons.items())],
        "status": str(result.status),
        "reason": None if result.reason is None else str(result.reason),
        "units": [u.row() for u in sorted(result.units, key=lambda u: u.first_member)],
        "attempt": archive.attempt,
        "started_at": result.started_at,
        "finished_at": result.finished_at,
        "model": identity.model,
        "run": identity.run,
        "software_version": identity.software_version,
        "configuration_hash": identity.configuration_hash,
        "decode_version": DECODE_VERSION,
        "key_id": identity.key_id,
    }
