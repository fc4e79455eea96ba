"""How the results of archives enter the two tables, each archive wholly and once.

An archive's rows enter `predictions` in one commit, which also takes out those of its older version
or attempt; then its row enters `archives`. A run that dies between the two leaves predictions whose
archive has no row yet: the next run finds their units, adopts them and adds the row. Two runs that
publish the same archive commit the same files, and the later commit changes nothing.

Small archives lie in common files, bundles. Where a bundle holds an archive that this commit does
not publish, or no longer may, a copy without it enters in its place. What a run had not committed
when it died is read again: at most what it read since its last commit. Two runs that put the same
small archives into different bundles replace each other's rows, in one commit each time.
"""

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.transaction import AddAction

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
    is_bundle,
    with_model,
)
from jobs.tables.shared_files import Copy, Held, SharedFiles, bounds, is_of_one_archive


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
        self._shared.learn(rows, active)
        elsewhere = self._count(active[path] for path in active.keys() - named)
        if missing := _missing(rows, active, elsewhere):  # of a shared file that was copied
            shared = (active[path] for path in active.keys() & named)
            found = self._count(file for file in shared if not is_of_one_archive(file))
            elsewhere += Counter({key: found[key] for key in missing})
        records: dict[str, dict[str, ArchiveRecord]] = {}
        for row in rows:
            record = _record(row, active, elsewhere)
            records.setdefault(record.archive, {})[record.version] = record
        return records

    def _count(self, files: Iterable[Mapping[str, Any]]) -> Held:
        """Read which rows lie in files."""
        found: Held = Counter()
        for file in files:
            found.update(self._shared.held(file))
        return found

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
        self._shared.forget(unit.path for result in standing for unit in result.units)
        delta.commit(self._archives, enter_rows)
        self.write_checksums()
        return standing

    def write_checksums(self) -> None:
        """Set the checksums that are missing, also those of a run that died before it did."""
        checksums.write_checksums(self._output)

    def _enter_units(
        self, table: DeltaTable, results: Sequence[ArchiveResult]
    ) -> list[ArchiveResult]:
        names = {result.archive.name for result in results}
        files = delta.active_files(table, self._model, names)
        active = _by_archive(filter(is_of_one_archive, files))
        shared = [file for file in files if not is_of_one_archive(file)]
        touched = self._shared.with_any_of(shared, names)
        versions = self._versions(touched, active, names)
        standing = [
            _overtaken(result)
            if result.is_readable and _is_overtaken(result, versions[result.archive.name])
            else result
            for result in results
        ]
        entering = [result for result in standing if result.is_readable]
        moves, actions = self._enter_bundles(entering, {file["path"] for file in files})
        for result in entering:
            actions += self._exchange(result, active.get(result.archive.name, {}))
        kept = {unit.path for result in entering for unit in result.units}
        leaving = [file for file in touched if file["path"] not in kept]
        actions += self._take_out(leaving, {result.archive.name for result in entering})
        if actions:
            delta.replace_files(table, actions)
        return [_moved(result, moves) for result in standing]

    def _versions(
        self,
        touched: Iterable[Mapping[str, Any]],
        active: Mapping[str, Mapping[str, Mapping[str, Any]]],
        names: Iterable[str],
    ) -> dict[str, set[str]]:
        """Return the versions of archives that the table has."""
        versions = {
            name: {file["min.archive_version"] for file in active.get(name, {}).values()}
            for name in names
        }
        for file in touched:
            for name, version in self._shared.held(file):
                if name in versions:
                    versions[name].add(version)
        return versions

    def _enter_bundles(
        self, entering: Iterable[ArchiveResult], active: Container[str]
    ) -> tuple[dict[str, Copy], list[Any]]:
        """The actions that add the bundles of results, each with just the archives of these.

        Returns:
            The copies that enter in the place of bundles, by the paths of these, and the actions.
        """
        wanted: dict[str, set[tuple[str, str]]] = {}
        for result in entering:
            for unit in filter(lambda unit: is_bundle(unit.path), result.units):
                key = result.archive.name, result.archive.known.version
                wanted.setdefault(unit.path, set()).add(key)
        sizes = {unit.path: unit.bytes for result in entering for unit in result.units}
        moves: dict[str, Copy] = {}
        actions = []
        for path, keys in wanted.items():
            if path in active:
                continue
            held, size, place = self._shared.held({"path": path}), sizes[path], path
            if not keys <= held.keys():
                raise StorageError(f"The file {path} lacks rows that it was published with.")
            others = {name for name, _ in held.keys() - keys}
            copy = self._shared.without({"path": path}, others, self._model) if others else None
            if copy is not None:
                moves[path] = copy
                held, size, place = copy.held, copy.bytes, copy.path
            actions.append(self._add_shared(place, size, held))
        return moves, actions

    def _add_shared(self, path: str, size: int, held: Held) -> AddAction:
        return delta.add_action(path, size, held.total(), self._model, *bounds(held))

    def _take_out(self, shared: Iterable[Mapping[str, Any]], archives: set[str]) -> list[Any]:
        """The actions that take archives' rows out of shared files: copies without them."""
        actions: list[Any] = []
        for file in self._shared.with_any_of(shared, archives):
            actions.append(delta.remove_action(file, self._model))
            copy = self._shared.without(file, archives, self._model)
            if copy is not None:
                actions.append(self._add_shared(copy.path, copy.bytes, copy.held))
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
            if path not in held and not is_bundle(path)
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
        held = delta.read_rows(table, self._model, names)
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
        """Return the results, those as overtaken whose rows have left the table since."""
        table = delta.open_table(self._predictions)
        if table is None:
            raise StorageError(f"The table {self._predictions} is not there any more.")
        names = {result.archive.name for result in results}
        files = delta.active_files(table, self._model, names)
        active = {file["path"] for file in files}
        missing = {
            result.archive.name
            for result in results
            if not active.issuperset(unit.path for unit in result.units)
        }
        shared = [file for file in files if not is_of_one_archive(file)] if missing else []
        elsewhere = self._count(self._shared.with_any_of(shared, missing))
        return [
            _overtaken(result)
            if result.archive.name in missing
            and elsewhere[result.archive.name, result.archive.known.version] != result.members
            else result
            for result in results
        ]


def _missing(
    rows: Iterable[Mapping[str, Any]], active: Container[str], elsewhere: Held
) -> list[tuple[str, str]]:
    """Return the archives and versions of which rows are neither in active units nor elsewhere."""
    return [
        (row["archive"], row["archive_version"])
        for row in rows
        if _num_found(row, active, elsewhere) < row["members"]
    ]


def _num_found(row: Mapping[str, Any], active: Container[str], elsewhere: Held) -> int:
    found = sum(unit["members"] for unit in row["units"] if unit["path"] in active)
    return int(found + elsewhere[row["archive"], row["archive_version"]])


def _moved(result: ArchiveResult, moves: Mapping[str, Copy]) -> ArchiveResult:
    """Return the result with copies in the place of bundles."""
    units = tuple(
        replace(unit, path=copy.path, bytes=copy.bytes, sha256=copy.sha256)
        if (copy := moves.get(unit.path))
        else unit
        for unit in result.units
    )
    return replace(result, units=units)


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
        has_rows=_num_found(row, active, elsewhere) == row["members"],
        decode_version=row.get("decode_version") or FIRST_DECODE_VERSION,
    )
