"""The list of all studies of an output: what became of each, as a table and in words."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from jobs.entry.command import DISCLAIMER, INCOMPLETE, OK
from jobs.exporting.studies import NOTHING, Studies

LIST: Final = "reports.csv"


@dataclass(frozen=True)
class Listed:
    """What became of a study.

    Attributes:
        study: Its identifier in the tables.
        outcome: `written`, `there` or `none`.
        reason: Why there is no report.
        file: The report's name.
        radiographs: In the report.
        others: Rows of the study that are not in it.
    """

    study: str
    outcome: str
    reason: str = ""
    file: str = ""
    radiographs: int = 0
    others: int = 0


def table_of(listed: Sequence[Listed]) -> pa.Table:
    """Return the list, by study."""
    rows = [vars(one) for one in sorted(listed, key=lambda one: one.study)]
    types = [("study", pa.string()), ("outcome", pa.string()), ("reason", pa.string())]
    types += [("file", pa.string()), ("radiographs", pa.int64()), ("others", pa.int64())]
    return pa.Table.from_pylist(rows, pa.schema(types))


def summarise(listed: Sequence[Listed], studies: Studies, folder: Path) -> int:
    """Print what became of the studies; return the exit code."""
    counts = Counter(one.outcome for one in listed)
    print(f"{len(listed):,} studies: {counts['written']:,} reports written", end="")
    print(f", {counts['there']:,} were there already, {counts['none']:,} without a report.")
    reasons = Counter(one.reason for one in listed if one.outcome == "none")
    for reason, count in reasons.most_common():
        print(f"  {count:,} for {reason}")
    if studies.num_without:
        print(f"Without a study, and so in no report: {studies.num_without:,} members.")
    print(f"List: {folder / LIST}\n{DISCLAIMER}")
    return INCOMPLETE if set(reasons) - {NOTHING} else OK
