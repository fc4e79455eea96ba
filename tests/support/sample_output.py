"""An output as `classify` leaves it, with every outcome, published without Ray."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from implant_model import storage
from implant_model.errors import ArchiveReason, ArchiveStatus
from jobs.tables.archive_rows import RunIdentity
from jobs.tables.publish import Tables
from jobs.tables.receipts import Published, Unit
from jobs.tables.records import ArchiveResult, PlannedArchive
from jobs.tables.schema import PREDICTION_ROW, unit_id, unit_path
from jobs.tables.unit_files import publish_unit

MODEL = "phantom@0123456789ab"
OTHER_MODEL = "shoulder@ba9876543210"
BEGUN = datetime(2026, 1, 30, 22, 0, tzinfo=UTC)
ENDED = datetime(2026, 1, 31, 6, 0, tzinfo=UTC)


def classified(outcome: str, implant: str, probability: float, novelty: float) -> dict[str, Any]:
    """The columns of a row that a model has filled."""
    return {
        "outcome": outcome,
        "implant": implant,
        "manufacturer": "A maker",
        "product": implant.title(),
        "joint": "hip",
        "probability": probability,
        "candidates": [implant] if outcome == "identified" else [implant, "knee-c"],
        "top": [{"implant": implant, "probability": probability}],
        "novelty": novelty,
    }


WHOLE = [
    *(classified("identified", "stem-a", 0.9 + i / 1000, 10.0 + i) for i in range(5)),
    classified("identified", "stem-b", 0.8, 20.0),
    classified("ambiguous", "stem-b", 0.5, 30.0),
    classified("unknown", "stem-a", 0.4, 300.0),
    {"outcome": "rejected", "reason": "not_an_image"},
    {"outcome": "ignored", "reason": "clutter"},
]
CUT = [
    classified("identified", "stem-b", 0.7, 15.0),
    {"outcome": "rejected", "reason": "truncated"},
]


def publish_sample(folder: Path, model: str = MODEL, place: str = "out") -> str:
    """Publishes `01.tar` (`WHOLE`) and `cut.tar` (`CUT`) under a model.

    Returns:
        The URI of the output, the folder `place` below `folder`.
    """
    output = storage.normalise(str(folder / place))
    tables = Tables(output, RunIdentity(model, "c0ffee", "0.1.0", "run-1"))
    tables.create()
    tables.commit(
        [
            _result(folder, output, model, "01.tar", WHOLE, None),
            _result(folder, output, model, "cut.tar", CUT, ArchiveReason.TRUNCATED),
        ]
    )
    return output


def _result(
    folder: Path,
    output: str,
    model: str,
    name: str,
    rows: list[dict[str, Any]],
    reason: ArchiveReason | None,
) -> ArchiveResult:
    (folder / name).write_bytes(name.encode())
    info = storage.stat(storage.normalise(str(folder / name)))
    unit = Unit(
        position=0,
        archive=name,
        version=info.version,
        first_member=0,
        members=len(rows),
        num_bytes=len(name),
        path=unit_path(model, unit_id(name, info.version, model, "c0ffee", 0, 0)),
    )
    places = {"archive": name, "archive_version": info.version, "frame": 0}
    table = PREDICTION_ROW.empty_table().from_pylist(
        [{**places, "member_index": i, **row} for i, row in enumerate(rows)], schema=PREDICTION_ROW
    )
    receipt = publish_unit(unit, table, output)
    assert isinstance(receipt, Published)
    return ArchiveResult(
        PlannedArchive(name, info),
        ArchiveStatus.COMPLETE if reason is None else ArchiveStatus.SALVAGED,
        reason,
        "",
        (receipt.file,),
        receipt.counts,
        BEGUN,
        ENDED,
    )
