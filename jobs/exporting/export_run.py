"""From an output to a folder of reports: each study is written, is there already, or is listed."""

import logging
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from implant_model import storage
from implant_model.decode.prepare import SILENT, silence_loggers
from implant_model.errors import StorageError
from implant_model.storage.local_files import make_private, write_whole
from implant_model.storage.spreadsheets import write_csv
from jobs.auditing.output import Output, open_output
from jobs.entry.folder import checked_folder
from jobs.entry.ticker import ticking, waiting
from jobs.exporting.header_sources import NO_HEADER, Sources, Where
from jobs.exporting.report_header import ReportHeader
from jobs.exporting.report_list import LIST, Listed, summarise, table_of
from jobs.exporting.studies import NoReportError, Studies, Study, uid_of

OTHER_HEADER: Final = "a header with other identifiers than the table has"
PATIENTS: Final = "several patients' numbers in one study"
TOO_LONG: Final = "a patient's number of more than 64 characters"

_PREFIX: Final = b"\0" * 128 + b"DICM"


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
    sources: Sources,
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
        if is_there(folder / file_of(study)):
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


def is_there(path: Path) -> bool:
    """Whether a report is there: a file that begins like one (PS3.10 section 7.1).

    What a disk lost in a fall of power, an empty file or one of zeros, is written again.
    """
    try:
        with path.open("rb") as file:
            return file.read(len(_PREFIX)) == _PREFIX
    except OSError:
        return False


def writer(output: Output, sources: Sources, folder: Path) -> Callable[[Waiting], Listed]:
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


def place_of(row: Mapping[str, Any]) -> tuple[str, str, int]:
    """Return where a row's radiograph lies."""
    return row["archive"], row["archive_version"], row["member_index"]


def file_of(study: Study) -> str:
    """Return the name of a study's report: its UID, which follows from what is in it."""
    return f"{study.uid}.dcm"


def _listed(study: Study, outcome: str) -> Listed:
    return Listed(study.study, outcome, "", file_of(study), len(study.rows), study.others)
