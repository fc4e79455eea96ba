"""The audit that is reviewed: its cases out of the files of its folder, and their radiographs.

A case is a record that is to be looked at. Its id follows from the record's number and key and not
from its row or its claim, so that decisions find it again in a later audit of the same registry.
"""

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from implant_model import storage
from implant_model.errors import StorageError, UsageError
from implant_model.package.load import ModelPackage
from jobs.auditing import files
from jobs.auditing.last_audit import read_previous
from jobs.auditing.output import Output, open_output
from jobs.deciding.decisions import case_id
from jobs.deciding.sample import read_sample
from jobs.pages.page import called
from jobs.reviewing.originals import Place
from jobs.tables.loose_names import find_archive, find_files, is_loose
from jobs.tables.records import PlannedArchive

HEADER: Final = ("modality", "body_part", "view", "laterality", "rows", "columns", "doubts")
_PREDICTED: Final = (
    *("archive", "archive_version", "member_index", "outcome", "reason", "implant", "manufacturer"),
    *("product", "joint", "probability", "candidates", "top", "novelty", "patient", *HEADER),
)
_TEXTS: Final = ("hospital", "year", "manufacturer", "product", "implant", "side", "joint")
_KEPT_CASES: Final = 256
SHORT: Final = 2
_WORD: Final = re.compile(r"\w+")


@dataclass(frozen=True)
class Case:
    """A record that is to be looked at.

    Attributes:
        id: 16 hex digits.
        row: Of the registry's file.
        record: The registry's number; None where the file has none.
        claimed: What the record means, as the audit writes it; None where it means nothing known.
        verdict: The audit's.
        seen: The best implant by the images; None without one.
        numbers: `seen_probability`, `claimed_probability` and `wrong_probability`; None where the
            audit has none.
        texts: What the registry's file says, such as hospital and year.
        images: Archive, position and whether it votes, of each radiograph.
        stratum: Of the sample; None where it was not drawn.
        inclusion: Probability with which it was drawn; None likewise.
    """

    id: str
    row: int
    record: str | None
    claimed: str | None
    verdict: str
    seen: str | None
    numbers: Mapping[str, float | None]
    texts: Mapping[str, str]
    images: tuple[tuple[str, int, bool], ...]
    stratum: str | None = None
    inclusion: float | None = None

    def has(self, words: Sequence[str]) -> bool:
        """Return whether all words of a filter are in the record.

        One of up to `SHORT` characters must be a word of it, since it is within most others: the A
        of `Clinic A`.

        Args:
            words: In small letters.
        """
        text, whole = self._words
        return all(word in (whole if len(word) <= SHORT else text) for word in words)

    @cached_property
    def _words(self) -> tuple[str, frozenset[str]]:
        parts = [self.record or "", self.claimed or "", *self.texts.values()]
        text = " ".join(parts).lower()
        return text, frozenset([*text.split(), *_WORD.findall(text)])


@dataclass(frozen=True)
class Radiograph:
    """One radiograph of a case.

    Attributes:
        place: Where its bytes are; None where that is not known.
        trouble: Why it is not known.
        predicted: Its row of the table `predictions`; None where the table has it no more.
        votes: Whether it speaks for or against the record.
    """

    place: Place | None
    trouble: str | None
    predicted: Mapping[str, Any] | None
    votes: bool


@dataclass
class ReviewedAudit:
    """An audit's folder, opened.

    Attributes:
        folder: Of the audit.
        summary: Its document.
        output: The predictions.
        cases: By their id.
        worklist: Ids of the contradictions, the likeliest error first.
        sample: Ids of the sample, in the order in which they are served.
        sample_table: Its rows; None where none was drawn of what was audited last.
    """

    folder: Path
    summary: Mapping[str, Any]
    output: Output
    cases: Mapping[str, Case]
    worklist: Sequence[str]
    sample: Sequence[str]
    sample_table: pa.Table | None = None
    _roots: Sequence[str] = ()
    _loose: dict[str, PlannedArchive] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.radiographs = lru_cache(_KEPT_CASES)(self._radiographs)
        self._opened = _state(self.folder)

    @property
    def is_replaced(self) -> bool:
        """Return whether the audit was made anew since it was opened."""
        return _state(self.folder) != self._opened

    @property
    def package(self) -> ModelPackage | None:
        """Return the model's package, where it is at hand."""
        return self.output.model.package

    @property
    def claims(self) -> Mapping[str, str | None]:
        """Return what each case's record means."""
        return {case.id: case.claimed for case in self.cases.values()}

    @property
    def titles(self) -> Mapping[str, str]:
        """Return maker and product of each implant, by its name."""
        catalogue = self.output.model.catalogue
        return {i.name: called(i.name, i.manufacturer, i.product) for i in catalogue}

    def _radiographs(self, case_id: str) -> tuple[Radiograph, ...]:
        case = self.cases[case_id]
        rows = self._predicted(case)
        return tuple(
            self._radiograph(rows.get((archive, index)), archive, index, votes)
            for archive, index, votes in case.images
        )

    def _predicted(self, case: Case) -> Mapping[tuple[str, int], Mapping[str, Any]]:
        """Return the case's rows of the predictions, by archive and position."""
        archives = pa.array({archive for archive, _, _ in case.images}, pa.string())
        members = pa.array({index for _, index, _ in case.images}, pa.int64())
        chosen = (pc.field("model") == self.output.model.id) & pc.field("archive").isin(archives)
        there = set(self.output.dataset.schema.names)
        columns = [name for name in _PREDICTED if name in there]
        # The position is filtered here: Delta's log has no statistics of it, from which pyarrow
        # concludes that no row of a file fits.
        try:
            rows = self.output.dataset.to_table(columns=columns, filter=chosen)
        except StorageError as error:
            raise StorageError(
                f"{error} If they were moved or compacted since, start the workbench again."
            ) from error
        rows = rows.filter(pc.is_in(rows["member_index"], members)).to_pylist()
        return {(row["archive"], row["member_index"]): row for row in rows}

    def _radiograph(
        self, row: Mapping[str, Any] | None, archive: str, index: int, votes: bool
    ) -> Radiograph:
        if row is None:
            return Radiograph(None, "The predictions have no row of it any more.", None, votes)
        version = row["archive_version"]
        if is_loose(archive):
            found = self._loose_files().get(archive)
            if found is None:
                return Radiograph(None, _LOOSE, row, votes)
            place = Place(found.info.uri, archive, version, index, found.known.version)
            return Radiograph(place, None, row, votes)
        uri = find_archive(archive, self._roots)
        if uri is None:
            known = self.output.archives.row(archive, version)
            if known is None:
                return Radiograph(None, "The tables do not say where its archive is.", row, votes)
            uri = str(known["source"])
        return Radiograph(Place(uri, archive, version, index), None, row, votes)

    def _loose_files(self) -> Mapping[str, PlannedArchive]:
        with self._lock:
            if self._loose is None:
                found = find_files(self.output.uri, self._roots) if self._roots else ()
                self._loose = dict(found)
            return self._loose


def _state(folder: Path) -> tuple[int, int] | None:
    """Return what changes when an audit's summary is written; None where it is gone."""
    try:
        found = (folder / files.SUMMARY).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


_LOOSE: Final = (
    "It lay loose, under a name that the tables hold as a hash: start with --archives and the "
    "INPUT of classify."
)


def open_audit(
    folder: Path, predictions: str | None, model: str | None, roots: Sequence[str]
) -> ReviewedAudit:
    """Open the folder that `jobs.audit` wrote.

    Args:
        folder: Its --report.
        predictions: Normalised URI of the output of classify; None for the one that was audited.
        model: Normalised URI of the package; None for one that ships with this software.
        roots: Normalised URIs that archives and loose radiographs are found below.

    Raises:
        UsageError: It is no audit's folder, or the predictions hold nothing of its model.
        StorageError: A table cannot be read.
    """
    try:
        summary = read_previous(storage.normalise(str(folder / files.SUMMARY)), is_asked=False)
    except UsageError as error:
        raise UsageError(
            f"{folder / files.SUMMARY} is no summary of an audit by this software; make the audit "
            "again."
        ) from error
    if summary is None:
        raise UsageError(
            f"--audit {folder} holds no {files.SUMMARY}; name the --report of jobs.audit."
        )
    output = open_output(predictions or summary["predictions"], model)
    if output.model.id != summary["model"]:
        raise UsageError(
            f"The audit is of {summary['model']}, and the predictions or the package that are "
            f"named are of {output.model.id}; name those that were audited."
        )
    listed = _rows(folder / f"{files.WORKLIST}.parquet")
    sample = read_sample(folder, summary.get("data", ""))
    drawn = [] if sample is None else sample.to_pylist()
    images = _images(folder, {row["row"] for row in (*listed, *drawn)})
    by_row = {row["row"]: {"verdict": "contradicts", **row} for row in listed}
    for row in drawn:
        by_row[row["row"]] = by_row.get(row["row"], {}) | row
    cases = {row: _case(values, images) for row, values in by_row.items()}
    return ReviewedAudit(
        folder,
        summary,
        output,
        {case.id: case for case in cases.values()},
        [cases[row["row"]].id for row in listed],
        [cases[row["row"]].id for row in drawn],
        sample,
        tuple(roots),
    )


def _case(values: Mapping[str, Any], images: Mapping[int, Sequence[tuple[str, int, bool]]]) -> Case:
    row = int(values["row"])
    record = values.get("record")
    known = list(images.get(row, ()))
    if not known and values.get("archive") is not None:
        known = [(str(values["archive"]), int(values["member_index"]), True)]
    return Case(
        id=case_id(record, values.get("key"), row),
        row=row,
        record=record,
        claimed=values.get("claimed"),
        verdict=values["verdict"],
        seen=values.get("seen"),
        numbers={name: values.get(f"{name}_probability") for name in ("seen", "claimed", "wrong")},
        texts={name: str(values[name]) for name in _TEXTS if values.get(name) not in (None, "")},
        images=tuple(known),
        stratum=values.get("stratum"),
        inclusion=values.get("inclusion_probability"),
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = pq.read_table(path, partitioning=None).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise UsageError(
            f"{path} cannot be read ({type(error).__name__}); make the audit again."
        ) from error
    return rows


def _images(folder: Path, rows: set[int]) -> Mapping[int, Sequence[tuple[str, int, bool]]]:
    """Return the radiographs of the records, those that vote first.

    Empty for an audit of an older version, which lists the first of each alone.
    """
    path = folder / files.IMAGES
    if not path.exists():
        return {}
    try:
        table = pq.read_table(path, partitioning=None, filters=pc.field("row").isin([*rows]))
    except (OSError, pa.ArrowException) as error:
        raise UsageError(
            f"{path} cannot be read ({type(error).__name__}); make the audit again."
        ) from error
    found: dict[int, list[tuple[str, int, bool]]] = {}
    for row in table.to_pylist():
        image = (row["archive"], row["member_index"], row["votes"])
        found.setdefault(row["row"], []).append(image)
    return {row: sorted(images, key=lambda image: not image[2]) for row, images in found.items()}
