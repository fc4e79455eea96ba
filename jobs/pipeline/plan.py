"""What a run has to do: the archives of its inputs, less what the output already holds.

An archive is known to the tables by its name relative to the INPUT that it came from. Two archives
of one name would replace each other, so that is refused before anything is written.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from implant_model import storage
from implant_model.decode.version import DECODE_VERSION
from implant_model.errors import (
    TRANSIENT,
    ArchiveReason,
    ArchiveStatus,
    NotFoundError,
    Reason,
    StorageError,
    UsageError,
)
from implant_model.storage import ObjectInfo
from jobs.tables.loose_names import LooseNames
from jobs.tables.records import PlannedArchive
from jobs.tables.state.record_index import Done, Records

LOOKED_UP_AT_ONCE: Final = 4096


@dataclass(frozen=True)
class Plan:
    """The archives to read and those that the output holds already."""

    todo: tuple[PlannedArchive, ...]
    done: Done

    @property
    def num_bytes(self) -> int:
        """Return stored size of what there is to read."""
        return sum(archive.info.size for archive in self.todo)


def make_plan(
    inputs: Iterable[str],
    records: Records,
    retry: frozenset[str] = frozenset(),
    limit: int | None = None,
    redo_older: bool = False,
    names: LooseNames | None = None,
) -> Plan:
    """List the inputs and subtracts what `records` states is done.

    Args:
        inputs: Normalised URIs, each an archive, a radiograph, a folder or a prefix.
        records: The rows of the table `archives` under this run's model.
        retry: Reasons of members or archives for which an archive is read once more.
        limit: Most archives to read; those that are done do not count.
        redo_older: Read once more what an older version of the decode has read.
        names: What the tables call what is listed; None: as it is.

    Returns:
        The plan, in the order of the inputs and of names within them.

    Raises:
        UsageError: An input is not there, or two different objects would be known by one archive
            name.
    """
    todo: list[PlannedArchive] = []
    done: list[int] = []
    is_done_N = _done(records, retry, redo_older)
    has_rows_N = records.rows["has_rows"].to_numpy()
    for archive, row in _without_clashes(_list_inputs(inputs, names, records), records):
        if row is None:
            todo.append(archive)
        elif is_done_N[row]:
            done.append(row)
        else:  # units are never overwritten, so a second reading has units of its own
            again = int(has_rows_N[row])  # else its units are still in the store
            todo.append(replace(archive, attempt=records.record(row).attempt + again))
    return Plan(tuple(todo if limit is None else todo[:limit]), Done(records, done))


def _list_inputs(
    inputs: Iterable[str], names: LooseNames | None, records: Records
) -> Iterator[PlannedArchive]:
    def planned(info: ObjectInfo, root: str) -> PlannedArchive:
        if names is None:
            return PlannedArchive(storage.relative(info.uri, root), info)
        return names.planned(info, root, records)

    for root in inputs:
        is_there = False
        try:
            for info in storage.list_objects(root):
                is_there = True
                yield planned(info, root)
        except StorageError as error:
            if isinstance(error, NotFoundError) and not is_there:
                raise storage.nothing_there(root, "INPUT") from error
            lost = planned(ObjectInfo(root, 0, ""), root)
            yield replace(lost, unreachable=error.reason)


def _without_clashes(
    archives: Iterator[PlannedArchive], records: Records
) -> Iterator[tuple[PlannedArchive, int | None]]:
    """Look archives up; drop an object that is listed twice, refuse two objects under one name.

    Yields:
        Archives, each with the place of its version's record, if there is one.
    """
    new: dict[str, str] = {}
    listed_N = np.zeros(records.rows.num_rows, np.int64)  # hash of the URI, by a name's first row
    while batch := list(islice(archives, LOOKED_UP_AT_ONCE)):
        rows_K, names_K = records.match(
            [archive.name for archive in batch], [archive.known.version for archive in batch]
        )
        for archive, row, name in zip(batch, rows_K.tolist(), names_K.tolist(), strict=True):
            uri = archive.info.uri
            if name < 0:
                before = new.get(archive.name)
                if before is not None:
                    _refuse_clash(archive, before, before == uri)
                    continue
                new[archive.name] = uri
            elif listed_N[name]:
                _refuse_clash(archive, None, bool(listed_N[name] == hash(uri)))
                continue
            else:
                listed_N[name] = hash(uri)
                if row < 0:
                    _refuse_takeover(archive, records)
            yield archive, None if row < 0 else row


def _refuse_clash(archive: PlannedArchive, before: str | None, is_same: bool) -> None:
    if is_same:
        return
    named = "one archive name"
    if archive.pseudonym is None:
        named = f"the archive name {archive.name!r}: "
        named += f"{before} and {archive.info.uri}" if before else archive.info.uri
    raise UsageError(
        f"Two inputs have {named}. Names are relative to the INPUT: name a folder or "
        "prefix that holds both as the one INPUT, or write them to separate outputs."
    )


def _refuse_takeover(archive: PlannedArchive, records: Records) -> None:
    """Rows of one archive must not make way for those of another that has the same name."""
    for record in records[archive.name].values():
        if record.source != archive.known.uri and record.members:
            raise UsageError(
                f"The output holds the archive {archive.name!r} as read from {record.source}; "
                f"{archive.known.uri} has the same name and other content, and would replace it. "
                "Name a folder or prefix that holds both as the INPUT, or use another output."
            )


def _done(records: Records, retry: frozenset[str], redo_older: bool) -> npt.NDArray[np.bool_]:
    """Return which rows need not be read again, (N,)."""
    rows = records.rows
    done_N = np.array(rows["has_rows"], np.bool_)
    done_N &= ~_is_in(rows["status"], {str(ArchiveStatus.CHANGED)})
    done_N &= ~_is_in(rows["reason"], {*map(str, TRANSIENT), *retry})
    if redo_older:
        done_N &= rows["decode_version"].to_numpy() >= DECODE_VERSION
    if retry:
        reasons = rows["reasons"].combine_chunks()
        place = pc.list_parent_indices(reasons).to_numpy()
        of_members = _is_in(pc.struct_field(pc.list_flatten(reasons), "reason"), retry)
        done_N[place[of_members]] = False
    return done_N


def _is_in(
    values: pa.ChunkedArray | pa.Array, wanted: set[str] | frozenset[str]
) -> npt.NDArray[np.bool_]:
    found = pc.is_in(values, pa.array(sorted(wanted), pa.string()))
    return np.asarray(found.to_numpy(zero_copy_only=False), np.bool_)


def check_reasons(reasons: Iterable[str]) -> frozenset[str]:
    """Check the argument of `--retry` against the closed sets.

    Raises:
        UsageError: One of them is no reason of a member or of an archive.
    """
    known = {*map(str, Reason), *map(str, ArchiveReason)}
    wanted = frozenset(reasons)
    if unknown := sorted(wanted - known):
        raise UsageError(
            f"--retry: {', '.join(unknown)} is not a reason; accepted are "
            f"{', '.join(sorted(known))}."
        )
    return wanted
