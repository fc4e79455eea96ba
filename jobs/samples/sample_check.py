"""Is the output what the sample archives must give? Expectations against rows and tables."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from implant_model import storage
from implant_model.errors import ArchiveStatus, Outcome
from jobs.entry.command import INCOMPLETE, OK
from jobs.pages.comparison import Judged
from jobs.pages.run_facts import RunFacts
from jobs.samples.sample_archives import CUT, Truth
from jobs.tables import delta
from jobs.tables.loose_names import find_files
from jobs.tables.schema import PREDICTIONS

Rows = Mapping[tuple[str, int], Mapping[str, Any]]
"""Rows of the table `predictions` by archive and member."""


def read_predictions(output: str, model: str, archives: str) -> Rows:
    """Return all rows of one model: those of the samples, some hundred.

    Args:
        output: Normalised URI of the tables.
        model: The package's id.
        archives: Normalised URI of the samples, which are named as they are there: the tables key
            the names of those that lie loose.
    """
    table = delta.open_table(storage.join(output, PREDICTIONS))
    rows = [] if table is None else delta.read_rows(table, model)
    names = {
        name: storage.relative(planned.info.uri, archives)
        for name, planned in find_files(output, [archives])
    }
    return {(names.get(row["archive"], row["archive"]), row["member_index"]): row for row in rows}


def judge(rows: Rows, truths: Sequence[Truth]) -> list[Judged]:
    """Return the phantoms' rows beside what they show."""
    return [
        Judged(truth.label, Outcome(row["outcome"]), row["implant"], row["candidates"] or ())
        for truth in truths
        if truth.label and (row := rows.get((truth.archive, truth.member_index))) is not None
    ]


def find_faults(
    rows: Rows, truths: Sequence[Truth], facts: RunFacts, code: int, findings: int
) -> list[str]:
    """Return what is not as the samples must make it, a sentence each.

    Args:
        rows: The predictions.
        truths: What is known of every member.
        facts: Counts of the tables.
        code: Exit code of `classify`.
        findings: Exit code of `verify`.
    """
    faults = sorted(_row_faults(rows, truths))
    if facts.members != len(rows):
        faults.append(f"{facts.members} rows speak of {len(rows)} members; one each is right.")
    if [(a.name, a.status) for a in facts.incomplete] != [(CUT, ArchiveStatus.SALVAGED)]:
        faults.append(f"{CUT} alone should be incomplete; the table archives differs.")
    if code != INCOMPLETE:
        faults.append(f"classify ended with {code}; {INCOMPLETE} is right, since {CUT} is cut.")
    if findings != OK:
        faults.append("verify found published rows that are not whole.")
    return faults


def _row_faults(rows: Rows, truths: Sequence[Truth]) -> Iterator[str]:
    expected = {(truth.archive, truth.member_index): truth.reason for truth in truths}
    for archive, index in rows.keys() - expected.keys():
        yield f"{archive}: member {index} has a row and is not there."
    for (archive, index), reason in expected.items():
        row = rows.get((archive, index))
        if row is None:
            yield f"{archive}: member {index} has no row."
        elif row["reason"] != reason:
            yield f"{archive}: member {index} has the reason {row['reason']}; {reason} is right."
