"""Archives as the tables know them: planned, published in this run, and held from runs before."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from implant_model.decode.version import DECODE_VERSION
from implant_model.errors import ArchiveReason, ArchiveStatus
from implant_model.storage import ObjectInfo
from jobs.tables.receipts import Counts, UnitFile


@dataclass(frozen=True, slots=True)
class PlannedArchive:
    """One archive version to read.

    Attributes:
        name: As the tables know it.
        info: The object to read.
        attempt: Counts the readings of this version.
        unreachable: Why listing it failed, if it did.
        pseudonym: Place, size and version as the tables have them where those of `info` would tell
            whose radiograph it is, see `loose_names`.
    """

    name: str
    info: ObjectInfo
    attempt: int = 0
    unreachable: ArchiveReason | None = None
    pseudonym: ObjectInfo | None = None

    @property
    def known(self) -> ObjectInfo:
        """Return place, size and version as the tables have them."""
        return self.pseudonym or self.info


@dataclass(frozen=True, slots=True)
class ArchiveRecord:
    """What the table `archives` holds of an archive version under the model of this run.

    `has_rows` is False where `predictions` lacks its rows: they made way for a newer version's in a
    run that died before it had written that version's row, and now this version is back.
    """

    archive: str
    version: str
    source: str
    status: ArchiveStatus
    reason: ArchiveReason | None
    attempt: int
    members: int
    outcomes: Mapping[str, int]
    member_reasons: Mapping[str, int]
    has_rows: bool = True
    decode_version: int = DECODE_VERSION


@dataclass(frozen=True, slots=True)
class ArchiveResult:
    """What became of one archive in this run.

    Attributes:
        archive: As planned.
        status: What became of it.
        reason: Why it is not complete.
        message: The same for a person.
        units: Its files below the predictions table.
        counts: Of its members.
        started_at: Begin of its reading, UTC.
        finished_at: Arrival of its last receipt, UTC.
    """

    archive: PlannedArchive
    status: ArchiveStatus
    reason: ArchiveReason | None
    message: str
    units: tuple[UnitFile, ...]
    counts: Counts
    started_at: datetime
    finished_at: datetime

    @property
    def members(self) -> int:
        """Return members that have rows."""
        return sum(unit.members for unit in self.units)

    @property
    def outcomes(self) -> Mapping[str, int]:
        """Return members by outcome."""
        return self.counts.outcomes

    @property
    def is_readable(self) -> bool:
        """Whether it was read; a `failed` or `changed` archive leaves older rows as they are."""
        return self.status.is_readable
