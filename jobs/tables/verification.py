"""Is every published row still whole and accounted for? Reads only.

What is compared: the tables' logs with their checksums, the files that the table `predictions`
names, the units that the table `archives` names, the bytes and rows of the files themselves, and
the chain of the audit trail.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from implant_model import storage
from implant_model.errors import Outcome, StorageError
from jobs.tables import delta
from jobs.tables.checksums import check_checksums
from jobs.tables.receipts import Unit
from jobs.tables.schema import PREDICTIONS, is_shared
from jobs.tables.shared_files import SharedFiles
from jobs.tables.state.hash_index import Ints
from jobs.tables.state.rows_elsewhere import Members, RowsElsewhere
from jobs.tables.trail import check_trail
from jobs.tables.unit_files import FileRows

Row = Mapping[str, Any]


@dataclass(frozen=True)
class VerifyReport:
    """What was checked and what was found wrong, a sentence each."""

    archives: int
    files: int
    rows: int
    findings: tuple[str, ...]


ROWS_AT_ONCE: Final = 1 << 16
"""Of `archives`, as Python's objects."""


def verify_output(output: str) -> VerifyReport:
    """Check the tables of an output against each other and against every data file.

    The table `archives` is gone through twice, so that memory grows by some bytes for each archive.

    Args:
        output: Normalised URI.

    Raises:
        UsageError: There are no tables.
        StorageError: A table cannot be read although its log is as it was recorded.
    """
    checksums = check_checksums(output)
    if checksums.damaged:  # then no row can be trusted, nor its columns
        return VerifyReport(0, 0, 0, (*checksums.damaged, *checksums.unrecorded))
    archives, models = _open_tables(output)
    named = _Named()
    for batch in delta.row_batches(archives, _NAMING, ROWS_AT_ONCE):
        named.add(batch)
    elsewhere = _read_elsewhere(output, {p: m for p, m in models.items() if p not in named.paths})
    found = _Found(named, models, elsewhere, _Opened(output))
    for batch in delta.row_batches(archives, None, ROWS_AT_ONCE):
        found.check(batch.to_pylist())
    findings = [*found.findings(), *check_trail(output, named.runs)]
    once = dict.fromkeys([*findings, *checksums.unrecorded])  # archives share files
    num_rows = len(elsewhere) + found.num_rows
    return VerifyReport(named.num_archives, len(models), num_rows, tuple(once))


def _open_tables(output: str) -> tuple[delta.Table, dict[str, str]]:
    """Return the table `archives`, and the model of each file of `predictions` by its path."""
    predictions, archives = delta.open_tables(output)
    files = delta.file_columns(predictions)
    paths, models = files["path"].to_pylist(), files["partition.model"].to_pylist()
    return archives, dict(zip(paths, models, strict=True))


_NAMING: Final = ["model", "archive", "archive_version", "units", "run", "started_at"]


class _Named:
    """What all rows of `archives` name.

    Attributes:
        num_archives: Rows.
        paths: Files of units, and how often each is named.
        runs: When the last archive of each run was begun.
    """

    def __init__(self) -> None:
        self.num_archives = 0
        self.paths: Counter[str] = Counter()
        self.runs: dict[str, datetime] = {}
        self._hashes: list[Ints] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in some rows, with the columns `_NAMING`."""
        self.num_archives += batch.num_rows
        paths = pc.struct_field(pc.list_flatten(batch["units"]), "path")
        for pair in pc.value_counts(paths).to_pylist():
            self.paths[pair["values"]] += pair["counts"]
        keys = zip(*(batch[name].to_pylist() for name in _NAMING[:3]), strict=True)
        self._hashes.append(np.fromiter(map(hash, keys), np.int64))
        begun = pa.Table.from_batches([batch]).group_by("run").aggregate([("started_at", "max")])
        for row in begun.to_pylist():
            before = self.runs.setdefault(row["run"], row["started_at_max"])
            self.runs[row["run"]] = max(before, row["started_at_max"])

    def named_twice(self) -> frozenset[int]:
        """Return hashes of the keys of archive versions that may have several rows."""
        hash_N = np.sort(np.concatenate(self._hashes or [np.empty(0, np.int64)]))
        return frozenset(hash_N[1:][hash_N[1:] == hash_N[:-1]].tolist())


def _read_elsewhere(output: str, models: Mapping[str, str]) -> RowsElsewhere:
    """Read which rows lie in files that no row of `archives` names, as other tools make them."""
    shared = SharedFiles(storage.join(output, PREDICTIONS))
    found = RowsElsewhere()
    for path, model in models.items():
        columns = ["archive", "archive_version", "member_index"]
        found.add(path, model, shared.read(path, columns))
    return found


class _Found:
    """What is wrong with the rows of `archives` and the files that they name.

    Args:
        named: What all of them name.
        models: Of the files of `predictions`, by their paths.
        elsewhere: Rows in files that none of them names.
        opened: Reads files.

    Attributes:
        num_rows: Of `predictions`, in files that were named.
    """

    def __init__(
        self, named: _Named, models: Mapping[str, str], elsewhere: RowsElsewhere, opened: "_Opened"
    ) -> None:
        self.num_rows = 0
        self._models = models
        self._elsewhere = elsewhere
        self._opened = opened
        self._twice = named.named_twice()
        self._keys: Counter[tuple[str, str, str]] = Counter()
        self._sums: list[str] = []
        self._accounts = [
            f"{PREDICTIONS}/{path}: {count} rows of the table archives name it."
            for path, count in named.paths.items()
            if count > 1 and not is_shared(path)
        ]
        self._files: list[str] = []

    def check(self, rows: Sequence[Row]) -> None:
        """Check some rows; those that share files are best given together."""
        keys = ((row["model"], row["archive"], row["archive_version"]) for row in rows)
        self._keys.update(key for key in keys if hash(key) in self._twice)
        self._sums += _check_sums(rows)
        self._accounts += self._check_units(rows)
        for row in sorted(rows, key=lambda row: row["units"][0]["path"] if row["units"] else ""):
            for unit in row["units"]:
                if unit["path"] in self._models:
                    self.num_rows += unit["members"]
            self._files += _check_files(row, self._models, self._opened)

    def findings(self) -> Iterator[str]:
        """Yield a sentence for each finding, when all rows were checked."""
        for (_, archive, version), count in self._keys.items():
            if count > 1:
                yield f"archives: {archive!r} version {version} has {count} rows; one is expected."
        yield from self._sums
        yield from self._accounts
        for path in self._elsewhere.untaken():
            yield (
                f"{PREDICTIONS}/{path}: no row of the table archives names it; running classify "
                "again adds the row of an archive that was cut off between the two tables."
            )
        yield from self._files

    def _check_units(self, rows: Sequence[Row]) -> Iterator[str]:
        """Yield that a unit has no file, nor its rows elsewhere, each once."""
        lost = [
            (row, unit) for row in rows for unit in row["units"] if unit["path"] not in self._models
        ]
        wanted = [
            Members(
                *(row["model"], row["archive"], row["archive_version"]),
                *(unit["first_member"], unit["members"]),
            )
            for row, unit in lost
        ]
        for (_, unit), is_there in zip(lost, self._elsewhere.take(wanted), strict=True):
            if not is_there:
                path = f"{PREDICTIONS}/{unit['path']}"
                yield f"{path}: the table archives names it, the table predictions not."


def _check_sums(rows: Sequence[Row]) -> Iterator[str]:
    """Sum within each row of `archives`."""
    for row in rows:
        in_units = sum(unit["members"] for unit in row["units"])
        in_outcomes = sum(row[str(outcome)] for outcome in Outcome)
        if not row["members"] == in_units == in_outcomes:
            yield (
                f"archives: {row['archive']!r} has {row['members']} members, {in_units} in its "
                f"units and {in_outcomes} in its outcomes."
            )


def _check_files(row: Row, models: Mapping[str, str], opened: "_Opened") -> Iterator[str]:
    """Yield the bytes and the rows of one archive's files."""
    reasons: Counter[str] = Counter()
    first, is_read = 0, True
    for unit in row["units"]:
        where = f"{PREDICTIONS}/{unit['path']}"
        if unit["path"] not in models:
            continue
        if unit["first_member"] != first:
            yield f"{where}: begins at member {unit['first_member']}; {first} is expected."
        first = unit["first_member"] + unit["members"]
        try:
            reasons.update(filter(None, _read_unit(opened, unit, row)))
        except (StorageError, pa.ArrowException, OSError) as error:
            yield f"{where}: {error}"
            is_read = False
    counted = {pair["reason"]: pair["members"] for pair in row["reasons"]}
    if is_read and first == row["members"] and counted != dict(reasons):
        yield f"archives: the reasons of {row['archive']!r} are not those of its rows."


class _Opened:
    """The files of predictions, the last one kept: archives that share a file come in turn."""

    def __init__(self, output: str) -> None:
        self._output = output
        self._last: tuple[str, str, FileRows] | None = None

    def read(self, path: str, sha256: str) -> FileRows:
        """Return the rows of a file.

        Raises:
            StorageError: It is not there, or is not the one that was published.
            ArrowException: It is no Parquet file.
        """
        if self._last is None or self._last[:2] != (path, sha256):
            data = storage.read_bytes(storage.join(self._output, PREDICTIONS, path))
            if hashlib.sha256(data).hexdigest() != sha256:
                raise StorageError("its bytes are not those that were published (SHA-256 differs).")
            table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
            self._last = path, sha256, FileRows(table)
        return self._last[2]


def _read_unit(opened: _Opened, unit: Row, row: Row) -> list[str | None]:
    """Return the reasons of a unit's rows, which have been checked."""
    wanted = Unit(
        position=0,
        archive=row["archive"],
        version=row["archive_version"],
        first_member=unit["first_member"],
        members=unit["members"],
        num_bytes=0,
        path=unit["path"],
    )
    rows = opened.read(unit["path"], unit["sha256"])
    return rows.reasons_of(wanted, is_shared=is_shared(unit["path"]))
