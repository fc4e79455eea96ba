"""Small files of an output's tables into large ones, by deltalake's own compaction.

No row changes: each commit swaps files for one that holds the same rows (`dataChange` false), so a
reader sees the same before and after, a run that publishes at the same time works its commit out
once more, and a compaction that is killed leaves files that no log names. What the swapped files
held stays in the store until it is vacuumed, which alone deletes.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from deltalake import DeltaTable, PostCommitHookProperties
from deltalake.exceptions import DeltaError

from implant_model import storage
from implant_model.errors import StorageError, UsageError
from implant_model.limits import MIB
from jobs.tables import delta
from jobs.tables.checksums import write_checksums
from jobs.tables.schema import ARCHIVES, PREDICTIONS

TARGET_BYTES: Final = 128 * MIB
ATTEMPTS: Final = 10
LEAST_DAYS: Final = 7
"""Units of a run that is under way are in no log yet, and would be vacuumed with the rest."""
_HOOKS: Final = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)


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


def compact(output: str, vacuum_after_days: int | None = None) -> list[Compacted]:
    """Compact both tables of an output; delete what left them long ago, if that is asked for.

    Args:
        output: Normalised URI.
        vacuum_after_days: Delete files that left the tables so long ago; None deletes nothing.

    Raises:
        UsageError: There are no tables, or the days are too few.
        StorageError: A table cannot be written, or a file not deleted.
    """
    if vacuum_after_days is not None and vacuum_after_days < LEAST_DAYS:
        raise UsageError(
            f"--vacuum-after is {vacuum_after_days}; {LEAST_DAYS} days or more are accepted, since "
            "units of a run that is under way are in no table yet."
        )
    return [_compact(output, name, vacuum_after_days) for name in (PREDICTIONS, ARCHIVES)]


def _compact(output: str, name: str, days: int | None) -> Compacted:
    uri = storage.join(output, name)
    before = _count(uri, output)
    _try(
        uri,
        lambda table: table.optimize.compact(
            target_size=TARGET_BYTES, post_commithook_properties=_HOOKS
        ),
    )
    deleted: list[str] = []
    if days is not None:
        hours = 24 * days
        deleted = _try(uri, lambda table: table.vacuum(retention_hours=hours, dry_run=False))
    write_checksums(output)
    return Compacted(name, before, _count(uri, output), len(deleted))


def _count(uri: str, output: str) -> int:
    table = delta.open_table(uri)
    if table is None:
        raise UsageError(f"{output} holds no tables; name the --output of classify.")
    return len(delta.active_files(table))


def _try(uri: str, work: Callable[[DeltaTable], Any]) -> Any:
    """Do something with the newest state of a table, again if a run's commit came between."""
    for attempt in range(ATTEMPTS):
        table = delta.open_table(uri)
        if table is None:
            raise StorageError(f"The table {uri} is not there any more.")
        try:
            return work(table)
        except (DeltaError, OSError) as error:
            if attempt == ATTEMPTS - 1:
                raise StorageError(
                    f"The table {uri} could not be changed in {ATTEMPTS} attempts: {error}."
                ) from error
            time.sleep(random.uniform(0, min(0.1 * 2**attempt, 5.0)))
    raise AssertionError("unreachable")
