"""Planned archives as columns: some 250 bytes each, where as objects they have a thousand."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, overload

import pyarrow as pa

from implant_model.errors import ArchiveReason
from implant_model.storage import ObjectInfo
from jobs.tables.records import PlannedArchive

AT_ONCE: Final = 1 << 16
_TEXT: Final = pa.large_binary()  # names of files may hold what is no UTF-8
_SCHEMA: Final = pa.schema(
    [
        *(("name", _TEXT), ("uri", _TEXT), ("size", pa.int64()), ("version", _TEXT)),
        *(("attempt", pa.int32()), ("unreachable", pa.string())),
        *(("known_uri", _TEXT), ("known_size", pa.int64()), ("known_version", _TEXT)),
    ]
)


class Planned(Sequence[PlannedArchive]):
    """Planned archives; objects are made of them as they are asked for.

    Args:
        rows: As `Planning` makes them.
    """

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return int(self._rows.num_rows)

    @overload
    def __getitem__(self, place: int) -> PlannedArchive: ...
    @overload
    def __getitem__(self, place: slice) -> "Planned": ...
    def __getitem__(self, place: int | slice) -> "PlannedArchive | Planned":
        if isinstance(place, int):
            return _archive(self._rows.take([range(len(self))[place]]).to_pylist()[0])
        start, stop, step = place.indices(len(self))
        if step != 1:
            raise ValueError("Planned archives are sliced one by one.")
        return Planned(self._rows.slice(start, max(stop - start, 0)))

    def __iter__(self) -> Iterator[PlannedArchive]:
        for batch in self._rows.to_batches(max_chunksize=AT_ONCE):
            yield from map(_archive, batch.to_pylist())


class Planning:
    """Takes archives of one input, in any order."""

    def __init__(self) -> None:
        self._batches: list[pa.RecordBatch] = []
        self._new: list[PlannedArchive] = []

    def add(self, archive: PlannedArchive) -> None:
        """Add one."""
        self._new.append(archive)
        if len(self._new) >= AT_ONCE:
            self._flush()

    def in_order(self) -> pa.Table:
        """Return the rows of all, by URI."""
        self._flush()
        rows = pa.Table.from_batches(self._batches, _SCHEMA)
        return rows.sort_by("uri") if len(rows) else rows

    def _flush(self) -> None:
        rows = map(_row, self._new)
        self._batches.append(pa.RecordBatch.from_pylist(list(rows), _SCHEMA))
        self._new = []


def join(parts: Sequence[pa.Table]) -> Planned:
    """Return the archives of several inputs, one input after the other."""
    return Planned(pa.concat_tables(parts) if parts else _SCHEMA.empty_table())


def _row(archive: PlannedArchive) -> dict[str, Any]:
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
