"""From an output to a folder of reports: each study is written, is there already, or is listed."""

import logging
from argparse import Namespace
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from implant_model import storage
from implant_model.archives.read import read_members
from implant_model.decode.prepare import SILENT, silence_loggers
from implant_model.errors import ArchiveError, MemberError, NotFoundError, StorageError
from implant_model.limits import Limits
from implant_model.storage.local_files import make_private, write_whole
from implant_model.storage.spreadsheets import write_csv
from implant_model.storage.uri import ObjectInfo
from jobs.auditing.output import Output, open_output
from jobs.entry.command import DISCLAIMER, INCOMPLETE, OK
from jobs.entry.folder import checked_folder
from jobs.entry.ticker import ticking, waiting
from jobs.exporting.report_header import ReportHeader, read_report_header
from jobs.exporting.studies import NOTHING, NoReportError, Studies, Study, uid_of
from jobs.tables.loose_names import find_archive, find_files, is_loose
from jobs.tables.records import PlannedArchive

LIST: Final = "reports.csv"
CHANGED: Final = "an archive that was replaced since it was classified"
UNREADABLE: Final = "an archive that cannot be read again"
NOT_FOUND: Final = "an archive that is not where it was: name its place by --archives"
LOOSE: Final = "a radiograph that lay loose: name the INPUT of classify by --archives"
NO_HEADER: Final = "a radiograph whose header cannot be read"
OTHER_HEADER: Final = "a header with other identifiers than the table has"
PATIENTS: Final = "several patients' numbers in one study"
TOO_LONG: Final = "a patient's number of more than 64 characters"
Where = tuple[str, str]
"""An archive's name and version in the tables."""


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


@dataclass
class Waiting:
    """A study whose headers are being read.

    Attributes:
        study: It.
        headers: By archive, version and position, or why one cannot be had.
    """

    study: Study
    headers: dict[tuple[str, str, int], ReportHeader | str] = field(default_factory=dict)

    def ordered(self) -> list[ReportHeader]:
        """Return the headers in the order of the rows.

        Raises:
            NoReportError: One cannot be had.
        """
        found = [self.headers[place_of(row)] for row in self.study.rows]
        for header in found:
            if isinstance(header, str):
                raise NoReportError(header)
        return [header for header in found if isinstance(header, ReportHeader)]


def export(call: Namespace) -> int:
    """Write the reports, of `jobs.export_sr`.

    Returns:
        The exit code.

    Raises:
        UsageError: The call is wrong, or the predictions hold no identifiers.
        StorageError: A table cannot be read, or the folder not written.
    """
    folder = checked_folder(call.output, "--output")
    model = None if call.model is None else storage.normalise(call.model)
    with waiting("The predictions are read"):
        output = open_output(storage.normalise(call.predictions), model)
        studies = Studies(output)
    sources = Sources(output, [storage.normalise(root) for root in call.archives])
    with ticking("Studies done") as tick:
        listed = [*run(output, studies, sources, folder, tick)]
    try:
        write_csv(folder / LIST, table_of(listed))
    except OSError as error:
        raise StorageError(f"{folder / LIST} cannot be written: {error.strerror}.") from error
    return summarise(listed, studies, folder)


def run(
    output: Output,
    studies: Studies,
    sources: "Sources",
    folder: Path,
    tick: Callable[[int], None],
) -> Iterator[Listed]:
    """Yield what became of each study; one whose report is there is not read again."""
    wanted: dict[int, int] = {}
    needed: dict[Where, list[tuple[int, int]]] = defaultdict(list)
    done = 0
    for place in range(len(studies)):
        try:
            study = studies.study(place)
        except NoReportError as error:
            yield Listed(studies.name(place), "none", str(error))
            continue
        if (folder / file_of(study)).exists():
            yield _listed(study, "there")
            continue
        wanted[place] = len(study.rows)
        for row in study.rows:
            needed[row["archive"], row["archive_version"]].append((row["member_index"], place))
    write = writer(output, sources, folder) if wanted else None
    waiting_for: dict[int, Waiting] = {}
    for where in sorted(needed):
        members = needed.pop(where)
        headers = sources.headers(where, {index for index, _ in members})
        for index, place in members:
            one = waiting_for.get(place) or Waiting(studies.study(place))
            waiting_for[place] = one
            one.headers[*where, index] = headers[index]
            if len(one.headers) == wanted[place] and write is not None:
                tick(done := done + 1)
                yield write(waiting_for.pop(place))


def writer(output: Output, sources: "Sources", folder: Path) -> Callable[[Waiting], Listed]:
    """Return what writes a study's report."""
    # Slow to import, and not needed where all reports are there.
    from jobs.exporting.structured_report import Model, write_report

    model = Model(output.model.id, output.model.catalogue, output.model.package)
    silence_loggers()
    logging.getLogger("highdicom").setLevel(SILENT)  # a patient's name is in one of its warnings

    def write(ready: Waiting) -> Listed:
        study = ready.study
        try:
            headers = identified(study, ready.ordered())
        except NoReportError as error:
            return Listed(study.study, "none", str(error), "", 0, study.others)
        data = write_report(study, headers, model, sources.made_at(study))
        path = folder / file_of(study)
        try:
            make_private(folder)
            write_whole(path, data)
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror}.") from error
        return _listed(study, "written")

    return write


def identified(study: Study, headers: Sequence[ReportHeader]) -> list[ReportHeader]:
    """Return headers with the identifiers that a report may hold: those that the tables have.

    Raises:
        NoReportError: The radiographs do not say whose study it is, or not what the tables do.
    """
    if any(not header.sop_class for header in headers):
        raise NoReportError(NO_HEADER)
    if study.is_pseudonymous:
        return [pseudonymous(row, header) for row, header in zip(study.rows, headers, strict=True)]
    for row, header in zip(study.rows, headers, strict=True):
        same = (header.study, header.series, header.instance)
        if same != (row["study"], row["series"], row["instance"]):
            raise NoReportError(OTHER_HEADER)
        if max(len(header.patient), len(header.issuer)) > 64:
            raise NoReportError(TOO_LONG)
    if len({(header.patient, header.issuer) for header in headers}) > 1:
        raise NoReportError(PATIENTS)
    return list(headers)


def pseudonymous(row: Mapping[str, Any], header: ReportHeader) -> ReportHeader:
    """Return what a report holds where the tables hold pseudonyms: these, and the SOP class."""
    return ReportHeader(
        sop_class=header.sop_class,
        instance=uid_of(row["instance"]),
        study=uid_of(row["study"]),
        series=uid_of(row["series"]),
        patient=row["patient"] or "",
    )


class Sources:
    """Where archives are, and their radiographs' headers.

    Args:
        output: The predictions.
        roots: Normalised URIs that archives and loose radiographs are found below.
    """

    def __init__(self, output: Output, roots: Sequence[str]) -> None:
        self._output = output
        self._roots = roots
        self._limits = Limits()
        self._rows = {(row["archive"], row["archive_version"]): row for row in output.archives}

    @cached_property
    def _loose(self) -> Mapping[str, PlannedArchive]:
        return dict(find_files(self._output.uri, self._roots) if self._roots else ())

    def made_at(self, study: Study) -> datetime:
        """Return when the last of a study's predictions was made."""
        moments = [
            row["finished_at"]
            for one in study.rows
            if (row := self._rows.get((one["archive"], one["archive_version"]))) is not None
        ]
        return max(moments, default=datetime(1970, 1, 1).astimezone())

    def headers(self, where: Where, wanted: set[int]) -> Mapping[int, ReportHeader | str]:
        """Return the headers at positions of an archive, or why one cannot be had."""
        found = self._object(where)
        if isinstance(found, str):
            return dict.fromkeys(wanted, found)
        headers: dict[int, ReportHeader | str] = dict.fromkeys(wanted, UNREADABLE)
        with suppress(ArchiveError, StorageError), storage.open_object(found) as reader:
            for member in read_members(reader, found.uri.rpartition("/")[2], self._limits):
                if member.index in wanted:
                    headers[member.index] = self._header(member.data)
                if member.index >= max(wanted):
                    break
        return headers

    def _header(self, data: bytes | memoryview | None) -> ReportHeader | str:
        if data is None:
            return NO_HEADER
        try:
            return read_report_header(data, self._limits)
        except MemberError:
            return NO_HEADER

    def _object(self, where: Where) -> ObjectInfo | str:
        """Return the object that an archive is, or why it cannot be had."""
        archive, version = where
        if is_loose(archive):
            planned = self._loose.get(archive)
            if planned is None:
                return LOOSE
            return planned.info if planned.known.version == version else CHANGED
        try:
            uri = find_archive(archive, self._roots)
            if uri is None and where in self._rows:
                uri = self._rows[where]["source"]
            if uri is None:
                return NOT_FOUND
            info = storage.stat(uri)
        except NotFoundError:
            return NOT_FOUND
        except StorageError:
            return UNREADABLE
        return info if info.version == version else CHANGED


def place_of(row: Mapping[str, Any]) -> tuple[str, str, int]:
    """Return where a row's radiograph lies."""
    return row["archive"], row["archive_version"], row["member_index"]


def file_of(study: Study) -> str:
    """Return the name of a study's report: its UID, which follows from what is in it."""
    return f"{study.uid}.dcm"


def _listed(study: Study, outcome: str) -> Listed:
    return Listed(study.study, outcome, "", file_of(study), len(study.rows), study.others)


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
