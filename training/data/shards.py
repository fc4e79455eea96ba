"""Pictures of a set by their positions: in memory, or in shards on disk or in object storage.

A shard is an Arrow file of one record batch with one column, `picture`: the bytes of each, all of
one length and not compressed, so that any of them is read alone from its place in the file. So a
training draws its batches from the whole set, in the order that it would draw them in memory, and
holds no more than a batch.

Shapes: N pictures, S side, B bytes of one.
"""

import functools
import hashlib
import os
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from implant_model import storage
from implant_model.errors import StorageError
from implant_model.limits import MIB
from implant_model.storage.local_files import write_whole
from implant_model.storage.uri import local_path
from training.data.links import Indices

Images = NDArray[np.uint8]
Row = TypeVar("Row", covariant=True)
SHARD_BYTES: Final = 64 * MIB
COLUMN: Final = "picture"
PART: Final = 256
"""Pictures of a set that are worked on at a time."""
AHEAD: Final = 4
READERS: Final = 2
"""Batches that are read at a time; from object storage the pictures of a batch are, too."""
REQUESTS: Final = 32
"""To object storage at a time: one answers in some 30 ms."""
OPEN_FILES: Final = 128


class Pictures(Protocol):
    """Preprocessed pictures, uint8; an array (N, S, S) is such."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (N, S, S)."""

    def __len__(self) -> int: ...

    def __getitem__(self, positions: Any, /) -> Images:
        """Return those at some positions, in that order; all that index an array are accepted."""


def in_parts(pictures: Pictures, positions_N: Indices | None = None) -> Iterator[Images]:
    """Yield pictures, all or those at some positions, some at a time; of none, an empty part."""
    positions_N = np.arange(len(pictures)) if positions_N is None else positions_N
    for start in range(0, max(len(positions_N), 1), PART):
        yield pictures[positions_N[start : start + PART]]


class Rows(Protocol[Row]):
    """What a batch is read from: pictures, or pictures with their masks or classes."""

    def __getitem__(self, positions: Any, /) -> Row:
        """Return those at some positions, in that order."""


def read_batches(
    rows: Rows[Row], batches: Iterable[Indices], ahead: int = AHEAD
) -> Iterator[tuple[Indices, Row]]:
    """Yield batches with their pictures, the next ones being read meanwhile, in threads.

    Args:
        rows: The set.
        batches: Positions of each batch.
        ahead: Batches that are under way.
    """
    with ThreadPoolExecutor(READERS, thread_name_prefix="batches") as pool:
        waiting: deque[tuple[Indices, Future[Row]]] = deque()
        try:
            for positions_B in batches:
                waiting.append((positions_B, pool.submit(rows.__getitem__, positions_B)))
                if len(waiting) > ahead:
                    first_B, future = waiting.popleft()
                    yield first_B, future.result()
            while waiting:
                first_B, future = waiting.popleft()
                yield first_B, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


@dataclass(frozen=True)
class Chosen:
    """Some pictures of others, by position.

    Attributes:
        pictures: The others.
        positions_N: Which of them.
    """

    pictures: Pictures
    positions_N: Indices

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (N, S, S)."""
        return (len(self.positions_N), *self.pictures.shape[1:])

    def __len__(self) -> int:
        return len(self.positions_N)

    def __getitem__(self, positions: Any) -> Images:
        return self.pictures[self.positions_N[positions]]


@dataclass(frozen=True)
class Shard:
    """One file of pictures.

    Attributes:
        name: Of the file in its folder: its content follows from it.
        start: Byte at which the first picture begins.
    """

    name: str
    start: int


def keep(uri: str, data: bytes) -> None:
    """Put a file of the cache, whole, if it is not there.

    On a disk it is not forced out of the system's memory, which takes seconds on a busy one: what a
    machine loses that loses its power is found damaged, and is read anew.

    Raises:
        StorageError: It cannot be written.
    """
    if storage.is_remote(uri):
        storage.put_if_absent(uri, data)
        return
    path = Path(local_path(uri))
    try:
        if not path.exists():
            write_whole(path, data)
    except OSError as error:
        raise StorageError(f"{uri} cannot be written ({error.strerror}).") from error


def put_shard(folder: str, prefix: str, pictures_NB: Images) -> Shard:
    """Write pictures, uint8 (N, B), as one shard; one that is there already is the same.

    Raises:
        StorageError: It cannot be written.
    """
    count, length = pictures_NB.shape
    values = pa.py_buffer(np.ascontiguousarray(pictures_NB))
    column = pa.Array.from_buffers(pa.binary(length), count, [None, values])
    batch = pa.record_batch([column], [COLUMN])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as file:
        file.write_batch(batch)
    data = sink.getvalue()
    written = pa.ipc.open_file(data).get_batch(0).column(0).buffers()[1]
    name = f"{prefix}-{hashlib.sha256(data).hexdigest()[:16]}.arrow"
    keep(storage.join(folder, name), data.to_pybytes())
    return Shard(name, written.address - data.address)


@dataclass(frozen=True)
class StoredRows:
    """Rows of bytes in shards.

    Attributes:
        folder: URI of the shards.
        shards: All of them.
        shard_N: In which each row is.
        row_N: And its place there, from 0.
        crc_N: CRC-32 of its bytes.
        length: B.
    """

    folder: str
    shards: Sequence[Shard]
    shard_N: NDArray[np.int32]
    row_N: NDArray[np.int32]
    crc_N: NDArray[np.uint32]
    length: int

    def __len__(self) -> int:
        return len(self.row_N)

    def read(self, positions_N: Indices) -> Images:
        """Read the rows at some positions, in that order: uint8 (N, B).

        Raises:
            StorageError: A shard is gone, damaged or cannot be read.
        """
        found_NB = np.empty((len(positions_N), self.length), np.uint8)

        def read(at: int) -> None:
            self._read(int(positions_N[at]), found_NB[at])

        if storage.is_remote(self.folder):
            list(_threads().map(read, range(len(positions_N))))
        else:
            for at in range(len(positions_N)):
                read(at)
        return found_NB

    def _read(self, position: int, target_B: NDArray[np.uint8]) -> None:
        shard = self.shards[self.shard_N[position]]
        uri = storage.join(self.folder, shard.name)
        _read_at(uri, shard.start + int(self.row_N[position]) * self.length, target_B)
        if zlib.crc32(target_B.data) != self.crc_N[position]:
            raise StorageError(
                f"{uri} is damaged: a picture in it is not the one that was written. Remove the "
                "folder of prepared images, and they are read anew."
            )


@dataclass(frozen=True)
class StoredPictures:
    """Pictures in shards; no more of them is in memory than is asked for.

    Attributes:
        rows: Their bytes.
        side: S.
    """

    rows: StoredRows
    side: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (N, S, S)."""
        return (len(self.rows), self.side, self.side)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, positions: Any) -> Images:
        """Read the pictures at some positions, see `StoredRows.read`."""
        positions_N = as_positions(positions, len(self))
        found = self.rows.read(positions_N.ravel()).reshape(-1, self.side, self.side)
        return found if positions_N.ndim else np.asarray(found[0])


def as_positions(positions: Any, count: int) -> Indices:
    """Return what indexes an array of so many as positions; of one number, without an axis."""
    positions_N = np.asarray(positions)
    if positions_N.dtype.kind != "i" or (positions_N < 0).any():
        positions_N = np.asarray(np.arange(count)[positions])
    return positions_N


def _read_at(uri: str, start: int, target_B: NDArray[np.uint8]) -> None:
    if not storage.is_remote(uri):
        try:
            file = _open(uri)  # held while it is read: of two threads' first, one is not kept
            if os.preadv(file.number, [target_B.data], start) == len(target_B):
                return
        except OSError as error:
            raise StorageError(f"{uri} cannot be read ({error.strerror}).") from error
        raise _shorter(uri)
    data = _reader(uri).read_at(start, len(target_B))
    if len(data) != len(target_B):
        raise _shorter(uri)
    target_B[:] = np.frombuffer(data, np.uint8)


def _shorter(uri: str) -> StorageError:
    return StorageError(
        f"{uri} is shorter than it was written. Remove the folder of prepared images, and they are "
        "read anew."
    )


class _OpenFile:
    """A file that is closed when nobody holds it any more."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


@functools.lru_cache(OPEN_FILES)
def _open(uri: str) -> _OpenFile:
    return _OpenFile(local_path(uri))


@functools.lru_cache(1 << 14)
def _reader(uri: str) -> storage.ObjectReader:
    return storage.open_object(storage.stat(uri))


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(REQUESTS, thread_name_prefix="shards")
