"""What has arrived of each planned archive: receipts in, results of whole archives out."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from implant_model.errors import ArchiveReason, ArchiveStatus
from jobs.pipeline.plan import PlannedArchive
from jobs.tables.publish import ArchiveResult

UNFINISHED: Final = (
    "The processes that worked on it ended before it did, each time that it was tried (out of "
    "memory, a lost node, or a crash that it causes); run the same command again."
)


@dataclass
class _Account:
    """Receipts of one archive; a unit that arrives twice counts once."""

    units: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    implants: Counter[str] = field(default_factory=Counter)
    novelty: Counter[str] = field(default_factory=Counter)
    end: Mapping[str, Any] | None = None
    error: str | None = None

    @property
    def members(self) -> int:
        return sum(unit["members"] for unit in self.units.values())

    @property
    def is_whole(self) -> bool:
        """Whether the end has come and every member before it is in a published unit."""
        return self.end is not None and self.members == self.end["members"]


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
        """Archives whose result is known."""
        return len(self._finished)

    def add(self, receipt: Mapping[str, Any]) -> ArchiveResult | None:
        """Enters a receipt; returns the archive's result if this was the last one missing."""
        position = receipt["position"]
        if position in self._finished:
            return None
        account = self._accounts.setdefault(position, _Account())
        if "error" in receipt:
            account.error = receipt["error"]
        elif "unit" in receipt:
            self._add_unit(account, receipt)
        else:
            account.end = receipt
        if account.error is not None:
            return self._finish(position, _failure(account.error))
        if account.is_whole:
            return self._finish(position, account.end or {})
        return None

    def missing(self) -> list[int]:
        """Positions of the archives whose result is not known."""
        return [p for p in range(len(self._todo)) if p not in self._finished]

    def close(self) -> list[ArchiveResult]:
        """Results of the archives whose receipts never came: failed, to be read again."""
        return [self._finish(position, _failure(UNFINISHED)) for position in self.missing()]

    @staticmethod
    def _add_unit(account: _Account, receipt: Mapping[str, Any]) -> None:
        unit = receipt["unit"]
        if unit["path"] not in account.units:
            account.units[unit["path"]] = unit
            account.outcomes.update(receipt["outcomes"])
            account.reasons.update(receipt["reasons"])
            account.implants.update(receipt["implants"])
            account.novelty.update(receipt["novelty"])

    def _finish(self, position: int, end: Mapping[str, Any]) -> ArchiveResult:
        self._finished.add(position)
        account = self._accounts.pop(position, _Account())
        status = ArchiveStatus(end["status"])
        return ArchiveResult(
            archive=self._todo[position],
            status=status,
            reason=None if end["reason"] is None else ArchiveReason(end["reason"]),
            message=end["message"],
            units=tuple(account.units.values()) if status.is_readable else (),
            outcomes=account.outcomes if status.is_readable else {},
            reasons=account.reasons if status.is_readable else {},
            implants=account.implants if status.is_readable else {},
            novelty=account.novelty if status.is_readable else {},
            started_at=datetime.fromtimestamp(end.get("started_at", self._started_at), UTC),
            finished_at=datetime.now(UTC),
        )


def _failure(message: str) -> dict[str, Any]:
    return {
        "status": ArchiveStatus.FAILED,
        "reason": ArchiveReason.STORAGE_ERROR,
        "message": message,
    }
