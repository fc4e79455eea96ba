"""The tables of an output > the counts that a page shows. Reads only.

Both tables are read batch by batch, and of predictions seven columns; what is kept is counts, and
one float32 each of probability and novelty, so that ten million images take some hundred megabytes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from implant_model.errors import ArchiveReason, ArchiveStatus, Outcome, Reason
from jobs.pipeline.health import Health, read_history
from jobs.tables import delta

Floats = npt.NDArray[np.float32]
CLASSIFIED = (Outcome.IDENTIFIED, Outcome.AMBIGUOUS, Outcome.UNKNOWN)
"""Outcomes of members that the networks have seen, in the order of the figures."""
_COLUMNS = ["outcome", "reason", "implant", "manufacturer", "product", "probability", "novelty"]
_OF_ARCHIVES = [
    *("archive", "bytes", "members", "status", "reason", "reasons", str(Outcome.REJECTED)),
    *("started_at", "finished_at", "software_version", "configuration_hash"),
]
MOST_POOR = 20
_NO_FLOATS = np.empty(0, np.float32)


@dataclass(frozen=True)
class IncompleteArchive:
    """An archive that was not read to its proven end."""

    name: str
    status: ArchiveStatus
    reason: ArchiveReason | None
    members: int


@dataclass(frozen=True)
class PoorArchive:
    """A readable archive of which members were rejected, and why most of them were."""

    name: str
    rejected: int
    members: int
    reason: Reason


@dataclass(frozen=True)
class RunFacts:
    """What the tables of one output hold under one model.

    Attributes:
        output: Its URI.
        model: `name@hash` of the package.
        archives: Number by status.
        num_bytes: Stored size of the archives.
        incomplete: Those that are not `complete`, by name.
        outcomes: Members by outcome.
        reasons: Rejected members by reason.
        implants: Members by best candidate, for `identified` and for `ambiguous`.
        probability: Of the best candidate, by outcome of those that were classified.
        novelty: Likewise.
        started_at: Begin of the first archive's reading, UTC; None where there is no archive.
        finished_at: End of the last one's.
        software: Versions that wrote the rows.
        configurations: Their configuration hashes.
        products: Manufacturer and product of each implant that was seen, as the rows have them.
        poor: The archives with the most rejected members, most first.
        last_run: Counts and shifts of the last run that wrote; None where there is no record.
    """

    output: str
    model: str
    archives: Mapping[ArchiveStatus, int]
    num_bytes: int
    incomplete: Sequence[IncompleteArchive]
    outcomes: Mapping[Outcome, int]
    reasons: Mapping[Reason, int]
    implants: Mapping[Outcome, Mapping[str, int]]
    probability: Mapping[Outcome, Floats] = field(repr=False)
    novelty: Mapping[Outcome, Floats] = field(repr=False)
    started_at: datetime | None
    finished_at: datetime | None
    software: Sequence[str]
    configurations: Sequence[str]
    products: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)
    poor: Sequence[PoorArchive] = ()
    last_run: Health | None = None

    @property
    def members(self) -> int:
        """Return rows of the predictions."""
        return sum(self.outcomes.values())

    @property
    def classified(self) -> int:
        """Return members that the networks have seen."""
        return sum(self.outcomes.get(outcome, 0) for outcome in CLASSIFIED)


def read_facts(output: str, model: str) -> RunFacts:
    """Count what an output holds under one model.

    Args:
        output: Normalised URI.
        model: `name@hash`, as in the column `model`.

    Raises:
        UsageError: There are no tables.
        StorageError: A table cannot be read.
    """
    predictions, archives = delta.open_tables(output)
    read, tally = ArchiveTally(), Tally()
    for batch in delta.row_batches(archives, _OF_ARCHIVES, model=model):
        read.add(batch)
    of_model = pc.field("model") == model  # the partition column: other files are not opened
    for batch in delta.Rows(predictions).to_batches(_COLUMNS, of_model):
        tally.add(batch)
    return RunFacts(
        output=output,
        model=model,
        archives=read.statuses,
        num_bytes=read.num_bytes,
        incomplete=sorted(read.incomplete, key=lambda archive: archive.name),
        outcomes=tally.outcomes,
        reasons=tally.reasons,
        implants=tally.implants,
        probability=_joined(tally.probability),
        novelty=_joined(tally.novelty),
        started_at=read.started_at,
        finished_at=read.finished_at,
        software=sorted(read.software),
        configurations=sorted(read.configurations),
        products=tally.products,
        poor=read.poor,
        last_run=_last_run(output, model, read.finished_at),
    )


@dataclass
class ArchiveTally:
    """Counts of the archives while their rows are read."""

    statuses: Counter[ArchiveStatus] = field(default_factory=Counter)
    num_bytes: int = 0
    incomplete: list[IncompleteArchive] = field(default_factory=list)
    poor: list[PoorArchive] = field(default_factory=list)
    software: set[str] = field(default_factory=set)
    configurations: set[str] = field(default_factory=set)
    started_at: datetime | None = None
    finished_at: datetime | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        """Count some rows of the table `archives`."""
        if not batch.num_rows:
            return
        for pair in pc.value_counts(batch["status"]).to_pylist():
            self.statuses[ArchiveStatus(pair["values"])] += pair["counts"]
        self.num_bytes += pc.sum(batch["bytes"]).as_py()
        self.software.update(pc.unique(batch["software_version"]).to_pylist())
        self.configurations.update(pc.unique(batch["configuration_hash"]).to_pylist())
        begun, ended = pc.min(batch["started_at"]).as_py(), pc.max(batch["finished_at"]).as_py()
        self.started_at = min(begun, self.started_at or begun)
        self.finished_at = max(ended, self.finished_at or ended)
        is_cut = pc.not_equal(batch["status"], str(ArchiveStatus.COMPLETE))
        is_poor = pc.greater(batch[str(Outcome.REJECTED)], 0)
        self.incomplete += map(_incomplete, batch.filter(is_cut).to_pylist())
        poor = (_poor(row) for row in batch.filter(is_poor).to_pylist())
        found = [*self.poor, *(archive for archive in poor if archive is not None)]
        self.poor = sorted(found, key=lambda archive: (-archive.rejected, archive.name))[:MOST_POOR]


@dataclass
class Tally:
    """Counts of the predictions while they are read."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    reasons: Counter[Reason] = field(default_factory=Counter)
    implants: dict[Outcome, Counter[str]] = field(
        default_factory=lambda: {Outcome.IDENTIFIED: Counter(), Outcome.AMBIGUOUS: Counter()}
    )
    probability: dict[Outcome, list[Floats]] = field(
        default_factory=lambda: {outcome: [] for outcome in CLASSIFIED}
    )
    novelty: dict[Outcome, list[Floats]] = field(
        default_factory=lambda: {outcome: [] for outcome in CLASSIFIED}
    )
    products: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)

    def add(self, batch: pa.RecordBatch) -> None:
        """Count one batch of predictions."""
        table = pa.Table.from_batches([batch])
        outcome_N = np.array(table["outcome"].to_pylist(), dtype=object)
        reason_N, implant_N = table["reason"].to_pylist(), table["implant"].to_pylist()
        named = table.select(["implant", "manufacturer", "product"]).drop_null()
        for row in named.group_by(named.column_names).aggregate([]).to_pylist():
            self.products[row["implant"]] = row["manufacturer"], row["product"]
        for outcome, reason, implant in zip(outcome_N, reason_N, implant_N, strict=True):
            self.outcomes[Outcome(outcome)] += 1
            if outcome == Outcome.REJECTED:
                self.reasons[Reason(reason)] += 1
            elif outcome in self.implants:
                self.implants[outcome][implant] += 1
        for name, kept in (("probability", self.probability), ("novelty", self.novelty)):
            value_N = np.array(table[name].to_numpy(), dtype=np.float32)
            for outcome in CLASSIFIED:
                kept[outcome].append(value_N[outcome_N == outcome])


def _incomplete(row: Mapping[str, Any]) -> IncompleteArchive:
    reason = None if row["reason"] is None else ArchiveReason(row["reason"])
    return IncompleteArchive(row["archive"], ArchiveStatus(row["status"]), reason, row["members"])


def _poor(row: Mapping[str, Any]) -> PoorArchive | None:
    """Return what an archive with rejected members is; None where all are mere clutter."""
    reasons = {Reason(pair["reason"]): pair["members"] for pair in row["reasons"]}
    reasons.pop(Reason.CLUTTER, None)
    if not reasons:
        return None
    most = max(reasons, key=lambda reason: reasons[reason])
    return PoorArchive(row["archive"], row[Outcome.REJECTED], row["members"], most)


def _last_run(output: str, model: str, ended: datetime | None) -> Health | None:
    since = (ended or datetime.now(UTC)) - timedelta(weeks=1)
    return next(reversed(read_history(output, model, since)), None)


def _joined(pieces: Mapping[Outcome, list[Floats]]) -> dict[Outcome, Floats]:
    return {outcome: np.concatenate([_NO_FLOATS, *kept]) for outcome, kept in pieces.items()}
