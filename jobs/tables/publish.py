"""How the results of archives enter the two tables, each archive wholly and once.

An archive's rows enter `predictions` in one commit, which also takes out those of its older version
or attempt; then its row enters `archives`. A run that dies between the two leaves predictions whose
archive has no row yet: the next run finds their units, adopts them and adds the row. Two runs that
publish the same archive commit the same files, and the later commit changes nothing.
"""

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

from implant_model import storage
from implant_model.decode.version import DECODE_VERSION, FIRST_DECODE_VERSION
from implant_model.errors import (
    ArchiveReason,
    ArchiveStatus,
    Outcome,
    StorageError,
)
from jobs.tables import checksums, delta
from jobs.tables.receipts import Counts
from jobs.tables.records import ArchiveRecord, ArchiveResult, Records
from jobs.tables.schema import (
    ARCHIVE_ROW,
    ARCHIVES,
    PREDICTION_ROW,
    PREDICTIONS,
    SCHEMA_VERSION,
    with_model,
)
from jobs.tables.shared_files import Held, SharedFiles, bounds, is_of_one_archive


@dataclass(frozen=True)
class RunIdentity:
    """What the archives' rows say of the run that wrote them."""

    model: str
    configuration_hash: str
    software_version: str
    run: str
    key_id: str | None = None


class Tables:
    """The tables of one output, for one model.

    Args:
        output: Normalised URI.
        identity: Of this run; its model is the partition that this run reads and writes.
    """

    def __init__(self, output: str, identity: RunIdentity) -> None:
        self._output = output
        self._predictions = storage.join(output, PREDICTIONS)
        self._archives = storage.join(output, ARCHIVES)
        self._identity = identity
        self._model = identity.model
        self._shared = SharedFiles(self._predictions)

    def create(self) -> None:
        """Create the tables where they are missing, and add the columns that older ones lack."""
        delta.create_table(self._predictions, with_model(PREDICTION_ROW))
        delta.create_table(self._archives, ARCHIVE_ROW)
        delta.evolve_table(self._predictions, with_model(PREDICTION_ROW), SCHEMA_VERSION)
        delta.evolve_table(self._archives, ARCHIVE_ROW, SCHEMA_VERSION)
        self.write_checksums()

    def exist(self) -> bool:
        """Return whether there are tables: of an empty input's first night there are none."""
        return delta.open_table(self._predictions) is not None

    def records(self) -> Records:
        """Return the rows of `archives` under this model, by archive and version."""
        table, predictions = map(delta.open_table, (self._archives, self._predictions))
        if table is None or predictions is None:
            return {}
        rows = delta.read_rows(table, self._model)
        named = {unit["path"] for row in rows for unit in row["units"]}
        active = {file["path"]: file for file in delta.active_files(predictions, self._model)}
        elsewhere: Held = Counter()
        for path in active.keys() - named:  # another tool has put units together
            elsewhere.update(self._shared.held(active[path]))
        records: dict[str, dict[str, ArchiveRecord]] = {}
        for row in rows:
            record = _record(row, active, elsewhere)
            records.setdefault(record.archive, {})[record.version] = record
        return records

    def commit(self, results: Sequence[ArchiveResult]) -> list[ArchiveResult]:
        """Publish the results of archives.

        Args:
            results: Archives that were read to their ends, each name once.

        Returns:
            The results as they stand: one that was overtaken by a newer version of its archive
            comes back as `changed`.

        Raises:
            StorageError: The tables could not be written.
        """
        standing = list(results)

        def enter_units(table: DeltaTable) -> None:
            standing[:] = self._enter_units(table, results)

        def enter_rows(table: DeltaTable) -> None:
            standing[:] = self._enter_rows(table, standing)

        delta.commit(self._predictions, enter_units)
        delta.commit(self._archives, enter_rows)
        self.write_checksums()
        return standing

    def write_checksums(self) -> None:
        """Set the checksums that are missing, also those of a run that died before it did."""
        checksums.write_checksums(self._output)

    def _enter_units(
        self, table: DeltaTable, results: Iterable[ArchiveResult]
    ) -> list[ArchiveResult]:
        files = delta.active_files(table, self._model)
        active = _by_archive(filter(is_of_one_archive, files))
        shared = [file for file in files if not is_of_one_archive(file)]
        standing: list[ArchiveResult] = []
        actions: list[Any] = []
        for result in results:
            held = active.get(result.archive.name, {})
            versions = {file["min.archive_version"] for file in held.values()}
            versions |= self._versions(shared, result.archive.name)
            if result.is_readable and _is_overtaken(result, versions):
                standing.append(_overtaken(result))
                continue
            standing.append(result)
            if result.is_readable:
                actions += self._exchange(result, held)
        replaced = {result.archive.name for result in standing if result.is_readable}
        actions += self._take_out(shared, replaced)
        if actions:
            delta.replace_files(table, actions)
        return standing

    def _versions(self, shared: Iterable[Mapping[str, Any]], archive: str) -> set[str]:
        """Return the versions of an archive whose rows lie in shared files."""
        return {
            version for file in shared for name, version in self._shared.held(file)
            if name == archive
        }  # fmt: skip

    def _take_out(self, shared: Iterable[Mapping[str, Any]], archives: set[str]) -> list[Any]:
        """The actions that take archives' rows out of shared files: copies without them."""
        actions: list[Any] = []
        for file in self._shared.with_any_of(shared, archives):
            actions.append(delta.remove_action(file, self._model))
            copy = self._shared.without(file, archives)
            if copy is not None:
                path, size, rows = copy
                stats = bounds(rows)
                actions.append(delta.add_action(path, size, rows.num_rows, self._model, *stats))
        return actions

    def _exchange(self, result: ArchiveResult, held: Mapping[str, Mapping[str, Any]]) -> list[Any]:
        """The actions that leave exactly the result's units of what is held of its archive."""
        constants = {
            "archive": result.archive.name,
            "archive_version": result.archive.known.version,
        }
        units = {unit.path: unit for unit in result.units}
        added = [
            delta.add_action(path, unit.bytes, unit.members, self._model, constants)
            for path, unit in units.items()
            if path not in held
        ]
        removed = [
            delta.remove_action(file, self._model)
            for path, file in held.items()
            if path not in units
        ]
        return added + removed

    def _enter_rows(
        self, table: DeltaTable, results: Sequence[ArchiveResult]
    ) -> list[ArchiveResult]:
        """Write the archives' rows, in place of those that they make void.

        The units are looked up once more: if another run has replaced them since, the row would
        speak of rows that are not there, and that other run writes the archive's row.
        """
        standing = self._still_active(results)
        names = {result.archive.name for result in standing}
        rows = delta.read_rows(table, self._model)
        held = [row for row in rows if row["archive"] in names]
        new = [_row(r, self._identity) for r in standing if not _has_better(r, held)]
        if not new:
            return standing
        kept = [row for row in held if not any(_voids(row_new, row) for row_new in new)]
        predicate = None
        if len(kept) < len(held):
            listed = ", ".join(map(delta.sql_string, sorted(names)))
            predicate = f"model = {delta.sql_string(self._model)} AND archive IN ({listed})"
            new += kept
        delta.write_rows(table, pa.Table.from_pylist(new, schema=ARCHIVE_ROW), predicate)
        return standing

    def _still_active(self, results: Sequence[ArchiveResult]) -> list[ArchiveResult]:
        table = delta.open_table(self._predictions)
        if table is None:
            raise StorageError(f"The table {self._predictions} is not there any more.")
        active = {file["path"] for file in delta.active_files(table, self._model)}
        return [
            result if active.issuperset(unit.path for unit in result.units) else _overtaken(result)
            for result in results
        ]


def _by_archive(
    files: Iterable[Mapping[str, Any]],
) -> dict[str, dict[str, Mapping[str, Any]]]:
    by_archive: dict[str, dict[str, Mapping[str, Any]]] = {}
    for file in files:
        by_archive.setdefault(file["min.archive"], {})[file["path"]] = file
    return by_archive


def _is_overtaken(result: ArchiveResult, versions: Iterable[str]) -> bool:
    """Whether the table has another version of the archive and the store no longer has ours."""
    archive = result.archive
    if all(version == archive.known.version for version in versions):
        return False
    try:
        return storage.stat(archive.info.uri).version != archive.info.version
    except StorageError:
        return True


def _overtaken(result: ArchiveResult) -> ArchiveResult:
    return replace(
        result,
        status=ArchiveStatus.CHANGED,
        reason=ArchiveReason.CHANGED,
        message=f"{result.archive.name} was replaced while it was read.",
        units=(),
        counts=Counts(),
    )


def _has_better(result: ArchiveResult, held: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether the table has rows of this very version, and this reading of it gave none."""
    return not result.is_readable and any(
        row["archive"] == result.archive.name
        and row["archive_version"] == result.archive.known.version
        and row["members"]
        for row in held
    )


def _voids(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Return whether a new row of `archives` takes the place of an old one.

    A reading that succeeded takes the place of all versions, one that did not only of its own.
    """
    if new["archive"] != old["archive"]:
        return False
    succeeded = ArchiveStatus(new["status"]).is_readable
    return succeeded or bool(new["archive_version"] == old["archive_version"])


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
        "units": [asdict(u) for u in sorted(result.units, key=lambda u: u.first_member)],
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


def _record(row: Mapping[str, Any], active: Container[str], elsewhere: Held) -> ArchiveRecord:
    found = sum(unit["members"] for unit in row["units"] if unit["path"] in active)
    found += elsewhere[row["archive"], row["archive_version"]]
    return ArchiveRecord(
        archive=row["archive"],
        version=row["archive_version"],
        source=row["source"],
        status=ArchiveStatus(row["status"]),
        reason=None if row["reason"] is None else ArchiveReason(row["reason"]),
        attempt=row["attempt"],
        members=row["members"],
        outcomes={str(outcome): row[str(outcome)] for outcome in Outcome},
        member_reasons={pair["reason"]: pair["members"] for pair in row["reasons"]},
        has_rows=found == row["members"],
        decode_version=row.get("decode_version") or FIRST_DECODE_VERSION,
    )
