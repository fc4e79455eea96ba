"""One archive, member by member, into units of prediction rows and pictures.

Here every member gets its row: a picture's row waits for the classifier, any other's explains why
there is none. Identifiers are dropped or replaced at this place; none goes further.
"""

import posixpath
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from implant_model.archives.members import Member
from implant_model.archives.read import Allocate
from implant_model.decode.decoded import Prepared
from implant_model.errors import (
    ArchiveError,
    ArchiveReason,
    ArchiveStatus,
    StorageError,
)
from implant_model.radiographs import Prepare, Radiograph, read_radiographs
from jobs.pipeline.read_ahead import Open, find_unit, open_archive
from jobs.pipeline.recipe import Recipe
from jobs.tables.receipts import End, Piece, Unit
from jobs.tables.records import PlannedArchive

Row = dict[str, Any]
Read = tuple[Piece, list[Row], list[np.ndarray]]


def read_archive(
    position: int,
    archive: PlannedArchive,
    recipe: Recipe,
    prepare: Prepare,
    allocate: Allocate | None = None,
    get_opening: Open | None = None,
) -> Iterator[Read]:
    """Stream an archive's units, then its end.

    What the archive's own bytes do wrong leaves the members before it in their units (`salvaged`).
    What the store does wrong, or a new version, leaves none: `failed` or `changed`, and the next
    run finds the full units that were published and reads on from there.

    Args:
        position: The archive's place in the plan.
        archive: What to read, and in which version.
        recipe: How members become rows.
        prepare: Decodes and preprocesses one member; never raises for what its bytes hold.
        allocate: Where `prepare` wants a large member; see `read_members`.
        get_opening: Opens the archive; by default as it is its turn.

    Yields:
        A unit with its rows (of schema `PREDICTION_ROW`, `outcome` None where a picture waits)
        and the uint8 pictures of these, and after the last of them one `End` with no rows.
    """
    started_at = time.time()
    reason, message = archive.unreachable, ""
    units = _Units(position, archive, recipe)
    try:
        if reason is None:
            opening = get_opening() if get_opening else open_archive(archive, recipe)
            units.begin(opening.unit_path, opening.adopted)
            with opening.reader as reader:
                for radiograph in read_radiographs(
                    *(reader, _name_of(archive), recipe.limits, prepare, recipe.protector.content),
                    allocate=allocate,
                    is_wanted=units.has_no_row_of,
                ):
                    units.draft.add(radiograph)
                    units.members += 1
                    if units.draft.is_full:
                        yield units.draft.close()
                        units.begin(*find_unit(archive, recipe, units.members))
    except ArchiveError as error:
        reason, message = error.reason, str(error)
        if reason is ArchiveReason.ENCRYPTED:  # nothing of it was read
            units = _Units(position, archive, recipe)
    except StorageError as error:
        reason, message = error.reason, str(error)
        units = _Units(position, archive, recipe)
    if units.draft.members:
        yield units.draft.close()
    status = _status(reason, units.members)
    if archive.pseudonym is not None:
        message = ""  # it may name the file
    end = End(position, units.members, status, reason, message, started_at)
    yield end, [], []


def _name_of(archive: PlannedArchive) -> str:
    """Return what to call a single radiograph; its row has it by the identifiers policy."""
    return archive.name if archive.pseudonym is None else posixpath.basename(archive.info.uri)


def _status(reason: ArchiveReason | None, members: int) -> ArchiveStatus:
    if reason is None:
        return ArchiveStatus.COMPLETE
    if reason is ArchiveReason.CHANGED:
        return ArchiveStatus.CHANGED
    return ArchiveStatus.SALVAGED if members else ArchiveStatus.FAILED


@dataclass
class _Draft:
    """A unit while its members are read."""

    unit: Unit
    recipe: Recipe
    members: int = 0
    num_bytes: int = 0
    rows: list[Row] = field(default_factory=list)
    images_HW: list[np.ndarray] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        return self.recipe.is_full(self.members, self.num_bytes)

    def add(self, radiograph: Radiograph) -> None:
        self.members += 1
        self.num_bytes += radiograph.member.size
        prepared = radiograph.prepared
        if prepared is None:
            return
        self.rows.append(_member_row(self.unit, radiograph, prepared, self.recipe))
        if prepared.image is not None:
            self.images_HW.append(prepared.image)

    def close(self) -> Read:
        unit = replace(self.unit, members=self.members, num_bytes=self.num_bytes)
        return unit, self.rows, self.images_HW


class _Units:
    """An archive's units, of which one is being filled; `members` counts those of all."""

    def __init__(self, position: int, archive: PlannedArchive, recipe: Recipe) -> None:
        self.members = 0
        self._start = partial(Unit, position, archive.name, archive.known.version)
        self._recipe = recipe
        self.begin("", adopted=False)

    def begin(self, path: str, adopted: bool) -> None:
        """Begin the unit of the next member, whose file is `path`, and there if `adopted`."""
        self.draft = _Draft(self._start(self.members, 0, 0, path, adopted), self._recipe)

    def has_no_row_of(self, member: Member) -> bool:
        """Return whether the member is to be decoded: its unit is not published yet."""
        return not self.draft.unit.adopted


def _member_row(unit: Unit, radiograph: Radiograph, prepared: Prepared, recipe: Recipe) -> Row:
    """The row of a member as far as it is known before the classifier; see the tables' contract."""
    member, header, protect = radiograph.member, prepared.header, recipe.protector.identifier
    identifiers = {
        kind: protect(kind, getattr(header, kind))
        for kind in ("patient", "study", "series", "instance", "accession")
    }
    terms = {name: getattr(header, name) for name in _TERMS}
    return {
        "archive": unit.archive,
        "archive_version": unit.version,
        "member_index": member.index,
        "member": protect("member", member.name),
        "outcome": None if prepared.outcome is None else str(prepared.outcome),
        "reason": None if prepared.reason is None else str(prepared.reason),
        "content": radiograph.content,
        "doubts": list(map(str, header.doubts)) or None,
        **identifiers,
        **terms,
    }


_TERMS = ("frame", "modality", "body_part", "view", "laterality", "rows", "columns")
