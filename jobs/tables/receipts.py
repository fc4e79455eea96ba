"""What is read and what is published, as typed values: units, ends of archives, and their receipts.

The reading stage makes a `Unit` for each run of members and an `End` for each archive; publishing
a unit gives a `Published` or a `Failure`; a `Fault` comes from a model that gives no answers. On
their way between processes they are JSON, each with the name of its type: nothing is unpickled.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from implant_model.errors import ArchiveReason, ArchiveStatus, Outcome


@dataclass(frozen=True, slots=True)
class Unit:
    """A run of members of one archive version, as read.

    Attributes:
        position: The archive's place in the plan.
        archive: Its name.
        version: Its version.
        first_member: Index of the unit's first member.
        members: How many members were read.
        num_bytes: Their size in the archive, expanded.
        path: The unit's file, below the predictions table.
        adopted: The output has that file already; the block has no rows of this unit.
    """

    position: int
    archive: str
    version: str
    first_member: int
    members: int
    num_bytes: int
    path: str
    adopted: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """The end of an archive, reached once however the reading went.

    Attributes:
        position: The archive's place in the plan.
        members: Members that were read.
        status: What became of the archive.
        reason: Why it is not complete.
        message: The same for a person; holds no value of the archive's members.
        started_at: When its reading began, seconds since 1970.
    """

    position: int
    members: int
    status: ArchiveStatus
    reason: ArchiveReason | None
    message: str
    started_at: float


@dataclass(frozen=True, slots=True)
class Fault:
    """What keeps the model from giving an answer; it ends the run, and is no archive's.

    Attributes:
        fault: One sentence for the user.
        at_start: Whether no archive has been answered with this model.
    """

    fault: str
    at_start: bool


@dataclass(frozen=True, slots=True)
class UnitFile:
    """A published file of a unit, as the column `units` of the table `archives` holds it.

    Attributes:
        path: Below the predictions table.
        first_member: Index of its first member in the archive.
        members: Number of its rows.
        bytes: Its size.
        sha256: Of its bytes, hexadecimal.
        statistics: Of its rows, see `file_statistics`; no part of that column.
    """

    path: str
    first_member: int
    members: int
    bytes: int
    sha256: str
    statistics: str = ""

    def row(self) -> dict[str, str | int]:
        """Return it as the column `units` has it."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "statistics"}


COUNTED: Final = ("outcome", "reason", "implant", "novelty")
"""Columns of prediction rows that are counted."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Members of a unit, an archive or a run, counted.

    Attributes:
        outcomes: By outcome.
        reasons: By reason, of those that have one.
        implants: By best candidate, of those that were classified.
        novelty: By `novelty_bin`, as text.
        identified: Those whose outcome is `identified`, by implant.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    implants: Counter[str] = field(default_factory=Counter)
    novelty: Counter[str] = field(default_factory=Counter)
    identified: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of_columns(cls, columns: Mapping[str, Sequence[Any]]) -> "Counts":
        """Count prediction rows by their columns `COUNTED`, one value for each row."""
        outcomes, reasons, implants, novelties = (columns[name] for name in COUNTED)
        answers = zip(implants, outcomes, strict=True)
        return cls(
            Counter(outcomes),
            Counter(reason for reason in reasons if reason is not None),
            Counter(implant for implant in implants if implant is not None),
            Counter(str(novelty_bin(n)) for n in novelties if n is not None),
            Counter(implant for implant, outcome in answers if outcome == Outcome.IDENTIFIED),
        )

    @classmethod
    def from_json(cls, values: Mapping[str, Mapping[str, int]]) -> "Counts":
        """Return the counts that `to_json` made dicts of."""
        return cls(**{name: Counter(counts) for name, counts in values.items()})

    def to_json(self) -> dict[str, dict[str, int]]:
        """Return the counts as plain dicts, which `asdict` cannot: it takes Counters apart."""
        return {name: dict(getattr(self, name)) for name in self.__slots__}

    @classmethod
    def total(cls, parts: Iterable["Counts"]) -> "Counts":
        """Add up counts."""
        total = cls()
        for part in parts:
            total.update(part)
        return total

    def update(self, other: "Counts") -> None:
        """Add another's counts."""
        self.outcomes.update(other.outcomes)
        self.reasons.update(other.reasons)
        self.implants.update(other.implants)
        self.novelty.update(other.novelty)
        self.identified.update(other.identified)


@dataclass(frozen=True, slots=True)
class Published:
    """The receipt of a unit whose file is in the store.

    Attributes:
        position: The archive's place in the plan.
        file: What was published, or adopted.
        read_bytes: Size of its members in the archive, expanded.
        counts: Of its rows.
    """

    position: int
    file: UnitFile
    read_bytes: int
    counts: Counts


@dataclass(frozen=True, slots=True)
class Failure:
    """The receipt of a unit that could not be published.

    Attributes:
        position: The archive's place in the plan.
        message: Why, for a person.
    """

    position: int
    message: str


Piece = Unit | End | Fault
"""What a block holds."""
ArchiveReceipt = Published | Failure | End
Receipt = ArchiveReceipt | Fault
"""What the publisher answers for each piece."""

NO_NUMBER: Final = 1 << 20
"""The bin of a novelty that is not finite: above every other."""


def novelty_bin(novelty: float) -> int:
    """The bin of a score of either sign: an eighth of its value wide, and of 1 around zero."""
    return math.floor(8 * math.asinh(novelty)) if math.isfinite(novelty) else NO_NUMBER


def dump_pieces(pieces: Iterable[Piece]) -> str:
    """Return pieces as JSON."""
    return json.dumps([[type(piece).__name__, _attributes(piece)] for piece in pieces])


def dump_receipts(receipts: Iterable[Receipt]) -> str:
    """Return receipts as JSON: files and counts, which many of them share, and what names these."""
    files: dict[UnitFile, int] = {}
    counts: dict[str, int] = {}
    items = []
    for receipt in receipts:
        values = _attributes(receipt)
        if isinstance(receipt, Published):
            values["file"] = files.setdefault(receipt.file, len(files))
            text = json.dumps(receipt.counts.to_json())
            values["counts"] = counts.setdefault(text, len(counts))
        items.append([type(receipt).__name__, values])
    return json.dumps([[_attributes(file) for file in files], list(counts), items])


def _attributes(item: Piece | Receipt | UnitFile) -> dict[str, Any]:
    """Return what `asdict` would, which copies deeply: a loose radiograph would wait for that."""
    return {name: getattr(item, name) for name in item.__slots__}


def load_pieces(text: str) -> list[Piece]:
    """Return the pieces that `dump_pieces` wrote."""
    return [_PIECES[kind](values) for kind, values in json.loads(text)]


def load_receipts(text: str) -> list[Receipt]:
    """Return the receipts that `dump_receipts` wrote; those with one file or equal counts share it.

    A loose radiograph is a receipt, of which a driver holds hundreds of thousands.
    """
    files, counts, items = json.loads(text)
    shared = _Shared(
        [UnitFile(**values) for values in files],
        [Counts.from_json(json.loads(each)) for each in counts],
    )
    return [_RECEIPTS[kind](values, shared) for kind, values in items]


class _Shared(NamedTuple):
    files: Sequence[UnitFile]
    counts: Sequence[Counts]


def _end(values: dict[str, Any]) -> End:
    reason = values.pop("reason")
    return End(
        status=ArchiveStatus(values.pop("status")),
        reason=None if reason is None else ArchiveReason(reason),
        **values,
    )


def _published(values: dict[str, Any], shared: _Shared) -> Published:
    file, counts = shared.files[values.pop("file")], shared.counts[values.pop("counts")]
    return Published(file=file, counts=counts, **values)


_PIECES: Final[Mapping[str, Callable[[dict[str, Any]], Piece]]] = {
    "Unit": lambda values: Unit(**values),
    "End": _end,
    "Fault": lambda values: Fault(**values),
}
_RECEIPTS: Final[Mapping[str, Callable[[dict[str, Any], _Shared], Receipt]]] = {
    "Published": _published,
    "Failure": lambda values, _: Failure(**values),
    "End": lambda values, _: _end(values),
    "Fault": lambda values, _: Fault(**values),
}
