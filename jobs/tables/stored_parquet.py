"""Parquet files of the tables, read through `storage`: in parts, several small ones at a time."""

import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from implant_model import storage
from implant_model.errors import StorageError
from implant_model.limits import MIB

Item = TypeVar("Item")
Found = TypeVar("Found")
SMALL_BYTES: Final = 8 * MIB
"""A file up to this size is fetched whole, by one request."""
AHEAD: Final = 16
_BATCH_ROWS: Final = 1 << 16


def read_file(uri: str, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Read columns of a file, or all.

    Args:
        uri: Of the file.
        schema: Types of the columns that it knows; others have theirs, see `plain`.
        columns: Those that the file lacks are left out.

    Raises:
        StorageError: It cannot be read.
    """
    return pa.concat_tables(read_batches(uri, schema, columns))


def read_batches(
    uri: str, schema: pa.Schema, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """Read a file like `read_file`, some ten thousand rows at a time; at least one table."""
    try:
        info = storage.stat(uri)
        with storage.open_object(info, whole=info.size <= SMALL_BYTES) as reader:
            file = pq.ParquetFile(_Seekable(reader), page_checksum_verification=True)
            there = set(file.schema_arrow.names)
            wanted = None if columns is None else [name for name in columns if name in there]
            picked = [f for f in file.schema_arrow if wanted is None or f.name in wanted]
            known = {field.name: field.type for field in schema}
            types = pa.schema(
                [f.with_type(known.get(f.name) or plain(f.type)) for f in picked],
                metadata=file.schema_arrow.metadata,
            )
            yield types.empty_table()
            for batch in file.iter_batches(_BATCH_ROWS, columns=types.names):
                yield pa.Table.from_batches([batch]).select(types.names).cast(types)
    except (pa.ArrowException, OSError) as error:
        raise StorageError(f"{uri} cannot be read ({type(error).__name__}).") from error


def plain(type_: pa.DataType) -> pa.DataType:
    """Return a type without views, which delta-rs writes and not all of Arrow's functions take."""
    if pa.types.is_string_view(type_):
        return pa.string()
    if pa.types.is_binary_view(type_):
        return pa.binary()
    if pa.types.is_struct(type_):
        return pa.struct([f.with_type(plain(f.type)) for f in type_])
    if pa.types.is_map(type_):
        return pa.map_(plain(type_.key_type), plain(type_.item_type))
    if pa.types.is_list(type_) or pa.types.is_list_view(type_):
        return pa.list_(type_.value_field.with_type(plain(type_.value_type)))
    return type_


def side_by_side(work: Callable[[Item], Found], items: Iterable[Item]) -> Iterator[Found]:
    """Yield `work` of each item in turn, while that of the next ones is under way in threads."""
    with ThreadPoolExecutor(AHEAD) as pool:
        under_way: deque[Future[Found]] = deque()
        try:
            for item in items:
                under_way.append(pool.submit(work, item))
                if len(under_way) >= AHEAD:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()


class _Seekable(io.RawIOBase):
    """What pyarrow reads a stored object by: only the parts that it asks for."""

    def __init__(self, reader: storage.ObjectReader) -> None:
        self._reader = reader
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._reader.size}[whence]
        self._at = start + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(self._reader.size - self._at, 0)
        data = self._reader.read_at(self._at, left if size < 0 else min(size, left))
        self._at += len(data)
        return data
