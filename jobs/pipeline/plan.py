"""What a run has to do: the archives of its inputs, less what the output already holds.

An archive is known to the tables by its name relative to the INPUT that it came from. Two archives
of one name would replace each other, so that is refused before anything is written.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from implant_model import storage
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
from jobs.tables.records import ArchiveRecord, PlannedArchive, Records


@dataclass(frozen=True)
class Plan:
    """The archives to read and those that the output holds already."""

    todo: tuple[PlannedArchive, ...]
    done: tuple[ArchiveRecord, ...]

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
    done: list[ArchiveRecord] = []
    for archive in _without_clashes(_list_inputs(inputs, names, records), records):
        record = records.get(archive.name, {}).get(archive.known.version)
        if record is None:
            todo.append(archive)
        elif not record.has_rows:  # its units are still in the store
            todo.append(replace(archive, attempt=record.attempt))
        elif _is_done(record, retry) and not (redo_older and record.is_older):
            done.append(record)
        else:  # units are never overwritten, so a second reading has units of its own
            todo.append(replace(archive, attempt=record.attempt + 1))
    return Plan(tuple(todo if limit is None else todo[:limit]), tuple(done))


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
    archives: Iterable[PlannedArchive], records: Records
) -> Iterator[PlannedArchive]:
    """Drop an object that is listed twice; refuse two objects under one name."""
    seen: dict[str, str] = {}
    for archive in archives:
        uri = archive.info.uri
        if archive.name not in seen:
            seen[archive.name] = uri
            _refuse_takeover(archive, records.get(archive.name, {}))
            yield archive
        elif seen[archive.name] != uri:
            named = "one archive name"
            if archive.pseudonym is None:
                named = f"the archive name {archive.name!r}: {seen[archive.name]} and {uri}"
            raise UsageError(
                f"Two inputs have {named}. Names are relative to the INPUT: name a folder or "
                "prefix that holds both as the one INPUT, or write them to separate outputs."
            )


def _refuse_takeover(archive: PlannedArchive, versions: Mapping[str, ArchiveRecord]) -> None:
    """Rows of one archive must not make way for those of another that has the same name."""
    if archive.known.version in versions:
        return
    for record in versions.values():
        if record.source != archive.known.uri and record.members:
            raise UsageError(
                f"The output holds the archive {archive.name!r} as read from {record.source}; "
                f"{archive.known.uri} has the same name and other content, and would replace it. "
                "Name a folder or prefix that holds both as the INPUT, or use another output."
            )


def _is_done(record: ArchiveRecord, retry: frozenset[str]) -> bool:
    if record.status is ArchiveStatus.CHANGED or record.reason in TRANSIENT:
        return False
    if record.reason is not None and record.reason in retry:
        return False
    return not retry.intersection(record.member_reasons)


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
