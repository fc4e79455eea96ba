"""The registry's file > a table of text, one column for each field that it has, every row kept."""

import codecs
import csv
import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from implant_model import storage
from implant_model.errors import NotFoundError, UsageError
from jobs.auditing.registry.columns import choose_key, describe_columns, find_columns

MAX_BYTES: Final = 16 << 30
_HEADER: Final = 1 << 20
_DELIMITERS: Final = (",", ";", "\t", "|")
_SEPARATOR: Final = re.compile(r'"?sep=([,;|\t])"?', re.IGNORECASE)


@dataclass(frozen=True)
class RegistryFile:
    """What a file holds, before any of it is judged.

    Attributes:
        table: Text columns by field, null where blank; M rows in the order of the file, those that
            have too many or too few values among them, all null.
        malformed: Numbers of these rows, from 1, the header not counted.
        key: The field that records are joined by.
        columns: The file's column of each field.
        asked: Those of them that the user named.
        sha256: Of the file's bytes, hexadecimal.
        notes: Sentences on which column was read as what.
    """

    table: pa.Table
    malformed: tuple[int, ...]
    key: str
    columns: Mapping[str, str]
    asked: Mapping[str, str] = field(default_factory=dict)
    sha256: str = ""
    notes: tuple[str, ...] = ()

    def is_asked(self, name: str) -> bool:
        """Return whether the user named the column of a field, and the heading did not."""
        return name in self.asked


@dataclass
class _Malformed:
    """Takes rows with too many or too few values while Arrow reads."""

    skipped: int
    rows: list[int] = field(default_factory=list)
    unclosed: int | None = None

    def __call__(self, row: Any) -> str:
        number = int(row.number) - 1 - self.skipped
        if row.text and "\n" in row.text.strip():
            self.unclosed = number  # an exception would not get through Arrow
            return "error"
        self.rows.append(number)
        return "skip"


def read_file(
    uri: str, asked: Mapping[str, str], key: str | None, encoding: str = "utf-8"
) -> RegistryFile:
    """Read a registry's file.

    Args:
        uri: CSV with a header (comma, semicolon, tab or bar between values) or Parquet.
        asked: Columns of fields as the user named them.
        key: What to join by, or None for the finest that there is.
        encoding: Of a CSV file.

    Raises:
        UsageError: It cannot be read, has no rows, or lacks a column that is needed.
    """
    try:
        data = storage.read_bytes(uri, MAX_BYTES)
    except NotFoundError as error:
        raise UsageError(f"--registry cannot be read: {error}") from error
    if not data.strip():
        raise UsageError(f"The registry's file {uri} is empty; a table with a header is expected.")
    try:
        if data[:4] == b"PAR1":
            found = _read_parquet(data, asked, key)
        else:
            found = _read_csv(data, asked, key, encoding)
    except pa.ArrowException as error:
        raise UsageError(f"The registry's file {uri} cannot be read: {_why(error)}") from error
    if not found.table.num_rows:
        raise UsageError(f"The registry's file {uri} has a header and no rows.")
    return replace(found, sha256=hashlib.sha256(data).hexdigest())


def _read_parquet(data: bytes, asked: Mapping[str, str], key: str | None) -> RegistryFile:
    file = pq.ParquetFile(pa.BufferReader(data))
    header = file.schema_arrow.names
    columns = find_columns(header, asked)
    chosen = choose_key(columns, key, header)
    table = file.read(columns=sorted(set(columns.values())))
    fields = {name: _as_text(table[column], column) for name, column in columns.items()}
    notes = describe_columns(columns, header)
    return RegistryFile(pa.table(fields), (), chosen, columns, asked, notes=notes)


def _read_csv(
    data: bytes, asked: Mapping[str, str], key: str | None, encoding: str
) -> RegistryFile:
    header, delimiter, skipped = _header(data, encoding)
    columns = find_columns(header, asked)
    chosen = choose_key(columns, key, header)
    wanted = sorted(set(columns.values()))
    malformed = _Malformed(skipped)
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(data),
            # One thread: only then does Arrow say which row is malformed.
            pa_csv.ReadOptions(
                use_threads=False, encoding=encoding, block_size=8 << 20, skip_rows=skipped
            ),
            pa_csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=malformed
            ),
            pa_csv.ConvertOptions(
                include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string())
            ),
        )
    except UnicodeError as error:
        raise UsageError(_not_in(encoding)) from error
    except pa.ArrowInvalid as error:
        if malformed.unclosed is not None:
            raise UsageError(
                f"The registry's file has a quotation mark in row {malformed.unclosed} that is not "
                "closed; close it, and double the marks inside values."
            ) from error
        if "UTF8" in str(error):
            raise UsageError(_not_in(encoding)) from error
        raise
    rows = sorted(malformed.rows)
    fields = {name: _trimmed(_with_gaps(table[c], rows)) for name, c in columns.items()}
    notes = describe_columns(columns, header)
    return RegistryFile(pa.table(fields), tuple(rows), chosen, columns, asked, notes=notes)


def _header(data: bytes, encoding: str) -> tuple[list[str], str, int]:
    """Return the names of the columns, what is between values, and lines before the names.

    A first line `sep=;` is a spreadsheet's, and states what is between values.
    """
    try:
        # Incremental: the piece may end in the middle of a character.
        text = codecs.getincrementaldecoder(encoding)().decode(data[:_HEADER])
    except UnicodeError as error:
        raise UsageError(_not_in(encoding)) from error
    lines = text.lstrip("\ufeff\r\n").splitlines() or [""]
    stated = _SEPARATOR.fullmatch(lines[0])
    skipped = 1 if stated and len(lines) > 1 else 0
    delimiter = stated[1] if stated and skipped else max(_DELIMITERS, key=lines[0].count)
    try:
        names = csv.reader(io.StringIO(lines[skipped]), delimiter=delimiter)
        return next(names, []), delimiter, skipped
    except csv.Error as error:
        raise UsageError(
            f"The registry's file has a column's name of more than {csv.field_size_limit()} "
            "characters; is it a table with a header?"
        ) from error


def _not_in(encoding: str) -> str:
    return (
        f"The registry's file is not in the encoding {encoding}; save it as UTF-8, or name its own "
        "by --encoding, such as cp1252."
    )


def _with_gaps(column: pa.ChunkedArray, rows: list[int]) -> pa.ChunkedArray:
    """A column with a null at each of the rows (from 1, ascending) that the reader left out."""
    pieces, start = [], 0
    for place, row in enumerate(rows):
        end = row - 1 - place
        pieces += [*column.slice(start, end - start).chunks, pa.nulls(1, column.type)]
        start = end
    return pa.chunked_array([*pieces, *column.slice(start).chunks], column.type)


def _as_text(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """A column of Parquet as trimmed text; whole numbers that were stored as floats as such."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    if pa.types.is_floating(column.type) and pc.all(pc.equal(column, pc.round(column))).as_py():
        column = column.cast(pa.int64())
    try:
        return _trimmed(column.cast(pa.string()))
    except pa.ArrowException as error:
        raise UsageError(
            f"The registry's column {name!r} is of type {column.type}; text, numbers and dates are "
            "accepted."
        ) from error


def _trimmed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    plain = pc.utf8_trim(column, " \t\r\n\0\u00a0")
    return pc.if_else(pc.equal(plain, ""), pa.scalar(None, pa.string()), plain)


def _why(error: Exception) -> str:
    return str(error).splitlines()[0][:160].rstrip(".") + "."
