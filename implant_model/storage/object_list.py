"""Lists of objects that take the place of a listing: CSV, Parquet, or an inventory of S3.

A table has one row for each object, with the columns `key` (or `uri`), `size` and `etag`, and
perhaps `bucket`; `manifest.json` of an S3 Inventory names such tables, in CSV or Parquet (Amazon S3
User Guide, "Locating your inventory list"). Every read of an object carries its ETag, so that one
which was replaced since is not taken for the one that was listed.
"""

import contextlib
import csv
import gzip
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from typing import IO, Any, Final, NamedTuple
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from implant_model.errors import NotFoundError, StorageError, UsageError
from implant_model.storage import store
from implant_model.storage.uri import ObjectInfo, is_s3, local_path, s3_parts

MAX_BYTES: Final = 4 << 30
_ROWS: Final = 1 << 16
_WANTED: Final = ("bucket", "key", "uri", "size", "etag", "islatest", "isdeletemarker")
_TRUE: Final = (True, "true", "True", "TRUE")


class _Table(NamedTuple):
    uri: str
    columns: list[str] | None = None
    """Of an inventory in CSV, whose keys are URL-encoded; None: the table names them."""
    md5: str | None = None

    @property
    def is_csv(self) -> bool:
        return self.columns is not None or self.uri.endswith((".csv", ".csv.gz"))


class _Row(NamedTuple):
    table: _Table
    number: int
    values: Mapping[str, Any]


class ObjectList:
    """A list of the objects of a bucket.

    Args:
        uri: Normalised: `.csv`, `.csv.gz`, `.parquet`, or the `manifest.json` of an inventory.

    Raises:
        UsageError: It is of another kind, or no inventory that can be read.
        StorageError: It cannot be read.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        if not uri.endswith((".json", ".csv", ".csv.gz", ".parquet")):
            raise UsageError(
                f"--manifest is {uri}; accepted are .csv, .csv.gz, .parquet and the manifest.json "
                "of an S3 Inventory."
            )
        self._tables = self._read_inventory() if uri.endswith(".json") else [_Table(uri)]

    def objects(self, root: str) -> Iterator[ObjectInfo]:
        """Yield the objects that it lists at an INPUT or below it.

        Args:
            root: Normalised URI in object storage.

        Raises:
            UsageError: The INPUT is not in object storage, nothing is listed below it, or a row
                lacks a key, a size or an ETag.
            StorageError: A table of it cannot be read.
        """
        if not is_s3(root):
            raise UsageError(f"--manifest lists objects of S3; the INPUT {root} is none.")
        bucket, key = s3_parts(root)
        below = f"{key.rstrip('/')}/" if key else ""
        is_there = False
        for row in self._rows():
            found = _object(row, bucket)
            if found is None:
                continue
            _, of_object = s3_parts(found.uri)
            if found.uri.startswith(f"s3://{bucket}/") and (
                of_object == key or of_object.startswith(below)
            ):
                is_there = True
                if found.size or not of_object.endswith("/"):  # else the marker of a folder
                    yield found
        if not is_there:
            raise UsageError(f"The manifest {self._uri} lists nothing at {root} or below it.")

    def _rows(self) -> Iterator[_Row]:
        for table in self._tables:
            number = 0
            for batch in _batches(table):
                names = [_plain(name) for name in batch.schema.names]
                if not ({"key", "uri"} & set(names) and {"size", "etag"} <= set(names)):
                    raise UsageError(
                        f"The manifest {table.uri} has the columns "
                        f"{', '.join(batch.schema.names)}; key (or uri), size and etag are needed."
                    )
                known = [(n, name) for n, name in enumerate(names) if name in _WANTED]
                columns = [batch.column(n).to_pylist() for n, _ in known]
                for values in zip(*columns, strict=True):
                    number += 1
                    row = dict(zip([name for _, name in known], values, strict=True))
                    yield _Row(table, number, row)

    def _read_inventory(self) -> list[_Table]:
        try:
            inventory = json.loads(_bytes(_Table(self._uri)))
            kind, schema = inventory["fileFormat"], inventory["fileSchema"]
            bucket = inventory["destinationBucket"].rpartition(":")[2]
            files = [(f["key"], f.get("MD5checksum")) for f in inventory["files"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{self._uri} is no manifest of an S3 Inventory.") from error
        if kind not in ("CSV", "Parquet"):
            raise UsageError(f"{self._uri} lists tables in {kind}; CSV and Parquet are read.")
        columns = [name.strip() for name in schema.split(",")] if kind == "CSV" else None
        return [_Table(f"s3://{bucket}/{key}", columns, md5) for key, md5 in files]


def _object(found: _Row, bucket: str) -> ObjectInfo | None:
    """Return the object that a row lists; None of an older version and a marker of deletion."""
    row, where = found.values, f"Row {found.number} of {found.table.uri}"
    if row.get("isdeletemarker") in _TRUE or row.get("islatest", True) not in _TRUE:
        return None
    uri, key, size, etag = (row.get(name) for name in ("uri", "key", "size", "etag"))
    if not (uri or key) or size in (None, "") or not etag:
        raise UsageError(f"{where} lacks a key, a size or an ETag; each object needs them.")
    if not uri:
        name = unquote_plus(str(key)) if found.table.columns else str(key)
        uri = f"s3://{row.get('bucket') or bucket}/{name}"
    if not str(size).isascii() or not str(size).isdigit():
        raise UsageError(f"{where}: its size {size!r} is no number of bytes.")
    return ObjectInfo(str(uri), int(size), str(etag).strip('"'))


def _plain(name: str) -> str:
    return name.replace("_", "").replace(" ", "").lower()


def _batches(table: _Table) -> Iterator[pa.RecordBatch]:
    """Yield the rows of one table, some ten thousand at a time; of CSV all as text."""
    try:
        if table.is_csv:
            with _opened(table) as file:
                names = table.columns or _header(file)
                yield from pa_csv.open_csv(
                    file,
                    read_options=pa_csv.ReadOptions(column_names=names, block_size=1 << 23),
                    parse_options=pa_csv.ParseOptions(newlines_in_values=True),
                    convert_options=pa_csv.ConvertOptions(
                        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
                    ),
                )
            return
        remote = is_s3(table.uri)
        data = pa.BufferReader(_bytes(table)) if remote else pa.OSFile(local_path(table.uri))
        yield from pq.ParquetFile(data, pre_buffer=False).iter_batches(_ROWS)
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        raise UsageError(
            f"The manifest {table.uri} cannot be read ({type(error).__name__})."
        ) from error


@contextlib.contextmanager
def _opened(table: _Table) -> Iterator[IO[bytes]]:
    with contextlib.ExitStack() as stack:
        raw: IO[bytes]
        if is_s3(table.uri):
            raw = io.BytesIO(_bytes(table))
        else:
            raw = stack.enter_context(open(local_path(table.uri), "rb"))
        if table.uri.endswith(".gz"):
            unpacked = stack.enter_context(gzip.GzipFile(fileobj=raw))
            raw = stack.enter_context(io.BufferedReader(unpacked))
        yield raw


def _header(file: IO[bytes]) -> list[str]:
    return next(csv.reader([file.readline().decode("utf-8-sig")]), [])


def _bytes(table: _Table) -> bytes:
    try:
        data = store.read_bytes(table.uri, MAX_BYTES)
    except NotFoundError as error:
        raise UsageError(f"There is no manifest {table.uri}.") from error
    if table.md5 and hashlib.md5(data, usedforsecurity=False).hexdigest() != table.md5:
        raise StorageError(f"{table.uri} is damaged: its MD5 is not that of the inventory.")
    return data
