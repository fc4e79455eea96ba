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
from typing import Any, Final, NamedTuple
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
_LACKS: Final = "lacks a key, a size or an ETag; each object needs them."
_FLAGS: Final = {"true": True, "false": False}
_AS_CSV: Final = "; a CSV is UTF-8 with commas, and each row has as many columns as the first"


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
            uri = _uri(row, bucket)
            _, of_object = s3_parts(uri)
            is_below = of_object == key or of_object.startswith(below)
            if not (uri.startswith(f"s3://{bucket}/") and is_below and _is_current(row)):
                continue
            is_there = True
            found = _object(row, uri)
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
                if twice := [name for _, name in known if names.count(name) > 1]:
                    raise UsageError(
                        f"The manifest {table.uri} has the column {twice[0]} more than once "
                        f"({', '.join(batch.schema.names)}); one is accepted."
                    )
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
            columns = [name.strip() for name in schema.split(",")] if kind == "CSV" else None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{self._uri} is no manifest of an S3 Inventory.") from error
        if kind not in ("CSV", "Parquet"):
            raise UsageError(f"{self._uri} lists tables in {kind}; CSV and Parquet are read.")
        return [_Table(f"s3://{bucket}/{key}", columns, md5) for key, md5 in files]


def _uri(found: _Row, bucket: str) -> str:
    row = found.values
    uri, key = row.get("uri"), row.get("key")
    if uri:
        return str(uri)
    if not key:
        raise UsageError(f"{_where(found)} {_LACKS}")
    name = unquote_plus(str(key)) if found.table.columns else str(key)
    return f"s3://{row.get('bucket') or bucket}/{name}"


def _is_current(found: _Row) -> bool:
    """Whether a row lists no older version, and no marker of deletion."""
    return _flag(found, "islatest", unknown=True) and not _flag(
        found, "isdeletemarker", unknown=False
    )


def _flag(found: _Row, name: str, *, unknown: bool) -> bool:
    value = found.values.get(name)
    if value in (None, ""):
        return unknown
    flag = _FLAGS.get(str(value).strip().lower())
    if flag is None:
        raise UsageError(f"{_where(found)}: its {name} is {value!r}; true and false are accepted.")
    return flag


def _object(found: _Row, uri: str) -> ObjectInfo:
    size, etag = (found.values.get(name) for name in ("size", "etag"))
    if size in (None, "") or not etag:
        raise UsageError(f"{_where(found)} {_LACKS}")
    if not str(size).isascii() or not str(size).isdigit():
        raise UsageError(f"{_where(found)}: its size {size!r} is no number of bytes.")
    return ObjectInfo(uri, int(size), str(etag).strip('"'))


def _where(found: _Row) -> str:
    return f"Row {found.number} of {found.table.uri}"


def _plain(name: str) -> str:
    return name.replace("_", "").replace(" ", "").lower()


def _batches(table: _Table) -> Iterator[pa.RecordBatch]:
    """Yield the rows of one table, some ten thousand at a time; of CSV all as text."""
    try:
        if table.is_csv:
            with _opened(table) as file:
                names = table.columns or _header(table, file)
                if not file.peek(1):  # which pyarrow refuses
                    return
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
    except FileNotFoundError as error:
        raise UsageError(f"There is no manifest {table.uri}.") from error
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        expected = _AS_CSV if table.is_csv else ""
        raise UsageError(
            f"The manifest {table.uri} cannot be read ({type(error).__name__}){expected}."
        ) from error


@contextlib.contextmanager
def _opened(table: _Table) -> Iterator[io.BufferedReader]:
    with contextlib.ExitStack() as stack:
        raw: io.BytesIO | io.FileIO
        if is_s3(table.uri):
            raw = io.BytesIO(_bytes(table))
        else:
            raw = stack.enter_context(io.FileIO(local_path(table.uri)))
        if table.uri.endswith(".gz"):
            yield io.BufferedReader(stack.enter_context(gzip.GzipFile(fileobj=raw)))
        else:
            yield io.BufferedReader(raw)


def _header(table: _Table, file: io.BufferedReader) -> list[str]:
    names = next(csv.reader([file.readline().decode("utf-8-sig")]), [])
    if not names:
        raise UsageError(f"The manifest {table.uri} is empty; a line of column names is needed.")
    return names


def _bytes(table: _Table) -> bytes:
    try:
        data = store.read_bytes(table.uri, MAX_BYTES)
    except NotFoundError as error:
        raise UsageError(f"There is no manifest {table.uri}.") from error
    if table.md5 and hashlib.md5(data, usedforsecurity=False).hexdigest() != table.md5:
        raise StorageError(f"{table.uri} is damaged: its MD5 is not that of the inventory.")
    return data
