"""What the decisions come to: each reader's present reading, conflicts, and what is settled.

A reader's present reading of a case is the last one that was not undone. Readings of a record whose
claim has changed since are kept and do not count. Readers agree who found the same, and the same
implant where the record is wrong; an arbitration settles a case whatever the readings are.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.deciding.decisions import Decision, Judgement, Kind, case_id, person


@dataclass(frozen=True)
class CaseStanding:
    """What is decided of one case.

    Attributes:
        readings: The present one of each reader, by `person`, in the order in which they first
            read.
        arbitration: The last one that was not undone.
    """

    readings: Mapping[str, Decision] = field(default_factory=dict)
    arbitration: Decision | None = None

    @property
    def is_conflict(self) -> bool:
        """Return whether readers found different things and nobody has settled it."""
        return self.arbitration is None and len(set(map(_found, self.readings.values()))) > 1

    @property
    def settled(self) -> Decision | None:
        """Return the decision that holds; None where there is none, or a conflict."""
        if self.arbitration is not None:
            return self.arbitration
        if self.is_conflict:
            return None
        return next(iter(self.readings.values()), None)


NOTHING = CaseStanding()


def stand(
    decisions: Sequence[Decision], claims: Mapping[str, str | None]
) -> dict[str, CaseStanding]:
    """Return what is decided, by case.

    Args:
        decisions: All of them, in the order of their time.
        claims: What each case's record means now; decisions of others are left out.
    """
    undone = {decision.undoes for decision in decisions if decision.kind is Kind.UNDO}
    readings: dict[str, dict[str, Decision]] = defaultdict(dict)
    arbitrations: dict[str, Decision] = {}
    for decision in decisions:
        is_present = decision.case in claims and decision.claimed == claims[decision.case]
        if not is_present or decision.id in undone or decision.judgement is None:
            continue
        if decision.kind is Kind.ARBITRATION:
            arbitrations[decision.case] = decision
        else:
            readings[decision.case][person(decision.reader)] = decision
    return {
        case: CaseStanding(readings.get(case, {}), arbitrations.get(case))
        for case in readings.keys() | arbitrations.keys()
    }


def judged(
    rows: Iterable[Mapping[str, Any]], decisions: Sequence[Decision]
) -> dict[int, bool | None]:
    """Return what is settled of an audit's records: by row whether it is wrong.

    None: that it was read, and cannot be judged. What is not settled is left out.

    Args:
        rows: With `row`, `claimed` and, where the registry's file has them, `record` and `key`.
        decisions: All of them, in the order of their time.
    """
    found = list(rows)
    ids = [case_id(row.get("record"), row.get("key"), row["row"]) for row in found]
    claims = {case: row.get("claimed") for case, row in zip(ids, found, strict=True)}
    standing = stand(decisions, claims)
    settled = {case: standing[case].settled for case in ids if case in standing}
    wrong = {Judgement.RECORD_WRONG: True, Judgement.RECORD_RIGHT: False}
    return {
        row["row"]: wrong.get(decision.judgement)
        for case, row in zip(ids, found, strict=True)
        if (decision := settled.get(case)) is not None and decision.judgement is not None
    }


def num_stale(decisions: Sequence[Decision], claims: Mapping[str, str | None]) -> int:
    """Return decisions of cases that this audit does not have, or whose record has changed."""
    return sum(
        decision.case not in claims or decision.claimed != claims[decision.case]
        for decision in decisions
        if decision.kind is not Kind.UNDO
    )


def last_of(decisions: Sequence[Decision], reader: str) -> Decision | None:
    """Return the reader's last decision that is not undone."""
    undone = {decision.undoes for decision in decisions if decision.kind is Kind.UNDO}
    who = person(reader)
    own = (d for d in reversed(decisions) if person(d.reader) == who and d.kind is not Kind.UNDO)
    return next((decision for decision in own if decision.id not in undone), None)


def _found(decision: Decision) -> tuple[Judgement | None, str | None]:
    is_wrong = decision.judgement is Judgement.RECORD_WRONG
    return decision.judgement, alike(decision.implant or "") if is_wrong else None


def alike(implant: str) -> str:
    """Return what two spellings of an implant have in common: not letters' case, nor blanks."""
    return " ".join(implant.casefold().split())
