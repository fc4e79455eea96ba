"""Rows of several archives in one file: what another tool's maintenance leaves.

Delta's own `optimize.compact` and `optimize.z_order` put the rows of many units into common files.
The rows are those that were published, so an archive whose rows lie there is done; and a new
version of it takes just its own rows out, by a copy of the file without them.
"""

import io
import uuid
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from implant_model import storage
from implant_model.errors import StorageError
from jobs.tables.schema import PREDICTION_ROW, unit_path

File = Mapping[str, Any]
"""One of `delta.active_files`."""
Held = Counter[tuple[str, str]]
"""Rows by archive and version."""


def is_of_one_archive(file: File) -> bool:
    """Whether all rows of a file are of one archive, by its statistics; False: they may not be."""
    return file.get("min.archive") is not None and file["min.archive"] == file.get("max.archive")


class SharedFiles:
    """Files of a table that hold rows of several archives; each is read once.

    Args:
        table: URI of the table `predictions`.
    """

    def __init__(self, table: str) -> None:
        self._table = table
        self._held: dict[str, Held] = {}

    def held(self, file: File) -> Held:
        """Return the rows of a file by archive and version.

        Raises:
            StorageError: It cannot be read.
        """
        path = file["path"]
        if path not in self._held:
            columns = ["archive", "archive_version"]
            rows = self.read(path, columns).group_by(columns).aggregate([([], "count_all")])
            self._held[path] = Counter(
                {(row["archive"], row["archive_version"]): row["count_all"]
                 for row in rows.to_pylist()}
            )  # fmt: skip
        return self._held[path]

    def with_any_of(self, files: Iterable[File], archives: Container[str]) -> list[File]:
        """Return the files that hold rows of any of some archives."""
        return [file for file in files if any(name in archives for name, _ in self.held(file))]

    def read(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """Read columns of a file, or all.

        Raises:
            StorageError: It cannot be read.
        """
        # The log has paths percent-encoded, and other tools encode the partition's folder before.
        uri = storage.join(self._table, unquote(path))
        try:
            with storage.open_object(storage.stat(uri)) as reader:
                file = pq.ParquetFile(_Seekable(reader), page_checksum_verification=True)
                return _plain(file.read(columns=columns))
        except (pa.ArrowException, OSError) as error:
            raise StorageError(f"{uri} cannot be read ({type(error).__name__}).") from error

    def without(self, file: File, archives: Container[str]) -> tuple[str, int, pa.Table] | None:
        """Put a copy of a file without the rows of some archives.

        Returns:
            Its path below the table, size and rows; None where no row is left.

        Raises:
            StorageError: It cannot be read or written.
        """
        rows = self.read(file["path"])
        names = rows["archive"].to_pylist()
        kept = rows.filter(pa.array([name not in archives for name in names]))
        if not kept.num_rows:
            return None
        sink = pa.BufferOutputStream()
        pq.write_table(kept, sink, compression="zstd", write_page_checksum=True)
        data = bytes(sink.getvalue())
        path = unit_path(file["partition.model"], f"copy-{uuid.uuid4().hex}")
        storage.put_if_absent(storage.join(self._table, path), data)
        return path, len(data), kept


def bounds(rows: pa.Table) -> tuple[dict[str, str], dict[str, str]]:
    """Return the least and greatest archive and version of rows, for Delta's statistics."""
    names = ("archive", "archive_version")
    found = {name: pc.min_max(rows[name]).as_py() for name in names}
    return {n: found[n]["min"] for n in names}, {n: found[n]["max"] for n in names}


def _plain(rows: pa.Table) -> pa.Table:
    """Return rows in the types of `PREDICTION_ROW`; delta-rs writes texts as views, see Arrow."""
    known = {field.name: field.type for field in PREDICTION_ROW}
    fields = [f.with_type(known.get(f.name, f.type)) for f in rows.schema]
    return rows.cast(pa.schema(fields))


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
