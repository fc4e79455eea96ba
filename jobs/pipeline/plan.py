"""What a run has to do: the archives of its inputs, less what the output already holds.

An archive is known to the tables by its name relative to the INPUT that it came from. Two archives
of one name would replace each other, so that is refused before anything is written.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from implant_model.storage.object_list import ObjectList
from jobs.tables.loose_names import LooseNames
from jobs.tables.records import PlannedArchive
from jobs.tables.state.hash_index import HashIndex, hash_names
from jobs.tables.state.planned import Planned, Planning, join
from jobs.tables.state.record_index import Done, Records

LOOKED_UP_AT_ONCE: Final = 4096
NAMED_AT_ONCE: Final = 1 << 18
ROUND: Final = 500_000
"""Archives that a run reads at a time: a driver holds what becomes of each until they end."""


@dataclass(frozen=True)
class Plan:
    """The archives to read and those that the output holds already."""

    todo: Sequence[PlannedArchive]
    done: Done

    def rounds(self) -> "Iterator[Plan]":
        """Yield plans of some of the archives each, which are read one after the other."""
        for start in range(0, max(len(self.todo), 1), ROUND):
            yield Plan(tuple(self.todo[start : start + ROUND]), self.done)


def make_plan(
    inputs: Iterable[str],
    records: Records,
    retry: frozenset[str] = frozenset(),
    limit: int | None = None,
    redo_older: bool = False,
    names: LooseNames | None = None,
    manifest: ObjectList | None = None,
) -> Plan:
    """List the inputs and subtracts what `records` states is done.

    Args:
        inputs: Normalised URIs, each an archive, a radiograph, a folder or a prefix.
        records: The rows of the table `archives` under this run's model.
        retry: Reasons of members or archives for which an archive is read once more.
        limit: Most archives to read; those that are done do not count.
        redo_older: Read once more what an older version of the decode has read.
        names: What the tables call what is listed; None: as it is.
        manifest: Lists the objects in the place of their store.

    Returns:
        The plan, in the order of the inputs and of names within them.

    Raises:
        UsageError: An input is not there, two different objects would be known by one archive
            name, or one object by two.
    """
    todo = []
    done: list[int] = []
    is_done_N = _done(records, retry, redo_older)
    has_rows_N = np.asarray(records.rows["has_rows"], np.bool_)
    known = _Known(records)
    roots = tuple(inputs)
    for root in roots:
        new = Planning()
        within = _inputs_within(root, roots)
        listed = _list_input(root, names, records, manifest)
        for archive, row, is_named in known.look_up(listed):
            _refuse_nested(archive, root, within)
            if row is None:
                new.add(archive, is_named)
            elif is_done_N[row]:
                done.append(row)
            else:  # units are never overwritten, so a second reading has units of its own
                again = int(has_rows_N[row])  # else its units are still in the store
                new.add(replace(archive, attempt=records.record(row).attempt + again), True)
        todo.append(new.in_order())
    planned = join(todo)
    _refuse_second_names(planned, records)
    return Plan(planned[:limit], Done(records, done))


def _list_input(
    root: str, names: LooseNames | None, records: Records, manifest: ObjectList | None
) -> Iterator[PlannedArchive]:
    def planned(info: ObjectInfo) -> PlannedArchive:
        if names is None:
            return PlannedArchive(storage.relative(info.uri, root), info)
        return names.planned(info, root, records)

    is_there = False
    try:
        listed = manifest.objects(root) if manifest else storage.list_objects(root, in_order=False)
        for info in listed:
            is_there = True
            yield planned(info)
    except StorageError as error:
        if manifest:
            raise
        if isinstance(error, NotFoundError) and not is_there:
            raise storage.nothing_there(root, "INPUT") from error
        yield replace(planned(ObjectInfo(root, 0, "")), unreachable=error.reason)


class _Known:
    """Looks listed archives up; drops an object listed twice, refuses two under one name."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._new = _NewNames()
        self._uri_N = np.zeros(records.rows.num_rows, np.int64)
        """Hash of the URI that was listed under a name, by the place of its first row."""

    def look_up(
        self, archives: Iterator[PlannedArchive]
    ) -> Iterator[tuple[PlannedArchive, int | None, bool]]:
        """Yield archives.

        Each comes with the place of its version's record, if there is one, and whether the tables
        have its name, with this version or another.
        """
        while batch := list(islice(archives, LOOKED_UP_AT_ONCE)):
            words = [archive.name for archive in batch]
            before = self._new.look_up(words)
            rows_K, names_K = self._records.match(words, [a.known.version for a in batch])
            for archive, row, name in zip(batch, rows_K.tolist(), names_K.tolist(), strict=True):
                if self._is_first(archive, name, before):
                    if row < 0 <= name:
                        _refuse_takeover(archive, self._records)
                    yield archive, None if row < 0 else row, name >= 0

    def _is_first(self, archive: PlannedArchive, name: int, before: Mapping[str, int]) -> bool:
        if name < 0:
            return self._new.is_first(archive, before)
        uri = archive.info.uri
        last, self._uri_N[name] = int(self._uri_N[name]), hash(uri)
        if last not in (0, hash(uri)):
            _refuse_clash(archive, None)
        return last == 0


class _NewNames:
    """Names that the tables do not have, and what was listed under each: 16 bytes.

    Both are known by their hashes; that two names of ten million share one has a chance of a
    millionth.
    """

    def __init__(self) -> None:
        self._index = HashIndex()
        self._latest: dict[str, str] = {}

    def look_up(self, names: Sequence[str]) -> Mapping[str, int]:
        """Return hashes of what was listed long before under some of these names."""
        if len(self._latest) >= NAMED_AT_ONCE:
            self._index.add(hash_names(self._latest), hash_names(self._latest.values()))
            self._latest = {}
        places, found = self._index.find(hash_names(names))
        return {names[at]: uri for at, uri in zip(places.tolist(), found.tolist(), strict=True)}

    def is_first(self, archive: PlannedArchive, before: Mapping[str, int]) -> bool:
        """Return whether nothing was listed under an archive's name; refuse another object.

        Args:
            archive: Listed now.
            before: What `look_up` gave for its name among others.
        """
        uri = archive.info.uri
        latest = self._latest.get(archive.name)
        if latest is None and archive.name not in before:
            self._latest[archive.name] = uri
            return True
        if before.get(archive.name, hash(uri)) != hash(uri) or latest not in (None, uri):
            _refuse_clash(archive, latest)
        return False


def _refuse_clash(archive: PlannedArchive, before: str | None) -> None:
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


def _inputs_within(root: str, inputs: Iterable[str]) -> list[str]:
    below = f"{root.rstrip('/')}/"
    return [uri for uri in inputs if uri.startswith(below)]


def _refuse_nested(archive: PlannedArchive, root: str, within: Iterable[str]) -> None:
    """One object must not have two names, by an INPUT and another one within it."""
    uri = archive.info.uri
    for inner in within:
        if (uri == inner or uri.startswith(f"{inner}/")) and (
            storage.relative(uri, inner) != storage.relative(uri, root)
        ):
            raise UsageError(
                f"The INPUT {inner} lies in the INPUT {root}: what it holds would have two names, "
                "and all its rows be there twice. Name one of them."
            )


def _refuse_second_names(planned: Planned, records: Records) -> None:
    """One object must not have two names, by an INPUT of now and another one of an earlier run."""
    for archive, place in planned.known_sources(records.rows["source"]):
        record = records.record(place)
        if record.members:
            named = "a loose radiograph of this INPUT" if archive.pseudonym else repr(archive.name)
            raise UsageError(
                f"The output holds {record.source} as the archive {record.archive!r}; as {named} "
                "all its rows would be there twice. Names are relative to the INPUT: name the same "
                "one as before, or use another output."
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
