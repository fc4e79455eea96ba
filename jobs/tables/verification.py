"""Is every published row still whole and accounted for? Reads only.

What is compared: the tables' logs with their checksums, the files that the table `predictions`
names, the units that the table `archives` names, the bytes and rows of the files themselves, and
the chain of the audit trail.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from implant_model import storage
from implant_model.errors import Outcome, StorageError, UsageError
from jobs.tables import delta
from jobs.tables.checksums import check_checksums
from jobs.tables.receipts import Unit
from jobs.tables.schema import ARCHIVES, PREDICTIONS, is_shared, version_of
from jobs.tables.shared_files import SharedFiles
from jobs.tables.trail import check_trail
from jobs.tables.unit_files import check_unit


@dataclass(frozen=True)
class VerifyReport:
    """What was checked and what was found wrong, a sentence each."""

    archives: int
    files: int
    rows: int
    findings: tuple[str, ...]


def verify_output(output: str) -> VerifyReport:
    """Check the tables of an output against each other and against every data file.

    Args:
        output: Normalised URI.

    Raises:
        UsageError: There are no tables.
        StorageError: A table cannot be read although its log is as it was recorded.
    """
    checksums = check_checksums(output)
    if checksums.damaged:  # then no row can be trusted, nor its columns
        return VerifyReport(0, 0, 0, (*checksums.damaged, *checksums.unrecorded))
    rows, files = _read_tables(output)
    named = {unit["path"] for row in rows for unit in row["units"]}
    elsewhere = _read_elsewhere(output, {path: files[path] for path in files.keys() - named})
    findings = [*_check_archives(rows), *_check_accounts(rows, files, elsewhere)]
    num_rows = sum(part.members.total() for part in elsewhere.values())
    opened = _Opened(output)
    for row in sorted(rows, key=lambda row: row["units"][0]["path"] if row["units"] else ""):
        for unit in row["units"]:
            if unit["path"] in files:
                num_rows += unit["members"]
        findings += _check_files(row, files, opened)
    findings += check_trail(output, rows)
    once = dict.fromkeys([*findings, *checksums.unrecorded])  # archives share files
    return VerifyReport(len(rows), len(files), num_rows, tuple(once))


def _read_tables(output: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the rows of `archives`, and the files of `predictions` by their paths."""
    predictions = delta.open_table(storage.join(output, PREDICTIONS))
    archives = delta.open_table(storage.join(output, ARCHIVES))
    if predictions is None or archives is None:
        raise UsageError(f"{output} holds no tables; name the --output of classify.")
    files = {file["path"]: file for file in delta.active_files(predictions)}
    return delta.read_rows(archives), files


def _check_archives(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Sum within each row of `archives`, and that each archive version has one row."""
    keys = Counter((row["model"], row["archive"], row["archive_version"]) for row in rows)
    for (_, archive, version), count in keys.items():
        if count > 1:
            yield f"archives: {archive!r} version {version} has {count} rows; one is expected."
    for row in rows:
        in_units = sum(unit["members"] for unit in row["units"])
        in_outcomes = sum(row[str(outcome)] for outcome in Outcome)
        if not row["members"] == in_units == in_outcomes:
            yield (
                f"archives: {row['archive']!r} has {row['members']} members, {in_units} in its "
                f"units and {in_outcomes} in its outcomes."
            )


@dataclass
class _Elsewhere:
    """Rows of one archive version in files that no row of `archives` names."""

    members: Counter[int] = field(default_factory=Counter)
    paths: set[str] = field(default_factory=set)


Elsewhere = Mapping[tuple[str, str, str], _Elsewhere]
"""By model, archive and version."""


def _read_elsewhere(output: str, files: Mapping[str, Any]) -> Elsewhere:
    """Read which rows lie in files that no row of `archives` names, as other tools make them."""
    shared = SharedFiles(storage.join(output, PREDICTIONS))
    found: dict[tuple[str, str, str], _Elsewhere] = {}
    for path, file in files.items():
        table = shared.read(path, ["archive", "archive_version", "member_index"])
        for row in table.to_pylist():
            key = file["partition.model"], row["archive"], row["archive_version"]
            part = found.setdefault(key, _Elsewhere())
            part.members[row["member_index"]] += 1
            part.paths.add(path)
    return found


def _check_accounts(
    rows: list[dict[str, Any]], files: Mapping[str, Any], elsewhere: Elsewhere
) -> Iterator[str]:
    """Yield that each file belongs to one archive, and each unit has its file.

    Units that another tool has put together have their rows elsewhere, each once.
    """
    named = Counter(unit["path"] for row in rows for unit in row["units"])
    for path, count in named.items():
        if count > 1 and not is_shared(path):
            yield f"{PREDICTIONS}/{path}: {count} rows of the table archives name it."
    left = {key: Counter(part.members) for key, part in elsewhere.items()}
    for row in rows:
        there = left.get((row["model"], row["archive"], row["archive_version"]), Counter())
        for unit in row["units"]:
            if unit["path"] not in files and not _take(there, unit):
                path = f"{PREDICTIONS}/{unit['path']}"
                yield f"{path}: the table archives names it, the table predictions not."
    unaccounted = {path for key, rest in left.items() if rest for path in elsewhere[key].paths}
    for path in sorted(unaccounted):
        yield (
            f"{PREDICTIONS}/{path}: no row of the table archives names it; running classify again "
            "adds the row of an archive that was cut off between the two tables."
        )


def _take(members: Counter[int], unit: Mapping[str, Any]) -> bool:
    """Take a unit's members out of those found elsewhere; return whether each was there once."""
    wanted = range(unit["first_member"], unit["first_member"] + unit["members"])
    return all([members.pop(index, 0) == 1 for index in wanted])


def _check_files(
    row: Mapping[str, Any], files: Mapping[str, Any], opened: "_Opened"
) -> Iterator[str]:
    """Yield the bytes and the rows of one archive's files."""
    reasons: Counter[str] = Counter()
    first, is_read = 0, True
    for unit in row["units"]:
        where = f"{PREDICTIONS}/{unit['path']}"
        if unit["path"] not in files:
            continue
        if unit["first_member"] != first:
            yield f"{where}: begins at member {unit['first_member']}; {first} is expected."
        first = unit["first_member"] + unit["members"]
        try:
            table = _read_unit(opened, unit, row)
        except (StorageError, pa.ArrowException, OSError) as error:
            yield f"{where}: {error}"
            is_read = False
            continue
        reasons.update(reason for reason in table["reason"].to_pylist() if reason is not None)
    counted = {pair["reason"]: pair["members"] for pair in row["reasons"]}
    if is_read and first == row["members"] and counted != dict(reasons):
        yield f"archives: the reasons of {row['archive']!r} are not those of its rows."


class _Opened:
    """The files of predictions, the last one kept: archives that share a file come in turn."""

    def __init__(self, output: str) -> None:
        self._output = output
        self._last: tuple[str, str, pa.Table] | None = None

    def read(self, path: str, sha256: str) -> pa.Table:
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
            self._last = path, sha256, table
        return self._last[2]


def _read_unit(opened: _Opened, unit: Mapping[str, Any], row: Mapping[str, Any]) -> pa.Table:
    table = opened.read(unit["path"], unit["sha256"])
    if is_shared(unit["path"]):
        is_own = pc.and_(
            pc.equal(table["archive"], row["archive"]),
            pc.equal(table["archive_version"], row["archive_version"]),
        )
        table = table.filter(is_own)
    wanted = Unit(
        position=0,
        archive=row["archive"],
        version=row["archive_version"],
        first_member=unit["first_member"],
        members=unit["members"],
        num_bytes=0,
        path=unit["path"],
    )
    check_unit(table, wanted, version_of(table.schema))
    return table
