"""Rows of several archives in one file: bundles, and what a table's maintenance leaves.

Small archives are published in common files, and Delta's own `optimize.compact` and
`optimize.z_order` put the rows of many units together. The rows are those that were published, so
an archive whose rows lie there is done; and a new version of it takes just its own rows out, by a
copy of the file without them.
"""

import hashlib
import io
import uuid
from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from implant_model import storage
from implant_model.errors import StorageError
from jobs.tables.schema import COPY, PREDICTION_ROW, is_bundle, unit_path

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
        self._named: dict[str, set[str]] = {}

    def learn(self, rows: Iterable[Mapping[str, Any]], files: Mapping[str, File]) -> None:
        """Take from rows of `archives` which files hold what, so that these need not be read.

        Args:
            rows: All rows of the model.
            files: The active files by path; one of which the rows name less than it has is read.
        """
        archives: dict[str, set[str]] = {}
        members: Counter[str] = Counter()
        for row in rows:
            for unit in row["units"]:
                if is_bundle(unit["path"]) and unit["path"] in files:
                    archives.setdefault(unit["path"], set()).add(row["archive"])
                    members[unit["path"]] += unit["members"]
        self._named = {
            path: names for path, names in archives.items()
            if members[path] == files[path]["num_records"]
        }  # fmt: skip

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

    def forget(self, paths: Iterable[str]) -> None:
        """Drop what is known of files of this run: it publishes none of their archives again."""
        for path in paths:
            if self._held.pop(path, None) is not None:
                self._named[path] = set()

    def with_any_of(self, files: Iterable[File], archives: Collection[str]) -> list[File]:
        """Return the files that hold rows of any of some archives."""
        return [file for file in files if not self._names(file).isdisjoint(archives)]

    def _names(self, file: File) -> Set[str]:
        named = self._named.get(file["path"])
        return {name for name, _ in self.held(file)} if named is None else named

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

    def without(self, file: File, archives: Container[str], model: str) -> "Copy | None":
        """Put a copy of a file without the rows of some archives.

        Args:
            file: Of which its path is needed.
            archives: Names.
            model: The partition.

        Returns:
            The copy; None where no row is left.

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
        path = unit_path(model, f"{COPY}{uuid.uuid4().hex}")
        storage.put_if_absent(storage.join(self._table, path), data)
        columns = zip(kept["archive"].to_pylist(), kept["archive_version"].to_pylist(), strict=True)
        self._held[path] = Counter(columns)
        return Copy(path, len(data), hashlib.sha256(data).hexdigest(), self._held[path])


@dataclass(frozen=True)
class Copy:
    """A copy of a shared file without the rows of some archives.

    Attributes:
        path: Below the table.
        bytes: Its size.
        sha256: Of its bytes, hexadecimal.
        held: Its rows.
    """

    path: str
    bytes: int
    sha256: str
    held: Held


def bounds(held: Held) -> tuple[dict[str, str], dict[str, str]]:
    """Return the least and greatest archive and version of rows, for Delta's statistics."""
    columns = dict(zip(("archive", "archive_version"), zip(*held, strict=True), strict=True))
    return {n: min(v) for n, v in columns.items()}, {n: max(v) for n, v in columns.items()}


def _plain(rows: pa.Table) -> pa.Table:
    """Return rows in the types of `PREDICTION_ROW`; delta-rs writes texts as views, see Arrow."""
    known = {field.name: field.type for field in PREDICTION_ROW}
    fields = [f.with_type(known.get(f.name, f.type)) for f in rows.schema]
    return rows.cast(pa.schema(fields, metadata=rows.schema.metadata))


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
