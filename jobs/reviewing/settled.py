"""What people settled, for the next training and the next audit: labels, and synonyms of names."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from implant_model import storage
from implant_model.errors import Outcome, UsageError
from implant_model.storage.local_files import write_whole
from jobs.auditing import files
from jobs.auditing.registry.synonyms import bare, read_rows, read_synonyms
from jobs.deciding.decisions import Decision, Judgement
from jobs.deciding.standing import CaseStanding, alike
from jobs.reviewing.cases import Case, ReviewedAudit
from jobs.reviewing.originals import Originals
from jobs.tables.loose_names import is_loose

LABEL_COLUMNS: Final = ("archive", "member", "label", "patient")
_ELSE: Final = ""
"""A meaning that is nothing of the catalogue."""
_SEEN: Final = (Outcome.IDENTIFIED, Outcome.AMBIGUOUS, Outcome.UNKNOWN)


def write_labels(
    path: Path, audit: ReviewedAudit, standing: Mapping[str, CaseStanding], originals: Originals
) -> tuple[int, int]:
    """Write the labels file that `jobs.train` and `jobs.evaluate` take.

    A label is the record's implant where that was found right, and the implant that the reader
    named where it was found wrong. Nothing else is a label. Names of members are read from their
    archives, since the predictions hold them as hashes or not at all.

    Args:
        path: Where to write CSV.
        audit: What was reviewed.
        standing: What is decided.
        originals: Reads the archives.

    Returns:
        How many radiographs have a label, and how many of them could not be read again.
    """
    rows: list[tuple[str, str, str, str]] = []
    num_lost = 0
    for case in audit.cases.values():
        label = label_of(case, standing.get(case.id), audit)
        for image in audit.radiographs(case.id) if label is not None else ():
            if image.predicted is None or image.predicted["outcome"] not in _SEEN:
                continue
            member = None if image.place is None else originals.name(image.place)
            if image.place is None or member is None:
                num_lost += 1
                continue
            patient = image.predicted.get("patient") or ""
            member = "" if is_loose(image.place.archive) else member
            rows.append((image.place.uri, member, label or "", patient))
    write_whole(path, _csv(LABEL_COLUMNS, sorted(set(rows))))
    return len(set(rows)), num_lost


def label_of(case: Case, standing: CaseStanding | None, audit: ReviewedAudit) -> str | None:
    """Return the implant of a settled case; None where it is not known."""
    settled = None if standing is None else standing.settled
    if settled is None:
        return None
    if settled.judgement is Judgement.RECORD_WRONG:
        return settled.implant
    if settled.judgement is not Judgement.RECORD_RIGHT:
        return None
    meant = {alike(one.implant): one.implant for one in _meant(standing) if one.implant}
    if meant:
        return next(iter(meant.values())) if len(meant) == 1 else None
    return case.claimed if case.claimed in audit.titles else None


def write_synonyms(
    path: Path, audit: ReviewedAudit, standing: Mapping[str, CaseStanding]
) -> tuple[int, int]:
    """Write the audit's texts without a match, filled in with what readers say that they mean.

    Readers settle a text where they find a record right that names nothing of the catalogue, and
    name the implant that it means. What was filled in before stays.

    Args:
        path: Where to write CSV; `jobs.audit --synonyms` takes it.
        audit: What was reviewed.
        standing: What is decided.

    Returns:
        How many texts have a meaning by readers, and on how many these disagree.

    Raises:
        UsageError: The audit's `unmatched.csv` is not there.
    """
    source = audit.folder / files.UNMATCHED
    if not source.exists():
        raise UsageError(f"{source} is not there; make the audit again.")
    meanings = _meanings(audit, standing)
    uri = storage.normalise(str(source))
    known = {(field, text) for field, text, _ in read_synonyms(uri)}
    rows = read_rows(uri)
    num_filled = num_disputed = 0
    for row in rows:
        place = row.get("field", ""), bare(row["text"])
        found = meanings.get(place, set())
        if place in known or found <= {_ELSE}:
            continue
        if len(found) > 1:
            num_disputed += 1
            continue
        row["means"], num_filled = next(iter(found)), num_filled + 1
    columns = list(rows[0]) if rows else ["field", "text", "means"]
    write_whole(path, _csv(columns, [tuple(row[name] for name in columns) for row in rows]))
    return num_filled, num_disputed


def _meanings(
    audit: ReviewedAudit, standing: Mapping[str, CaseStanding]
) -> dict[tuple[str, str], set[str]]:
    """Return what readers say that each text means, by field and text; `_ELSE`: nothing known."""
    catalogue = {implant.name: implant for implant in audit.output.model.catalogue}
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for case, decision in _named(audit, standing):
        implant = catalogue.get(decision.implant or "")
        name = _ELSE if implant is None else implant.name
        means = {"implant": name, "product": name}
        means["manufacturer"] = _ELSE if implant is None else implant.manufacturer
        for field, meaning in means.items():
            if field in case.texts:
                found[field, case.texts[field]].add(meaning)
    return found


def _named(
    audit: ReviewedAudit, standing: Mapping[str, CaseStanding]
) -> Iterator[tuple[Case, Decision]]:
    """Yield records that were found right, and what each reader says that they mean."""
    for case in audit.cases.values():
        found = standing.get(case.id)
        settled = None if found is None else found.settled
        if settled is not None and settled.judgement is Judgement.RECORD_RIGHT:
            yield from ((case, decision) for decision in _meant(found) if decision.implant)


def _meant(standing: CaseStanding | None) -> list[Decision]:
    """Return the decisions that state what a record means.

    Readers may agree that it is right, and not on that; an arbitration settles it, too.
    """
    if standing is None:
        return []
    readings = [*standing.readings.values()]
    return readings if standing.arbitration is None else [standing.arbitration]


def _csv(columns: Sequence[str], rows: list[tuple[str, ...]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()
