"""Planned archives as columns: some 250 bytes each, where as objects they have a thousand."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from implant_model.errors import ArchiveReason
from implant_model.storage import ObjectInfo
from jobs.tables.records import PlannedArchive
from jobs.tables.state.hash_index import Ints

AT_ONCE: Final = 1 << 16
_TEXT: Final = pa.large_binary()  # names of files may hold what is no UTF-8
_SCHEMA: Final = pa.schema(
    [
        *(("name", _TEXT), ("uri", _TEXT), ("size", pa.int64()), ("version", _TEXT)),
        *(("attempt", pa.int32()), ("unreachable", pa.string())),
        *(("known_uri", _TEXT), ("known_size", pa.int64()), ("known_version", _TEXT)),
        ("is_named", pa.bool_()),
    ]
)


class Planned(Sequence[PlannedArchive]):
    """Planned archives; objects are made of them as they are asked for.

    Args:
        rows: As `Planning` makes them.
        order_N: Their places in order.
    """

    def __init__(self, rows: pa.Table, order_N: Ints) -> None:
        self._rows = rows
        self._order_N = order_N

    def __len__(self) -> int:
        return len(self._order_N)

    @overload
    def __getitem__(self, place: int) -> PlannedArchive: ...
    @overload
    def __getitem__(self, place: slice) -> "Planned": ...
    def __getitem__(self, place: int | slice) -> "PlannedArchive | Planned":
        if isinstance(place, slice):
            return Planned(self._rows, self._order_N[place])
        return self._archive(int(self._order_N[place]))

    def _archive(self, row: int) -> PlannedArchive:
        (found,) = self._rows.take(pa.array([row])).to_pylist()
        return _archive(found)

    def __iter__(self) -> Iterator[PlannedArchive]:
        for start in range(0, len(self), AT_ONCE):
            some = self._rows.take(self._order_N[start : start + AT_ONCE])
            yield from map(_archive, some.to_pylist())

    def known_sources(self, sources: pa.ChunkedArray) -> Iterator[tuple[PlannedArchive, int]]:
        """Yield archives whose place, but not their name, is in the tables, each with its row.

        Args:
            sources: Column `source` of rows of `archives`.
        """
        new_N = np.flatnonzero(pc.invert(self._rows["is_named"]).to_numpy())
        if not len(new_N) or not len(sources):
            return
        rows = self._rows.select(["known_uri", "uri"]).take(pa.array(new_N))
        found = pc.index_in(sources.cast(_TEXT), pc.coalesce(rows["known_uri"], rows["uri"]))
        for place in np.flatnonzero(found.is_valid().to_numpy()).tolist():
            yield self._archive(int(new_N[found[place].as_py()])), place


class Planning:
    """Takes archives of one input, in any order."""

    def __init__(self) -> None:
        self._batches: list[pa.RecordBatch] = []
        self._new: list[tuple[PlannedArchive, bool]] = []

    def add(self, archive: PlannedArchive, is_named: bool = False) -> None:
        """Add one; `is_named`: the tables have its name already."""
        self._new.append((archive, is_named))
        if len(self._new) >= AT_ONCE:
            self._flush()

    def in_order(self) -> tuple[pa.Table, Ints]:
        """Return the rows of all, and their places by URI."""
        self._flush()
        rows = pa.Table.from_batches(self._batches, _SCHEMA)
        return rows, np.asarray(pc.sort_indices(rows["uri"]), np.int64)

    def _flush(self) -> None:
        rows = [_row(*new) for new in self._new]
        self._batches.append(pa.RecordBatch.from_pylist(rows, _SCHEMA))
        self._new = []


def join(parts: Sequence[tuple[pa.Table, Ints]]) -> Planned:
    """Return the archives of several inputs, one input after the other."""
    tables = [rows for rows, _ in parts]
    starts = np.cumsum([0, *map(len, tables)])
    orders = [order_N + start for (_, order_N), start in zip(parts, starts, strict=False)]
    whole = pa.concat_tables([_SCHEMA.empty_table(), *tables])
    return Planned(whole, np.concatenate([np.empty(0, np.int64), *orders]))


def _row(archive: PlannedArchive, is_named: bool) -> dict[str, Any]:
    known = archive.pseudonym
    return {
        "name": _encoded(archive.name),
        "uri": _encoded(archive.info.uri),
        "size": archive.info.size,
        "version": _encoded(archive.info.version),
        "attempt": archive.attempt,
        "unreachable": archive.unreachable,
        "known_uri": None if known is None else _encoded(known.uri),
        "known_size": None if known is None else known.size,
        "known_version": None if known is None else _encoded(known.version),
        "is_named": is_named,
    }


def _archive(row: dict[str, Any]) -> PlannedArchive:
    known = None
    if row["known_uri"] is not None:
        place, version = _decoded(row["known_uri"]), _decoded(row["known_version"])
        known = ObjectInfo(place, row["known_size"], version)
    return PlannedArchive(
        _decoded(row["name"]),
        ObjectInfo(_decoded(row["uri"]), row["size"], _decoded(row["version"])),
        row["attempt"],
        None if row["unreachable"] is None else ArchiveReason(row["unreachable"]),
        known,
    )


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")
