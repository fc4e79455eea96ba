"""The predictions by study: which radiographs a report is about, and what it may state of them."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from implant_model import __version__
from implant_model.errors import Outcome, Reason, UsageError
from jobs.auditing.output import Output
from jobs.exporting.report_header import is_uid

FORMAT: Final = 1
"""Of the reports; raised when their content changes for the same predictions."""
COLUMNS: Final = (
    *("archive", "archive_version", "member_index", "patient", "study", "series", "instance"),
    *("accession", "laterality", "outcome", "reason", "implant", "joint", "probability"),
    *("candidates", "top", "novelty", "doubts"),
)
NOT_REPORTED: Final = frozenset(
    {Reason.NON_IMAGE_OBJECT, Reason.NOT_A_RADIOGRAPH, Reason.NOT_AN_IMAGE, Reason.CLUTTER}
)
"""Of members that no report is about: other images of the study, and what is no image."""
_PSEUDONYM: Final = re.compile("[0-9a-f]{32}")
_IDENTIFIERS: Final = ("study", "series", "instance")


class NoReportError(Exception):
    """A study that gets no report; the message is one of a closed set and holds no value."""


@dataclass(frozen=True)
class Study:
    """One study's predictions by one model.

    Attributes:
        study: Its identifier in the tables.
        rows: Of its radiographs, in the order of archives and members.
        is_pseudonymous: Whether its identifiers are pseudonyms.
        others: Rows of the study that no report is about.
        uid: SOP Instance UID of its report, which follows from all that it is made of.
    """

    study: str
    rows: Sequence[dict[str, Any]]
    is_pseudonymous: bool
    others: int
    uid: str


class Studies:
    """All studies of an output; each is made when it is asked for.

    Args:
        output: The predictions.

    Raises:
        UsageError: No row has a study.
    """

    def __init__(self, output: Output) -> None:
        there = [name for name in COLUMNS if name in output.dataset.schema.names]
        of_model = pc.field("model") == output.model.id
        rows = output.dataset.to_table(columns=there, filter=of_model)
        known = rows.filter(pc.is_valid(rows["study"]))
        if not len(known):
            raise UsageError(
                f"The {len(rows):,} predictions of {output.model.id} name no study: identifiers "
                "were dropped, or there is no DICOM among them. Classify with --key-file for "
                "reports of pseudonyms, or with --identifiers keep for reports that name patients."
            )
        self.num_without = len(rows) - len(known)
        keys = ("study", "archive", "archive_version", "member_index")
        self._rows = known.sort_by([(name, "ascending") for name in keys]).combine_chunks()
        runs = pc.run_end_encode(self._rows["study"]).combine_chunks()
        chunks = runs.chunks if isinstance(runs, pa.ChunkedArray) else [runs]
        ends = np.concatenate([np.asarray(chunk.run_ends) for chunk in chunks])
        self._bounds = np.concatenate(([0], ends))
        self._model = output.model.id

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def name(self, place: int) -> str:
        """Return the identifier of a study."""
        return str(self._rows["study"][int(self._bounds[place])].as_py())

    def study(self, place: int) -> Study:
        """Return a study.

        Raises:
            NoReportError: Nothing of it can be reported, or its identifiers are none.
        """
        first, end = int(self._bounds[place]), int(self._bounds[place + 1])
        rows: list[dict[str, Any]] = self._rows.slice(first, end - first).to_pylist()
        wanted = [row for row in rows if row["reason"] not in NOT_REPORTED]
        wanted = [row for row in wanted if row["outcome"] != Outcome.IGNORED]
        if not wanted:
            raise NoReportError(NOTHING)
        distinct = [*_distinct(wanted)]
        policies = {_policy(row[name]) for row in distinct for name in _IDENTIFIERS}
        if len(policies) > 1 or None in policies:
            raise NoReportError(NO_UID)
        document = [FORMAT, __version__, self._model, distinct]
        digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
        others = len(rows) - len(wanted)
        name = rows[0]["study"]
        return Study(name, distinct, policies == {"pseudonym"}, others, uid_of(digest[:32]))


NOTHING: Final = "no radiograph in it"
NO_UID: Final = "an identifier that is no UID"
TWICE: Final = "one SOP Instance UID twice, with different predictions"


def _distinct(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield each radiograph once: one that lies in two archives has the same answer in both."""
    seen: dict[str, Any] = {}
    for row in rows:
        where = ("archive", "archive_version", "member_index")
        answer = {name: value for name, value in row.items() if name not in where}
        if row["instance"] not in seen:
            seen[row["instance"]] = answer
            yield row
        elif seen[row["instance"]] != answer:
            raise NoReportError(TWICE)


def _policy(identifier: str | None) -> str | None:
    """Return what an identifier is; None where it is neither UID nor pseudonym."""
    if identifier is None:
        return None
    if is_uid(identifier):
        return "uid"
    return "pseudonym" if _PSEUDONYM.fullmatch(identifier) else None


def uid_of(digits: str) -> str:
    """Return a UID of 32 hexadecimal digits, below 2.25 as PS3.5 section B.2 has it of a UUID.

    The digits become a UUID of version 8 (RFC 9562), which leaves the choice of bits to the
    application: the same pseudonym is the same UID in every report.
    """
    number = int(digits, 16)
    number = number & ~(0xF << 76) | (8 << 76)
    number = number & ~(0x3 << 62) | (2 << 62)
    return f"2.25.{number}"
