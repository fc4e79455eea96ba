"""One run over a plan: receipts of the stages into the ledger, its results into the tables."""

import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

from jobs.pipeline.ledger import Ledger
from jobs.pipeline.plan import PlannedArchive
from jobs.pipeline.progress import Progress
from jobs.pipeline.publish import ArchiveResult, Tables

COMMIT_EVERY_S: Final = 15.0
"""Commits are rare, since each one is read by every later reader of the table."""


def settle(
    todo: Sequence[PlannedArchive], receipts: Iterable[dict[str, Any]], tables: Tables
) -> list[ArchiveResult]:
    """Turns receipts into published results, as they come.

    Args:
        todo: The planned archives.
        receipts: Of their units and ends, in any order, possibly more than once.
        tables: Where the results go.

    Returns:
        One result for each planned archive, as published. If the receipts end with an exception,
        what had arrived whole is published before it goes on.
    """
    ledger, standing, waiting = Ledger(todo), [], []
    progress = Progress({position: archive.info.size for position, archive in enumerate(todo)})
    committed_at = time.monotonic()
    try:
        for receipt in receipts:
            progress.add(receipt)
            result = ledger.add(receipt)
            if result is not None:
                waiting.append(result)
            if waiting and time.monotonic() - committed_at >= COMMIT_EVERY_S:
                standing += tables.commit(waiting)
                waiting, committed_at = [], time.monotonic()
        waiting += ledger.close()
    finally:
        progress.close()
        if waiting:
            standing += tables.commit(waiting)
    return standing
