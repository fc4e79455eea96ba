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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from implant_model import storage
from implant_model.errors import (
    ArchiveReason,
    ArchiveStatus,
    StorageError,
)
from jobs.tables import delta
from jobs.tables.archive_rows import ArchiveRows, RunIdentity
from jobs.tables.checksums import Checksums
from jobs.tables.delta import Action
from jobs.tables.receipts import Counts, UnitFile
from jobs.tables.records import ArchiveResult
from jobs.tables.schema import (
    ARCHIVE_ROW,
    ARCHIVES,
    PREDICTION_ROW,
    PREDICTIONS,
    SCHEMA_VERSION,
    is_bundle,
    with_model,
)
from jobs.tables.shared_files import Copy, Held, SharedFiles
from jobs.tables.state.record_index import Records
from jobs.tables.state.table_files import TableFiles, is_of_one_archive


class _Opened(NamedTuple):
    files: TableFiles
    rows: ArchiveRows


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
        self.identity = identity
        self._model = identity.model
        self._shared = SharedFiles(self._predictions)
        self._checksums = Checksums(output)
        self._opened: _Opened | None = None

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
        """Return the rows of `archives` under this model, as they are now."""
        tables = delta.find_tables(self._output)
        if tables is None:
            return Records.of()
        predictions, archives = tables
        files = TableFiles(self._predictions, predictions, self._model, self._shared.names)
        rows = ArchiveRows(self._archives, archives, self.identity)
        self._opened = _Opened(files, rows)
        return rows.read(files, self._shared)

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
        if self._opened is None:
            self.records()
        if self._opened is None:
            raise StorageError(f"The tables of {self._output} are not there any more.")
        files, rows = self._opened
        standing = list(results)

        def enter_units() -> Sequence[Action]:
            standing[:], actions = self._enter_units(files, results)
            return actions

        files.commit(enter_units)
        self._shared.forget(unit.path for result in standing for unit in result.units)
        standing = rows.enter(lambda: self._still_active(files, standing))
        self.write_checksums()
        return standing

    def write_checksums(self) -> None:
        """Set the checksums that are missing, also those of a run that died before it did."""
        self._checksums.write()

    def _enter_units(
        self, files: TableFiles, results: Sequence[ArchiveResult]
    ) -> tuple[list[ArchiveResult], list[Action]]:
        """Work out how results enter `predictions`; returns them as they then stand."""
        names = {result.archive.name for result in results}
        held = files.holding(names)
        active = _by_archive(filter(is_of_one_archive, held))
        touched = self._shared.with_any_of(
            (file for file in held if not is_of_one_archive(file)), names
        )
        versions = self._versions(touched, active, names)
        standing = [
            _overtaken(result)
            if result.is_readable and _is_overtaken(result, versions[result.archive.name])
            else result
            for result in results
        ]
        entering = [result for result in standing if result.is_readable]
        moves, actions = self._enter_bundles(entering, files)
        for result in entering:
            actions += self._exchange(result, active.get(result.archive.name, {}))
        kept = {unit.path for result in entering for unit in result.units}
        leaving = [file for file in touched if file["path"] not in kept]
        actions += self._take_out(leaving, {result.archive.name for result in entering})
        return [_moved(result, moves) for result in standing], actions

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
        self, entering: Iterable[ArchiveResult], files: TableFiles
    ) -> tuple[dict[str, Copy], list[Action]]:
        """The actions that add the bundles of results, each with just the archives of these.

        Returns:
            The copies that enter in the place of bundles, by the paths of these, and the actions.
        """
        wanted: dict[str, set[tuple[str, str]]] = {}
        for result in entering:
            for unit in filter(lambda unit: is_bundle(unit.path), result.units):
                key = result.archive.name, result.archive.known.version
                wanted.setdefault(unit.path, set()).add(key)
        files_of = {unit.path: unit for result in entering for unit in result.units}
        moves: dict[str, Copy] = {}
        actions: list[Action] = []
        for path, keys in wanted.items():
            if files.find(path) is not None:
                continue
            held = self._shared.held({"path": path})
            if not keys <= held.keys():
                raise StorageError(f"The file {path} lacks rows that it was published with.")
            others = {name for name, _ in held.keys() - keys}
            copy = self._shared.without({"path": path}, others, self._model) if others else None
            if copy is not None:
                moves[path] = copy
            actions.append(self._add(copy or files_of[path]))
        return moves, actions

    def _add(self, file: UnitFile | Copy) -> Action:
        return delta.add_action(file.path, file.bytes, file.statistics, self._model)

    def _take_out(self, shared: Iterable[Mapping[str, Any]], archives: set[str]) -> list[Action]:
        """The actions that take archives' rows out of shared files: copies without them."""
        actions: list[Action] = []
        for file in self._shared.with_any_of(shared, archives):
            actions.append(delta.remove_action(file, self._model))
            copy = self._shared.without(file, archives, self._model)
            if copy is not None:
                actions.append(self._add(copy))
        return actions

    def _exchange(
        self, result: ArchiveResult, held: Mapping[str, Mapping[str, Any]]
    ) -> list[Action]:
        """The actions that leave exactly the result's units of what is held of its archive."""
        units = {unit.path: unit for unit in result.units}
        added = [
            self._add(unit)
            for path, unit in units.items()
            if path not in held and not is_bundle(path)
        ]
        removed = [
            delta.remove_action(file, self._model)
            for path, file in held.items()
            if path not in units
        ]
        return added + removed

    def _still_active(
        self, files: TableFiles, results: Sequence[ArchiveResult]
    ) -> list[ArchiveResult]:
        """Return the results, those as overtaken whose rows have left the table since.

        If another run has replaced them since, the archive's row would speak of rows that are not
        there, and that other run writes the archive's row.
        """
        files.follow()
        paths = {unit.path for result in results for unit in result.units}
        gone = {path for path in paths if files.find(path) is None}
        missing = {
            result.archive.name
            for result in results
            if any(unit.path in gone for unit in result.units)
        }
        # Also in a file of one archive: a compaction puts the units of a large one together.
        elsewhere: Held = Counter()
        for file in self._shared.with_any_of(files.holding(missing), missing):
            elsewhere.update(self._shared.held(file))
        return [
            _overtaken(result)
            if result.archive.name in missing
            and elsewhere[result.archive.name, result.archive.known.version] != result.members
            else result
            for result in results
        ]


def _moved(result: ArchiveResult, moves: Mapping[str, Copy]) -> ArchiveResult:
    """Return the result with copies in the place of bundles."""
    if not any(unit.path in moves for unit in result.units):
        return result
    units = tuple(
        replace(
            unit, path=copy.path, bytes=copy.bytes, sha256=copy.sha256, statistics=copy.statistics
        )
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
