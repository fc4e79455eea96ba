"""One run over a plan: receipts of the stages into the ledger, its results into the tables.

Ray repeats a task whose process or node was lost, a bounded number of times (`stages.py`). What is
still not whole when the stages end goes through them once more, each archive in a task of its own:
an archive that kills whoever works on it takes its neighbours with it, and thus they are
distinguished. What is not whole after that is `failed`, and the rest is published.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from jobs.pipeline.ledger import Ledger
from jobs.pipeline.progress import Progress
from jobs.tables.publish import Tables
from jobs.tables.receipts import ArchiveReceipt
from jobs.tables.records import ArchiveResult, PlannedArchive

COMMIT_EVERY_S: Final = 15.0
"""Commits are rare, since each one is read by every later reader of the table."""

Again = Callable[[Sequence[int]], Iterable[ArchiveReceipt]]
"""Takes archives by their positions in the plan through the stages, each in a task of its own."""


def settle(
    todo: Sequence[PlannedArchive],
    receipts: Iterable[ArchiveReceipt],
    tables: Tables,
    again: Again | None = None,
) -> list[ArchiveResult]:
    """Turn receipts into published results, as they come.

    Args:
        todo: The planned archives.
        receipts: Of their units and ends, in any order, possibly more than once.
        tables: Where the results go.
        again: Called once, with the archives that are not whole when the receipts end.

    Returns:
        One result for each planned archive, as published. If the receipts end with an exception,
        what had arrived whole is published before it goes on.
    """
    ledger, standing, waiting = Ledger(todo), [], []
    progress = Progress({position: archive.info.size for position, archive in enumerate(todo)})
    committed_at = time.monotonic()
    try:
        for receipt in _all_receipts(ledger, receipts, again):
            progress.add(receipt)
            result = ledger.add(receipt)
            if result is not None:
                waiting.append(result)
            is_due = time.monotonic() - committed_at >= COMMIT_EVERY_S
            if waiting and is_due and not ledger.is_amid_a_file:
                standing += tables.commit(waiting)
                waiting, committed_at = [], time.monotonic()
        waiting += ledger.close()
    finally:
        progress.close()
        if waiting:
            standing += tables.commit(waiting)
    return standing


def _all_receipts(
    ledger: Ledger, receipts: Iterable[ArchiveReceipt], again: Again | None
) -> Iterator[ArchiveReceipt]:
    yield from receipts
    missing = ledger.missing()
    if missing and again is not None:
        yield from again(missing)
