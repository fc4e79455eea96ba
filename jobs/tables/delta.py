"""Delta tables by `deltalake`: open, create, and commit optimistically.

A commit is worked out from one state of the table and carries the next number of an application
transaction, so that Delta refuses it if any other commit of this software came between. Then it is
worked out again. Nothing here deletes: files that leave the table stay in the store, and the
clean-up of the log is off.
"""

import contextlib
import errno
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, Field, write_deltalake
from deltalake.exceptions import (
    CommitFailedError,
    DeltaError,
    TableNotFoundError,
)
from deltalake.transaction import (
    AddAction,
    CommitProperties,
    PostCommitHookProperties,
    RemoveAction,
    Transaction,
)

from implant_model import storage
from implant_model.errors import StorageError, UsageError
from jobs.tables.schema import (
    ARCHIVES,
    FIRST_ARCHIVE_ROW,
    FIRST_SCHEMA_VERSION,
    PREDICTIONS,
    SCHEMA_PROPERTY,
    prediction_row,
    with_model,
)

Answer = TypeVar("Answer")
Action = AddAction | RemoveAction
Table = DeltaTable
APPLICATION: Final = "implant-inference"
COMMIT_ATTEMPTS: Final = 20
"""Of a commit that others overtake."""
FAILED_ATTEMPTS: Final = 3
"""Of one that fails otherwise: a store may not have answered once, a file that is gone stays so."""
HOOKS: Final = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)
_OF_A_FILE: Final = (
    *("path", "size_bytes", "num_records", "partition.model", "min.archive", "max.archive"),
    *("min.archive_version", "max.archive_version"),
)
_FIRST: Final = {
    PREDICTIONS: with_model(prediction_row(FIRST_SCHEMA_VERSION)),
    ARCHIVES: FIRST_ARCHIVE_ROW,
}
"""What the tables of an output have had from the first version on."""
_CONFIGURATION: Final = {"delta.enableExpiredLogCleanup": "false"}


def open_table(uri: str) -> DeltaTable | None:
    """Return the newest state of the table at `uri`, or None where there is no table.

    Raises:
        StorageError: The store does not answer, or the log cannot be read.
    """
    try:
        return DeltaTable(uri, storage_options=storage.delta_options(uri))
    except TableNotFoundError:
        return None
    except (DeltaError, OSError) as error:
        raise StorageError(f"The table {uri} cannot be read. {_reason(uri, error)}") from error


def find_tables(output: str) -> tuple[DeltaTable, DeltaTable] | None:
    """Return `predictions` and `archives` of an output, or None where one of them is not there.

    Raises:
        UsageError: Another tool has made one of them, or dropped a column.
        StorageError: One cannot be read.
    """
    tables = []
    for name, first in _FIRST.items():
        uri = storage.join(output, name)
        table = open_table(uri)
        if table is not None:
            _check_readable(uri, table, first)
            tables.append(table)
    return (tables[0], tables[1]) if len(tables) == len(_FIRST) else None


def open_tables(output: str) -> tuple[DeltaTable, DeltaTable]:
    """Return `predictions` and `archives` of an output.

    Raises:
        UsageError: They are not there, or another tool has made or changed them.
        StorageError: One cannot be read.
    """
    tables = find_tables(output)
    if tables is None:
        raise UsageError(f"{output} holds no tables; name the --output of classify.")
    return tables


def check_protocol(uri: str, table: DeltaTable, *, is_written: bool) -> None:
    """Refuse a table that asks more of who reads it, or writes it, than this software knows.

    Raises:
        UsageError: It does.
    """
    protocol = table.protocol()
    is_known = protocol.min_reader_version <= 1
    if is_known and not (is_written and protocol.min_writer_version > 2):
        return
    features = sorted({*(protocol.reader_features or ()), *(protocol.writer_features or ())})
    named = ", ".join(map(str, features)) or f"writer version {protocol.min_writer_version}"
    raise UsageError(
        f"Another tool has changed the table {uri}: it needs {named}, which this software does not "
        f"{'write' if is_known else 'read'}. Restore it to a version before that, or use another "
        "output."
    )


def _check_readable(uri: str, table: DeltaTable, schema: pa.Schema) -> None:
    """Refuse a table that lacks a column of the first version, or is partitioned otherwise."""
    check_protocol(uri, table, is_written=False)
    there = {field.name for field in table.schema().fields}
    missing = [name for name in schema.names if name not in there]
    lack = f"lacks the column {missing[0]}" if missing else "is not partitioned by model"
    if missing or table.metadata().partition_columns != ["model"]:
        raise UsageError(
            f"The table {uri} {lack}: another tool has made or changed it. Restore it to a version "
            "before that, or use another output."
        )


def _reason(uri: str, error: Exception) -> str:
    """Return why a table cannot be had in the words of `storage`: deltalake's are of many lines."""
    try:
        storage.check_output(uri)
    except UsageError as reason:
        return str(reason)
    said = re.search(r"[^:]+ \(os error (\d+)\)", str(error))  # such as a full disk's
    if said is not None and int(said[1]) != errno.ENOENT:  # a file of the table that is gone
        return f"{said[0].strip()}."
    return f"jobs.verify names what is damaged ({type(error).__name__})."


def create_table(uri: str, schema: pa.Schema) -> None:
    """Create a table partitioned by `model`, unless it is there.

    Raises:
        StorageError: It is not there and could not be created.
    """
    try:
        DeltaTable.create(
            uri,
            schema,
            mode="ignore",
            partition_by=["model"],
            configuration=_CONFIGURATION,
            storage_options=storage.delta_options(uri),
        )
    except (DeltaError, OSError) as error:
        if open_table(uri) is None:  # else another run has created it at the same moment
            reason = _reason(uri, error)
            raise StorageError(f"The table {uri} cannot be created. {reason}") from error


def evolve_table(uri: str, schema: pa.Schema, version: int) -> None:
    """Bring a table to a version of its schema: the columns that it lacks, by one commit.

    Args:
        uri: The table.
        schema: That it shall have at least; what is added must be nullable.
        version: Recorded as a property of the table, by a commit of its own.

    Raises:
        UsageError: A newer version of this software has written the table, or another tool.
        StorageError: The table is gone, or cannot be written.
    """

    def add_columns(table: DeltaTable) -> None:
        there = {field.name for field in table.schema().fields}
        missing = [Field.from_arrow(field) for field in schema if field.name not in there]
        if missing:
            table.alter.add_columns(missing, post_commithook_properties=HOOKS)

    def record(table: DeltaTable) -> None:
        if _schema_version(table) < version:
            table.alter.set_table_properties(
                {SCHEMA_PROPERTY: str(version)}, raise_if_not_exists=False
            )

    table = open_table(uri)
    if table is None or _schema_version(table) < version:
        commit(uri, add_columns)
        commit(uri, record)
        return
    if _schema_version(table) > version:
        raise UsageError(
            f"The table {uri} has schema version {_schema_version(table)}; this software writes "
            f"version {version}. Update the software, or use another output."
        )


def number_property(table: DeltaTable, name: str, default: int) -> int:
    """Return a property of a table that is a number from 1, or the default where it is none."""
    value = table.metadata().configuration.get(name, "")
    return int(value) if value.isascii() and value.isdigit() and int(value) else default


def _schema_version(table: DeltaTable) -> int:
    return number_property(table, SCHEMA_PROPERTY, FIRST_SCHEMA_VERSION)


def commit(uri: str, work: Callable[[DeltaTable], Answer]) -> Answer:
    """Run `work` on the table's newest state until its one commit is not overtaken.

    Args:
        uri: The table.
        work: Makes at most one commit by `replace_files` or `write_rows`; is called again with a
            newer state if that commit came too late.

    Returns:
        What `work` returned.

    Raises:
        StorageError: The table is gone, or cannot be written.
    """
    for attempt in range(COMMIT_ATTEMPTS):
        table = open_table(uri)
        if table is None:
            raise StorageError(f"The table {uri} is not there any more.")
        try:
            return work(table)
        except DeltaError as error:
            is_overtaken = isinstance(error, CommitFailedError)
            if attempt + 1 == (COMMIT_ATTEMPTS if is_overtaken else FAILED_ATTEMPTS):
                why = _reason(uri, error)
                if is_overtaken:
                    why = "Each time another commit came first."
                raise StorageError(
                    f"The table {uri} could not be written in {attempt + 1} attempts. {why}"
                ) from error
            time.sleep(random.uniform(0, min(0.1 * 2**attempt, 5.0)))
    raise AssertionError("unreachable")


def active_files(table: DeltaTable, model: str | None = None) -> list[dict[str, Any]]:
    """Return the data files of one model's partition, or of all.

    Args:
        table: Of predictions or of archives.
        model: Name of a partition; None for all.

    Returns:
        Dicts with `path`, `size_bytes`, `num_records`, `partition.model` and those statistics
        `min.COLUMN` and `max.COLUMN` of archive and version that there are.
    """
    rows: list[dict[str, Any]] = file_columns(table, model).to_pylist()
    return rows


def file_columns(table: DeltaTable, model: str | None = None) -> pa.Table:
    """Return `active_files` as columns."""
    actions = pa.table(table.get_add_actions(flatten=True))
    files = actions.select([name for name in _OF_A_FILE if name in actions.column_names])
    return files if model is None else files.filter(pc.equal(files["partition.model"], model))


def add_action(path: str, size: int, statistics: str, model: str) -> AddAction:
    """Add one data file.

    Args:
        path: Below the table.
        size: Bytes.
        statistics: Of its rows, see `file_statistics`.
        model: Its partition.
    """
    return AddAction(
        path=path,
        size=size,
        partition_values={"model": model},
        modification_time=int(time.time() * 1000),
        data_change=True,
        stats=statistics,
    )


def remove_action(active: Mapping[str, Any], model: str) -> RemoveAction:
    """Take one of `active_files` out of the table; the file itself stays."""
    return RemoveAction(
        path=active["path"],  # as the log has it
        data_change=True,
        deletion_timestamp=int(time.time() * 1000),
        size=active["size_bytes"],
        partition_values={"model": model},
    )


def entry_of(action: Action) -> dict[str, Any]:
    """Return what an entry of the log has of an action, see Delta's PROTOCOL.md, "Actions"."""
    if isinstance(action, AddAction):
        return {
            "add": {
                "path": action.path,
                "partitionValues": action.partition_values,
                "size": action.size,
                "modificationTime": action.modification_time,
                "dataChange": action.data_change,
                "stats": action.stats,
            }
        }
    return {
        "remove": {
            "path": action.path,
            "dataChange": action.data_change,
            "deletionTimestamp": action.deletion_timestamp,
            "extendedFileMetadata": True,
            "partitionValues": action.partition_values,
            "size": action.size,
        }
    }


def replace_files(table: DeltaTable, actions: list[Action]) -> None:
    """Commit added and removed files at once."""
    table.create_write_transaction(
        actions,
        "append",
        table.schema(),
        ["model"],
        commit_properties=_next_transaction(table),
        post_commithook_properties=HOOKS,
    )


def write_rows(table: DeltaTable, rows: pa.Table) -> None:
    """Commit rows."""
    write_deltalake(
        table,
        rows,
        mode="append",
        commit_properties=_next_transaction(table),
        post_commithook_properties=HOOKS,
        schema_mode="merge",  # a column that another tool has added stays, and is null
    )


def read_rows(table: DeltaTable, model: str | None = None) -> list[dict[str, Any]]:
    """Return all rows of one model's partition, or of the table.

    Args:
        table: Of archives.
        model: Name of a partition; None for all.

    Raises:
        StorageError: A data file is damaged or gone, or the store does not answer.
    """
    batches = row_batches(table, None, model=model)
    return [row for batch in batches for row in batch.to_pylist()]


def row_batches(
    table: DeltaTable, columns: list[str] | None, size: int = 1 << 16, model: str | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a table, file by file.

    Args:
        table: Of archives.
        columns: Of them; None for all.
        size: Most rows of a batch.
        model: Name of a partition; None for all.

    Raises:
        StorageError: A data file is damaged or gone, or the store does not answer.
    """
    of_model = None if model is None else pc.field("model") == model
    yield from Rows(table).to_batches(
        columns, of_model, batch_size=size, batch_readahead=1, fragment_readahead=1
    )


class Rows:
    """The rows of a table, as pyarrow's dataset has them; what is damaged is a StorageError.

    Args:
        table: Of predictions or of archives.

    Attributes:
        schema: Of the rows.

    Raises:
        StorageError: The log cannot be read.
    """

    def __init__(self, table: DeltaTable) -> None:
        self._uri = table.table_uri
        with self._translated():
            self._dataset = table.to_pyarrow_dataset()
        self.schema: pa.Schema = self._dataset.schema

    def to_batches(
        self, columns: list[str] | None, filter: pc.Expression | None = None, **options: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows that pass a filter, file by file.

        Raises:
            StorageError: A data file is damaged or gone, or the store does not answer.
        """
        with self._translated():
            yield from self._dataset.to_batches(columns=columns, filter=filter, **options)

    def to_table(self, columns: list[str], filter: pc.Expression) -> pa.Table:
        """Return the rows that pass a filter.

        Raises:
            StorageError: A data file is damaged or gone, or the store does not answer.
        """
        with self._translated():
            return self._dataset.to_table(columns=columns, filter=filter)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (DeltaError, pa.ArrowException, OSError, ValueError) as error:
            raise StorageError(
                f"The rows of the table {self._uri} cannot be read ({type(error).__name__}); "
                "jobs.verify names the file that is damaged."
            ) from error


def checkpoint(uri: str) -> None:
    """Write a checkpoint of the table's log, from which readers start; without it they read more.

    Raises:
        StorageError: The log cannot be read.
    """
    table = open_table(uri)
    if table is None:
        return
    with contextlib.suppress(DeltaError, OSError):  # the next one is as good
        table.create_checkpoint()


def _next_transaction(table: DeltaTable) -> CommitProperties:
    version = (table.transaction_version(APPLICATION) or 0) + 1
    return CommitProperties(app_transactions=[Transaction(APPLICATION, version)])
