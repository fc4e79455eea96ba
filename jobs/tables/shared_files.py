"""Rows of several archives in one file: bundles, and what a table's maintenance leaves.

Small archives are published in common files, and Delta's own `optimize.compact` and
`optimize.z_order` put the rows of many units together. The rows are those that were published, so
an archive whose rows lie there is done; and a new version of it takes just its own rows out, by a
copy of the file without them.
"""

import hashlib
import uuid
from collections import Counter
from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from implant_model import storage
from jobs.tables.file_statistics import statistics_of
from jobs.tables.schema import COPY, PREDICTION_ROW, unit_path
from jobs.tables.state.table_files import File
from jobs.tables.stored_parquet import read_file

Held = Counter[tuple[str, str]]
"""Rows by archive and version."""


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
            rows = self.count(file)
            self._held[path] = Counter(
                {(row["archive"], row["archive_version"]): row["count_all"]
                 for row in rows.to_pylist()}
            )  # fmt: skip
        return self._held[path]

    def count(self, file: File) -> pa.Table:
        """Return archives and versions of a file's rows, with `count_all` of each; not kept."""
        columns = ["archive", "archive_version"]
        return self.read(file["path"], columns).group_by(columns).aggregate([([], "count_all")])

    def names(self, file: File) -> pa.ChunkedArray:
        """Return the archives that a file holds; what it was found to hold before is not read."""
        held = self._held.get(file["path"])
        if held is not None:
            return pa.chunked_array([[name for name, _ in held]], pa.string())
        return pc.unique(self.read(file["path"], ["archive"])["archive"])

    def forget(self, paths: Iterable[str]) -> None:
        """Drop what is held of files of this run: it publishes none of their archives again."""
        for path in paths:
            self._held.pop(path, None)

    def with_any_of(self, files: Iterable[File], archives: Collection[str]) -> list[File]:
        """Return the files that hold rows of any of some archives."""
        wanted = set(archives)
        return [file for file in files if not wanted.isdisjoint(n for n, _ in self.held(file))]

    def read(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """Read columns of a file, or all.

        Raises:
            StorageError: It cannot be read.
        """
        # The log has paths percent-encoded, and other tools encode the partition's folder before.
        return read_file(storage.join(self._table, unquote(path)), PREDICTION_ROW, columns)

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
        kept = rows.filter(pa.array([name not in archives for name in names], pa.bool_()))
        if not kept.num_rows:
            return None
        sink = pa.BufferOutputStream()
        pq.write_table(kept, sink, compression="zstd", write_page_checksum=True)
        data = bytes(sink.getvalue())
        path = unit_path(model, f"{COPY}{uuid.uuid4().hex}")
        storage.put_if_absent(storage.join(self._table, path), data)
        columns = zip(kept["archive"].to_pylist(), kept["archive_version"].to_pylist(), strict=True)
        self._held[path] = Counter(columns)
        return Copy(path, len(data), hashlib.sha256(data).hexdigest(), statistics_of(kept))


@dataclass(frozen=True)
class Copy:
    """A copy of a shared file without the rows of some archives.

    Attributes:
        path: Below the table.
        bytes: Its size.
        sha256: Of its bytes, hexadecimal.
        statistics: Of its rows.
    """

    path: str
    bytes: int
    sha256: str
    statistics: str
