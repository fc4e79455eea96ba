"""What has arrived of each planned archive: receipts in, results of whole archives out."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from implant_model.errors import ArchiveReason, ArchiveStatus
from jobs.tables.receipts import ArchiveReceipt, Counts, End, Failure, Published, UnitFile
from jobs.tables.records import ArchiveResult, PlannedArchive
from jobs.tables.schema import is_bundle

UNFINISHED: Final = (
    "The processes that worked on it ended before it did, each time that it was tried (out of "
    "memory, a lost node, or a crash that it causes); run the same command again."
)
NOTHING: Final = Counts()


@dataclass
class _Account:
    """Receipts of one archive; a unit that arrives twice counts once."""

    units: dict[str, UnitFile] = field(default_factory=dict)
    counts: Counts = NOTHING
    end: End | None = None

    def add(self, receipt: Published) -> None:
        if receipt.file.path in self.units:
            return
        # The only unit of an archive keeps the receipt's counts, which others share.
        both = [self.counts, receipt.counts]
        self.counts = Counts.total(both) if self.units else receipt.counts
        self.units[receipt.file.path] = receipt.file

    def finished(self) -> End | None:
        """Return the end, if it has come and every member before it is in a published unit."""
        members = sum(unit.members for unit in self.units.values())
        return self.end if self.end is not None and members == self.end.members else None


class Ledger:
    """Accounts of a plan's archives.

    Args:
        todo: The planned archives; receipts name them by their position.
    """

    def __init__(self, todo: Sequence[PlannedArchive]) -> None:
        self._todo = todo
        self._accounts: dict[int, _Account] = {}
        self._finished: set[int] = set()
        self._started_at = time.time()

    @property
    def num_finished(self) -> int:
        """Return archives whose result is known."""
        return len(self._finished)

    @property
    def is_amid_a_file(self) -> bool:
        """Whether receipts of some archives that share a file have come and others are under way.

        Who commits then has to copy the rows of those that are whole into files of their own.
        """
        return any(is_bundle(path) for account in self._accounts.values() for path in account.units)

    def add(self, receipt: ArchiveReceipt) -> ArchiveResult | None:
        """Enter a receipt; return the archive's result if this was the last one missing."""
        position = receipt.position
        if position in self._finished:
            return None
        if isinstance(receipt, Failure):
            return self._finish(self._failed(receipt))
        account = self._accounts.setdefault(position, _Account())
        if isinstance(receipt, Published):
            account.add(receipt)
        else:
            account.end = receipt
        end = account.finished()
        return None if end is None else self._finish(end)

    def missing(self) -> list[int]:
        """Return positions of the archives whose result is not known."""
        return [p for p in range(len(self._todo)) if p not in self._finished]

    def close(self) -> list[ArchiveResult]:
        """Return results of the archives whose receipts never came: failed, to be read again."""
        return [self._finish(self._failed(Failure(p, UNFINISHED))) for p in self.missing()]

    def _failed(self, failure: Failure) -> End:
        failed, reason = ArchiveStatus.FAILED, ArchiveReason.STORAGE_ERROR
        return End(failure.position, 0, failed, reason, failure.message, self._started_at)

    def _finish(self, end: End) -> ArchiveResult:
        self._finished.add(end.position)
        account = self._accounts.pop(end.position, _Account())
        return ArchiveResult(
            archive=self._todo[end.position],
            status=end.status,
            reason=end.reason,
            message=end.message,
            units=tuple(account.units.values()) if end.status.is_readable else (),
            counts=account.counts if end.status.is_readable else NOTHING,
            started_at=datetime.fromtimestamp(end.started_at, UTC),
            finished_at=datetime.now(UTC),
        )
