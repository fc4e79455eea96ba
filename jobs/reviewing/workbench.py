"""What one reader may do with an audit: queues, the next case, decide, undo, and what is known.

A queue serves each case once. `worklist` and `sample` serve cases that nobody has read, `second`
those that another reader alone has read, without what that one found, and `arbitration` conflicts
of two other readers, with what they found and without who it was.
"""

import threading
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from implant_model import __version__
from implant_model.errors import UsageError
from implant_model.package.catalogue import MAX_NAME as MAX_IMPLANT
from jobs.auditing.verdicts import Verdict as AuditVerdict
from jobs.deciding.agreement import ac1, kappa, table_of, with_interval
from jobs.deciding.decisions import (
    MAX_TEXT,
    Decision,
    DecisionTable,
    Judgement,
    Kind,
    Queue,
    SeenImage,
    is_id,
    person,
    written,
)
from jobs.deciding.standing import (
    NOTHING,
    CaseStanding,
    alike,
    judged,
    last_of,
    num_stale,
    stand,
)
from jobs.deciding.verified_rate import VerifiedRate, estimate
from jobs.reviewing.cases import Case, ReviewedAudit
from jobs.reviewing.originals import Originals
from training.metrics import Figure

READERS: Final = 2
"""Readings of a case, before an arbitration."""
RESOLUTION: Final = timedelta(microseconds=1)
"""Of a decision's time in the table."""
NOT_KNOWN: Final = AuditVerdict.NOT_IN_CATALOGUE.word
"""Verdict on a record whose texts mean nothing known: a reader may say what they mean."""
AHEAD: Final = 2
"""Cases that are decoded ahead."""


@dataclass(frozen=True)
class Progress:
    """How far a queue is.

    Attributes:
        left: Ids of the cases that it still serves, in order.
        done: Cases that were in it and are done.
    """

    left: Sequence[str]
    done: int

    @property
    def total(self) -> int:
        """Return cases, done or not."""
        return len(self.left) + self.done


@dataclass(frozen=True)
class Agreement:
    """How far two readers agree.

    Attributes:
        readers: Their names.
        same: Share of cases in which both found the same.
        kappa: Cohen's.
        ac1: Gwet's.
    """

    readers: tuple[str, str]
    same: float
    kappa: Figure
    ac1: Figure


@dataclass(frozen=True)
class Verdict:
    """What a page sends: a judgement that is not a decision yet.

    Attributes:
        id: 32 hex digits that the page drew.
        case: Of the case.
        queue: Where it was served.
        judgement: What was found.
        implant: What was implanted instead, or nothing.
        note: Free text, or nothing.
        seconds: For how long the case was looked at.
    """

    id: str
    case: str
    queue: Queue
    judgement: Judgement
    implant: str = ""
    note: str = ""
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if not is_id(self.id):
            raise UsageError("The decision has no id of 32 hexadecimal digits.")
        for name in ("implant", "note"):
            if len(getattr(self, name)) > MAX_TEXT:
                raise UsageError(f"The {name} has more than {MAX_TEXT:,} characters.")
        if not 0 <= self.seconds < float("inf"):
            raise UsageError("The time that the case was looked at is impossible.")


@dataclass
class Workbench:
    """One reader at one audit; its methods may be called by several threads.

    Attributes:
        audit: What is reviewed.
        table: Of the decisions.
        originals: Of the radiographs.
        reader: The reader's name.
    """

    audit: ReviewedAudit
    table: DecisionTable
    originals: Originals
    reader: str
    _ahead: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "ahead"))
    _begun: dict[str, datetime] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._claims = self.audit.claims
        self._implants = _spellings(self.audit.titles)
        sample = self.audit.sample_table
        names = ("row", "record", "key", "claimed")
        self._sampled = (
            []
            if sample is None
            else sample.select([n for n in names if n in sample.column_names]).to_pylist()
        )
        self._estimated: tuple[object, VerifiedRate] | None = None
        self._stood: tuple[object, Mapping[str, CaseStanding]] | None = None

    def standing(self) -> Mapping[str, CaseStanding]:
        """Return what is decided, by case."""
        decisions = self.table.all()
        known = self._stood
        if known is None or known[0] is not decisions:
            known = self._stood = decisions, stand(decisions, self._claims)
        return known[1]

    def decisions(self) -> Sequence[Decision]:
        """Return all decisions, in the order of their time."""
        return self.table.all()

    @property
    def num_stale(self) -> int:
        """Return decisions that belong to no case of this audit as it is now."""
        return num_stale(self.table.all(), self._claims)

    def progress(
        self, name: Queue, standing: Mapping[str, CaseStanding], words: str = ""
    ) -> Progress:
        """Return what a queue still serves to this reader.

        Args:
            name: The queue.
            standing: What is decided.
            words: Serve cases alone in whose record all of these words are.
        """
        wanted = words.lower().split()
        left, done = [], 0
        for case in self.queue(name):
            if not self.audit.cases[case].has(wanted):
                continue
            place = self._place(name, standing.get(case, NOTHING))
            if place == "left":
                left.append(case)
            done += place == "done"
        return Progress(left, done)

    def queue(self, name: Queue) -> Sequence[str]:
        """Return the cases that a queue may ever serve, in its order."""
        if name is Queue.WORKLIST:
            return self.audit.worklist
        if name is Queue.SAMPLE:
            return self.audit.sample
        return list(dict.fromkeys([*self.audit.sample, *self.audit.worklist]))

    def _place(self, name: Queue, standing: CaseStanding) -> str:
        """Return whether a case is `left`, `done` or `not` in a queue for this reader."""
        readings, own = standing.readings, person(self.reader)
        is_own = own in readings
        if name in (Queue.WORKLIST, Queue.SAMPLE):
            return "done" if readings or standing.arbitration else "left"
        if name is Queue.SECOND:
            if is_own and next(iter(readings)) != own:
                return "done"
            is_open = standing.arbitration is None and 0 < len(readings) < READERS
            return "left" if is_open and not is_own else "not"
        if standing.arbitration is not None:
            return "done" if person(standing.arbitration.reader) == own else "not"
        return "left" if standing.is_conflict and not is_own else "not"

    def own(self, standing: CaseStanding) -> Decision | None:
        """Return this reader's reading of a case; None without one."""
        return standing.readings.get(person(self.reader))

    def is_blind(self, case: Case, name: Queue) -> bool:
        """Return whether a case is served without what model and audit make of it."""
        return case.inclusion is not None and name is not Queue.WORKLIST

    def following(self, progress: Progress, name: Queue, after: str | None) -> str | None:
        """Return the case that a queue serves after another, from its beginning behind the last."""
        if after is None or not progress.left:
            return next(iter(progress.left), None)
        order = {case: place for place, case in enumerate(self.queue(name))}
        here = order.get(after, -1)
        later = (case for case in progress.left if order[case] > here)
        return next(later, progress.left[0])

    def read_ahead(self, progress: Progress, name: Queue, case: str | None) -> None:
        """Have the radiographs of the next cases decoded before they are asked for."""
        for _ in range(AHEAD):
            case = None if case is None else self.following(progress, name, case)
            if case is not None:
                self._ahead.submit(self._read_ahead, case)

    def _read_ahead(self, case: str) -> None:
        for image in self.audit.radiographs(case):
            if image.place is not None:
                self.originals.original(image.place)

    def close(self) -> None:
        """Let go of what is read ahead."""
        self._ahead.shutdown(cancel_futures=True)

    def begin(self, case: str) -> None:
        """Note that a case is shown."""
        with self._lock:
            self._begun.setdefault(case, datetime.now(UTC))

    def decide(self, verdict: Verdict) -> bool:
        """Keep a decision; return False where it is kept already.

        Raises:
            UsageError: There is no such case, or it is not this reader's to decide.
            StorageError: It could not be written; then it is not kept.
        """
        case = self.audit.cases.get(verdict.case)
        if case is None:
            raise UsageError("The audit has no such case; it may have been made again.")
        self._check_turn(verdict)
        now = self._moment(case.id)
        begun = self._begun.get(case.id, now)
        decision = self._decision(case, verdict.queue, begun, now, verdict.id)
        arbitrates = verdict.queue is Queue.ARBITRATION
        is_new = self.table.append(
            Decision(
                **decision,
                kind=Kind.ARBITRATION if arbitrates else Kind.READING,
                judgement=verdict.judgement,
                implant=self._implant(case, verdict),
                note=written(verdict.note),
                undoes=None,
                seconds=round(verdict.seconds, 1),
            )
        )
        with self._lock:
            self._begun.pop(case.id, None)
        return is_new

    def _moment(self, case: str) -> datetime:
        """Return the time of a decision that comes now, behind all that it comes behind.

        The clock of another computer, whose decisions were merged, may be ahead.
        """
        own = person(self.reader)
        before = (
            found.decided_at + RESOLUTION
            for found in self.table.all()
            if found.case == case or person(found.reader) == own
        )
        return max([datetime.now(UTC), *before])

    def _implant(self, case: Case, verdict: Verdict) -> str | None:
        """Return what a reader says was implanted, as the catalogue spells it where it has it.

        Raises:
            UsageError: The record is to be wrong, and names this very implant.
        """
        is_wrong = verdict.judgement is Judgement.RECORD_WRONG
        if not is_wrong and not (
            verdict.judgement is Judgement.RECORD_RIGHT and case.verdict == NOT_KNOWN
        ):
            return None
        text = written(verdict.implant)
        implant = None if text is None else self._implants.get(alike(text), text)
        if implant is not None and not (len(implant) <= MAX_IMPLANT and implant.isprintable()):
            raise UsageError(
                f"An implant's name has at most {MAX_IMPLANT} characters, all of them printable: "
                "write more in the note."
            )
        if is_wrong and implant is not None and implant == case.claimed:
            raise UsageError(
                "That is the implant that the record names: find the record right, or name another."
            )
        return implant

    def _check_turn(self, verdict: Verdict) -> None:
        """Refuse an arbitration by one of those who disagree, or of what is no conflict."""
        if verdict.queue is not Queue.ARBITRATION:
            return
        if any(decision.id == verdict.id for decision in self.table.all()):
            return  # sent again
        standing = self.standing().get(verdict.case, NOTHING)
        if self.own(standing) is not None:
            raise UsageError("A third reader arbitrates; this case was read by you.")
        if not standing.is_conflict:
            raise UsageError("The case is no conflict any more; another has settled it.")

    def undo(self) -> str | None:
        """Undo this reader's last decision; return its case, None where there is none.

        Raises:
            StorageError: It could not be written; then the decision holds.
        """
        last = last_of(self.table.all(), self.reader)
        if last is None or last.case not in self.audit.cases:
            return None
        now = self._moment(last.case)
        case = self.audit.cases[last.case]
        self.table.append(
            Decision(
                **self._decision(case, last.queue, now, now, uuid.uuid4().hex),
                kind=Kind.UNDO,
                judgement=None,
                implant=None,
                note=None,
                undoes=last.id,
                seconds=0.0,
            )
        )
        return last.case

    def _decision(
        self, case: Case, queue: str, begun: datetime, now: datetime, id: str
    ) -> dict[str, Any]:
        """Return the fields that decisions and undoings share."""
        return {
            "id": id,
            "case": case.id,
            "row": case.row,
            "record": case.record,
            "claimed": case.claimed,
            "queue": str(queue),
            "reader": self.reader,
            "begun_at": begun,
            "decided_at": now,
            "images": self._seen(case),
            "software": __version__,
            "audit": str(self.audit.summary["made_at"]),
            "model": self.audit.output.model.id,
        }

    def _seen(self, case: Case) -> tuple[SeenImage, ...]:
        images = self.audit.radiographs(case.id)
        return tuple(
            SeenImage(
                archive,
                "" if image.predicted is None else image.predicted["archive_version"],
                index,
                image.place is not None and self.originals.was_shown(image.place),
            )
            for image, (archive, index, _) in zip(images, case.images, strict=True)
        )

    def agreements(self, standing: Mapping[str, CaseStanding]) -> list[Agreement]:
        """Return how far each pair of readers agrees, over the cases that both have read."""
        pairs: dict[tuple[str, str], list[tuple[Judgement, Judgement]]] = {}
        names: dict[str, str] = {}
        for found in standing.values():
            readers = sorted(found.readings)
            names |= {reader: found.readings[reader].reader for reader in readers}
            for at, one in enumerate(readers):
                for other in readers[at + 1 :]:
                    both = found.readings[one].judgement, found.readings[other].judgement
                    if both[0] is not None and both[1] is not None:
                        pairs.setdefault((one, other), []).append((both[0], both[1]))
        return [
            _agreement((names[one], names[other]), found)
            for (one, other), found in sorted(pairs.items())
        ]

    def verified(self) -> VerifiedRate | None:
        """Return the registry's rate of errors by what was verified; None without a sample."""
        sample = self.audit.sample_table
        if sample is None:
            return None
        decisions = self.table.all()
        known = self._estimated
        if known is None or known[0] is not decisions:
            known = decisions, estimate(sample, judged(self._sampled, decisions))
            self._estimated = known
        return known[1]


def _agreement(readers: tuple[str, str], found: Sequence[tuple[Judgement, Judgement]]) -> Agreement:
    counts = table_of([one for one, _ in found], [other for _, other in found], list(Judgement))
    same = sum(one is other for one, other in found) / len(found)
    return Agreement(readers, same, with_interval(kappa, counts), with_interval(ac1, counts))


def _spellings(titles: Mapping[str, str]) -> dict[str, str]:
    """Return the catalogue's name of each implant, by its name and its title, as far as unique."""
    named = [(alike(title), name) for name, title in titles.items()]
    count = Counter(title for title, _ in named)
    known = {title: name for title, name in named if count[title] == 1}
    return known | {alike(name): name for name in titles}
