"""Small files of an output's tables into large ones, by deltalake's own compaction.

No row changes: each commit swaps files for one that holds the same rows (`dataChange` false), so a
reader sees the same before and after, a run that publishes at the same time works its commit out
once more, and a compaction that is killed leaves files that no log names. What the swapped files
held stays in the store until it is vacuumed, which alone deletes.
"""

from dataclasses import dataclass
from typing import Final

from implant_model import storage
from implant_model.errors import StorageError, UsageError
from implant_model.limits import MIB
from jobs.tables import delta
from jobs.tables.checksums import Checksums
from jobs.tables.schema import ARCHIVES, PREDICTIONS

TARGET_BYTES: Final = 128 * MIB
NIGHTLY_FILES: Final = 64
"""Small files from which on it pays to compact a table after each night's run."""
LEAST_DAYS: Final = 7
"""Units of a run that is under way are in no log yet, and would be vacuumed with the rest."""

MAX_DAYS: Final = 36_500


@dataclass(frozen=True)
class Compacted:
    """What became of one table.

    Attributes:
        name: Of the table.
        before: Files that it had.
        after: Files that it has.
        deleted: Files that were vacuumed.
    """

    name: str
    before: int
    after: int
    deleted: int = 0


def compact(
    output: str, vacuum_after_days: int | None = None, *, nightly: bool = False
) -> list[Compacted]:
    """Compact both tables of an output; delete what left them long ago, if that is asked for.

    Args:
        output: Normalised URI.
        vacuum_after_days: Delete files that left the tables so long ago; None deletes nothing.
        nightly: Leave a table as it is while it has fewer than NIGHTLY_FILES small files.

    Raises:
        UsageError: There are no tables, they are not ours, or the days are too few or too many.
        StorageError: A table cannot be written, or a file not deleted.
    """
    if vacuum_after_days is not None and not LEAST_DAYS <= vacuum_after_days <= MAX_DAYS:
        raise UsageError(
            f"--vacuum-after is {vacuum_after_days}; {LEAST_DAYS} days or more (and "
            f"{MAX_DAYS:,} at most) are accepted, since units of a run that is under way are in no "
            "table yet."
        )
    delta.open_tables(output)  # both are to be there, and ours
    least = NIGHTLY_FILES if nightly else 0
    return [_compact(output, name, vacuum_after_days, least) for name in (PREDICTIONS, ARCHIVES)]


def _compact(output: str, name: str, days: int | None, least: int) -> Compacted:
    uri = storage.join(output, name)
    sizes = _sizes(uri, output)
    deleted: list[str] = []
    try:
        if sum(size < TARGET_BYTES // 4 for size in sizes) >= least:
            delta.commit(
                uri,
                lambda table: table.optimize.compact(
                    target_size=TARGET_BYTES, post_commithook_properties=delta.HOOKS
                ),
            )
        if days is not None:
            hours = 24 * days
            deleted = delta.commit(
                uri, lambda table: table.vacuum(retention_hours=hours, dry_run=False)
            )
    except OSError as error:
        raise StorageError(f"The table {uri} could not be changed: {error}.") from error
    Checksums(output).write()
    return Compacted(name, len(sizes), len(_sizes(uri, output)), len(deleted))


def _sizes(uri: str, output: str) -> list[int]:
    table = delta.open_table(uri)
    if table is None:
        raise UsageError(f"{output} holds no tables; name the --output of classify.")
    sizes: list[int] = delta.file_columns(table)["size_bytes"].to_pylist()
    return sizes
