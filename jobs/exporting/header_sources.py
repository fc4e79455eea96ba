"""Where the archives of an output are by now, and the headers of their radiographs."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from typing import Final

from implant_model import storage
from implant_model.archives.read import read_members
from implant_model.errors import ArchiveError, MemberError, NotFoundError, StorageError
from implant_model.limits import Limits
from implant_model.storage.uri import ObjectInfo
from jobs.auditing.output import Output
from jobs.exporting.report_header import ReportHeader, read_report_header
from jobs.exporting.studies import Study
from jobs.tables.loose_names import find_archive, find_files, is_loose
from jobs.tables.records import PlannedArchive

CHANGED: Final = "an archive that was replaced since it was classified"
UNREADABLE: Final = "an archive that cannot be read again"
NOT_FOUND: Final = "an archive that is not where it was: name its place by --archives"
LOOSE: Final = "a radiograph that lay loose: name the INPUT of classify by --archives"
NO_HEADER: Final = "a radiograph whose header cannot be read"
Where = tuple[str, str]
"""An archive's name and version in the tables."""


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

    @cached_property
    def _loose(self) -> Mapping[str, PlannedArchive]:
        return dict(find_files(self._output.uri, self._roots) if self._roots else ())

    def made_at(self, study: Study) -> datetime:
        """Return when the last of a study's predictions was made."""
        moments = [
            row["finished_at"]
            for one in study.rows
            if (row := self._output.archives.row(one["archive"], one["archive_version"]))
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
            if uri is None:
                row = self._output.archives.row(archive, version)
                if row is None:
                    return NOT_FOUND
                uri = row["source"]
            info = storage.stat(uri)
        except NotFoundError:
            return NOT_FOUND
        except StorageError:
            return UNREADABLE
        return info if info.version == version else CHANGED
