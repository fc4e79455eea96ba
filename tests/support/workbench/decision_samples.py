"""Decisions for tests."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from jobs.deciding.decisions import Decision, Judgement, Kind, SeenImage

START = datetime(2026, 2, 1, 12, tzinfo=UTC)


def decision(case: str = "c1", reader: str = "Ann", minutes: float = 0, **more: Any) -> Decision:
    """A reading that finds the record right, unless more says otherwise."""
    values: dict[str, Any] = {
        "id": uuid.uuid4().hex, "kind": Kind.READING, "case": case, "row": 1, "record": "R1",
        "claimed": "a", "queue": "worklist", "reader": reader,
        "judgement": Judgement.RECORD_RIGHT, "implant": None, "note": None, "undoes": None,
        "begun_at": START, "decided_at": START + timedelta(minutes=minutes), "seconds": 1.5,
        "images": (SeenImage("01.tar", "v1", 3, True),), "software": "0", "audit": "2026",
        "model": "m@0",
    }  # fmt: skip
    return Decision(**values | more)


def undo(of: Decision, minutes: float) -> Decision:
    return decision(of.case, of.reader, minutes, kind=Kind.UNDO, judgement=None, undoes=of.id)
