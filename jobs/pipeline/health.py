"""The health of a run: what became of its members, and whether they are like those of late.

Each run that read something leaves one JSON object in `OUTPUT/health/`, put once. It holds counts
alone, so that the next runs have the last weeks' distributions without reading a prediction.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from implant_model import storage
from implant_model.errors import NotFoundError, Outcome
from jobs.pipeline.drift import Shift, measure_novelty_shift, measure_shift
from jobs.tables.archive_rows import RunIdentity
from jobs.tables.receipts import Counts
from jobs.tables.records import ArchiveResult

HEALTH: Final = "health"
"""Folder of the health records, beside the tables."""
WEEKS: Final = 4
"""How far back a run is compared: long enough for a week's rhythm, short enough for a new scanner
to become usual."""
MIN_RUNS: Final = 5
"""Runs there must have been: an initial load is not what a night is like."""
MIN_BEFORE: Final = 1000
MIN_NOW: Final = 200
"""Members for which a distribution is compared at all. Members come in studies and by hospital, so
that their number states more than they do."""


@dataclass(frozen=True)
class Health:
    """Counts of one run, and what they say.

    Attributes:
        run: Its identity.
        model: The package's `name@hash`.
        software_version: That wrote it.
        finished_at: ISO 8601, UTC.
        seconds: From the run's begin to its last archive's end.
        archives: Archives by status.
        outcomes: Members by outcome.
        reasons: Rejected and ignored members by reason.
        implants: Classified members by their best candidate.
        novelty: Classified members by `receipts.novelty_bin`, as text.
        identified: Members whose outcome is `identified`, by implant.
        compared_runs: Runs of the last weeks that this one was compared with.
        shifts: What moved and how far, see `drift`; empty where there is too little to say.
        warnings: What is past a threshold, a sentence each.
    """

    run: str
    model: str
    software_version: str
    finished_at: str
    seconds: float
    archives: Mapping[str, int]
    outcomes: Mapping[str, int]
    reasons: Mapping[str, int]
    implants: Mapping[str, int]
    novelty: Mapping[str, int]
    identified: Mapping[str, int] = field(default_factory=dict)
    compared_runs: int = 0
    shifts: Mapping[str, Shift] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def members(self) -> int:
        """Return members that have rows."""
        return sum(self.outcomes.values())


def take_health(
    results: Sequence[ArchiveResult],
    identity: RunIdentity,
    output: str,
    max_rejected: float,
    max_drift: float,
    began_at: datetime,
) -> Health | None:
    """Count the results, compare them with the last weeks', and leave a record in the output.

    Args:
        results: Of this run's archives; if there are none, nothing is read or written.
        identity: Of this run.
        output: Normalised URI.
        max_rejected: Share of rejected members that is accepted.
        max_drift: Population stability index that is accepted.
        began_at: When the run began.

    Raises:
        StorageError: A record cannot be read or written.
    """
    if not results:
        return None
    counted = _count(results, identity, began_at)
    history = read_history(output, identity.model, datetime.now(UTC) - timedelta(weeks=WEEKS))
    shifts = _compare(counted, history) if len(history) >= MIN_RUNS else {}
    warnings = tuple(_warn(counted, shifts, max_rejected, max_drift))
    health = replace(counted, compared_runs=len(history), shifts=shifts, warnings=warnings)
    name = f"{health.finished_at.replace(':', '').replace('-', '')}-{health.run}.json"
    storage.put_if_absent(storage.join(output, HEALTH, name), _dump(health))
    return health


def read_history(output: str, model: str, since: datetime) -> list[Health]:
    """The records of one model's runs, oldest first; one that cannot be understood is left out.

    Raises:
        StorageError: The store does not answer.
    """
    begin = since.strftime("%Y%m%dT%H%M%S")
    records: list[Health] = []
    try:
        for info in storage.list_objects(storage.join(output, HEALTH) + "/"):
            if info.uri.rsplit("/", 1)[1] >= begin:
                record = _load(storage.read_bytes(info.uri, max_bytes=1 << 20))
                records += [record] if record is not None and record.model == model else []
    except NotFoundError:
        return records
    return records


def _count(results: Sequence[ArchiveResult], identity: RunIdentity, began_at: datetime) -> Health:
    finished_at = max(result.finished_at for result in results)
    counts = Counts.total(result.counts for result in results)
    return Health(
        run=identity.run,
        model=identity.model,
        software_version=identity.software_version,
        finished_at=finished_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        seconds=round((finished_at - began_at).total_seconds(), 1),
        archives=dict(Counter(str(result.status) for result in results)),
        outcomes=dict(counts.outcomes),
        reasons=dict(counts.reasons),
        implants=dict(counts.implants),
        novelty=dict(counts.novelty),
        identified=dict(counts.identified),
    )


def _total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return {str(name): count for name, count in total.items()}


def _compare(now: Health, history: Sequence[Health]) -> dict[str, Shift]:
    """The shifts of outcomes (with their reasons), implants and novelty, where there is enough."""
    shifts: dict[str, Shift] = {}
    for name in ("outcomes", "implants", "novelty"):
        before = _total(_distribution(record, name) for record in history)
        ours = _distribution(now, name)
        if sum(ours.values()) < MIN_NOW or sum(before.values()) < MIN_BEFORE:
            continue
        if name == "novelty":
            shifts[name] = measure_novelty_shift(_by_bin(ours), _by_bin(before))
        else:
            shifts[name] = measure_shift(ours, before)
    return shifts


def _distribution(health: Health, name: str) -> Mapping[str, int]:
    if name != "outcomes":
        counts: Mapping[str, int] = getattr(health, name)
        return counts
    reasoned = (Outcome.REJECTED, Outcome.IGNORED)
    classified = {o: n for o, n in health.outcomes.items() if o not in reasoned}
    return {**classified, **health.reasons}


def _by_bin(counts: Mapping[str, int]) -> dict[int, int]:
    return {int(place): count for place, count in counts.items()}


_CAUSES: Final = {
    "outcomes": "read the reasons in the table archives",
    "implants": "look whether other hospitals or other implants came in",
    "novelty": "look whether a new scanner or another export came in",
}


def _warn(
    now: Health, shifts: Mapping[str, Shift], max_rejected: float, max_drift: float
) -> list[str]:
    warnings = []
    rejected = now.outcomes.get(Outcome.REJECTED, 0)
    if rejected > max_rejected * now.members:
        warnings.append(
            f"{100 * rejected / now.members:.1f} % of the members were rejected; --max-rejected "
            f"accepts {100 * max_rejected:g} %."
        )
    warnings += [
        f"The {name} of this run are not those of the last {WEEKS} weeks: population stability "
        f"index {shift.psi:.2f}, --max-drift accepts {max_drift:g}; {_CAUSES[name]} before the "
        "results are used."
        for name, shift in shifts.items()
        if shift.exceeds(max_drift)
    ]
    return warnings


def _dump(health: Health) -> bytes:
    return (json.dumps(asdict(health), indent=1) + "\n").encode()


def _load(data: bytes) -> Health | None:
    try:
        fields: dict[str, Any] = json.loads(data)
        shifts = {name: Shift(**shift) for name, shift in fields.pop("shifts").items()}
        warnings = tuple(fields.pop("warnings"))
        return Health(**fields, shifts=shifts, warnings=warnings)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
