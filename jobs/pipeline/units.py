"""One archive, member by member, into units of prediction rows and pictures.

Here every member gets its row: a picture's row waits for the classifier, any other's explains why
there is none. Identifiers are dropped or replaced at this place; none goes further.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from implant_model.archives.read import Allocate, Member, read_members
from implant_model.decode.decoded import Prepared, prepare_member
from implant_model.errors import (
    ArchiveError,
    ArchiveReason,
    ArchiveStatus,
    StorageError,
)
from jobs.pipeline.read_ahead import Open, find_unit, open_archive
from jobs.pipeline.recipe import Recipe
from jobs.tables.receipts import End, Piece, Unit
from jobs.tables.records import PlannedArchive
from jobs.tables.schema import PREDICTION_ROW

Prepare = Callable[[bytes | memoryview], Prepared]
Read = tuple[Piece, pa.Table, list[np.ndarray]]


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
        A unit with its rows (schema `PREDICTION_ROW`, `outcome` null where a picture waits) and
        the uint8 pictures of these, and after the last of them one `End` with no rows.
    """
    started_at, members = time.time(), 0
    reason, message = archive.unreachable, ""
    draft: _Draft | None = None
    try:
        if reason is None:
            opening = get_opening() if get_opening else open_archive(archive, recipe)
            place = opening.unit_path, opening.adopted
            draft = _open_draft(position, archive, recipe, 0, *place)
            with opening.reader as reader:
                for member in read_members(reader, archive.name, recipe.limits, allocate):
                    draft.add(member, prepare)
                    members += 1
                    if draft.is_full:
                        yield draft.close()
                        place = find_unit(archive, recipe, members)
                        draft = _open_draft(position, archive, recipe, members, *place)
    except ArchiveError as error:
        reason, message = error.reason, str(error)
    except StorageError as error:
        reason, message, draft = error.reason, str(error), None
    if draft is None:
        members = 0
    elif draft.members:
        yield draft.close()
    end = End(position, members, _status(reason, members), reason, message, started_at)
    yield end, PREDICTION_ROW.empty_table(), []


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
    rows: list[dict[str, Any]] = field(default_factory=list)
    images_HW: list[np.ndarray] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        return self.members >= self.recipe.unit_members or self.num_bytes >= self.recipe.unit_bytes

    def add(self, member: Member, prepare: Prepare) -> None:
        self.members += 1
        self.num_bytes += member.size
        if self.unit.adopted:
            return
        data = member.data
        # Before its decode, which may overwrite it.
        content = None if data is None else self.recipe.protector.content(data)
        prepared = prepare_member(member, prepare)
        self.rows.append(_member_row(self.unit, member, prepared, content, self.recipe))
        if prepared.image is not None:
            self.images_HW.append(prepared.image)

    def close(self) -> Read:
        unit = replace(self.unit, members=self.members, num_bytes=self.num_bytes)
        return unit, pa.Table.from_pylist(self.rows, schema=PREDICTION_ROW), self.images_HW


def _open_draft(
    position: int, archive: PlannedArchive, recipe: Recipe, first: int, path: str, adopted: bool
) -> _Draft:
    name, version = archive.name, archive.info.version
    return _Draft(Unit(position, name, version, first, 0, 0, path, adopted), recipe)


def _member_row(
    unit: Unit, member: Member, prepared: Prepared, content: str | None, recipe: Recipe
) -> dict[str, Any]:
    """The row of a member as far as it is known before the classifier; see the tables' contract."""
    header, protect = prepared.header, recipe.protector.identifier
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
        "content": content,
        **identifiers,
        **terms,
    }


_TERMS = ("frame", "modality", "body_part", "view", "laterality", "rows", "columns")
