"""Files of units: made whole, checked against the members that were read, put once.

The name of a unit's file is the same in every run, so 'already there' means that another attempt
has published it: it is read, checked and adopted, never overwritten. Archives that were read whole
within one block share a file, a *bundle*, whose name follows from the units in it.
"""

import hashlib
import posixpath
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import pyarrow as pa
import pyarrow.parquet as pq

from implant_model import storage
from implant_model.errors import ImplantError, Outcome, StorageError
from jobs.tables.file_statistics import statistics_of
from jobs.tables.receipts import COUNTED, Counts, Failure, Published, Unit, UnitFile
from jobs.tables.schema import (
    PREDICTIONS,
    SCHEMA_PROPERTY,
    SCHEMA_VERSION,
    bundle_id,
    prediction_row,
    version_of,
)


def publish_unit(unit: Unit, rows: pa.Table, output: str) -> Published | Failure:
    """Put one unit's file, or adopts the one that is there.

    Args:
        unit: What was read; its rows are not needed where it is adopted.
        rows: Schema `PREDICTION_ROW`, one for each member.
        output: Normalised URI of the output.

    Returns:
        The receipt.
    """
    uri = storage.join(output, PREDICTIONS, unit.path)
    try:
        if unit.adopted:
            data = storage.read_bytes(uri)
            rows = _check_published(data, unit)
        else:
            check_unit(rows, unit, SCHEMA_VERSION)
            data = encode(rows)
            if not storage.put_if_absent(uri, data):
                data = storage.read_bytes(uri)
                rows = _check_published(data, unit)
    except ImplantError as error:
        return Failure(unit.position, str(error))
    return _receipt(unit, _columns_of(rows), _File(unit.path, data, rows))


def publish_bundle(
    units: Sequence[Unit], rows: pa.Table, output: str
) -> Sequence[Published | Failure]:
    """Put one file for the units of several archives, or adopt the one that is there.

    Args:
        units: Each the only one of its archive, none adopted, all of one model.
        rows: Schema `PREDICTION_ROW`, theirs in their order.
        output: Normalised URI of the output.

    Returns:
        A receipt for each unit; all name the same file.
    """
    name = bundle_id(posixpath.basename(unit.path) for unit in units)
    path = posixpath.join(posixpath.dirname(units[0].path), f"{name}.parquet")
    uri = storage.join(output, PREDICTIONS, path)
    try:
        parts = _parts(units, rows, SCHEMA_VERSION)
        data = encode(rows)
        if not storage.put_if_absent(uri, data):
            data = storage.read_bytes(uri)
            rows = _open_published(data, path)
            parts = _parts(units, rows, version_of(rows.schema))
    except ImplantError as error:
        return [Failure(unit.position, str(error)) for unit in units]
    file = _File(path, data, rows)
    return [_receipt(unit, part, file) for unit, part in zip(units, parts, strict=True)]


def _parts(units: Sequence[Unit], rows: pa.Table, schema_version: int) -> "list[_Columns]":
    """Return the rows of each unit.

    Raises:
        StorageError: They are not those that it has to have.
    """
    fits = rows.schema.equals(prediction_row(schema_version))
    columns = _columns_of(rows)
    parts: list[_Columns] = []
    start = 0
    for unit in units:
        part = {name: column[start : start + unit.members] for name, column in columns.items()}
        _check_columns(part, unit, fits)
        parts.append(part)
        start += unit.members
    if start != rows.num_rows:
        raise StorageError(f"A bundle has {rows.num_rows} rows; its units have {start} members.")
    return parts


class _File:
    """What receipts state of a file, which is the same for all of its units."""

    def __init__(self, path: str, data: bytes, rows: pa.Table) -> None:
        self.path = path
        self.size = len(data)
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.statistics = statistics_of(rows)


def _receipt(unit: Unit, columns: "_Columns", file: _File) -> Published:
    published = UnitFile(
        file.path, unit.first_member, unit.members, file.size, file.sha256, file.statistics
    )
    return Published(unit.position, published, unit.num_bytes, Counts.of_columns(columns))


def encode(rows: pa.Table) -> bytes:
    """Return a unit's Parquet file; the same rows give the same bytes."""
    sink = pa.BufferOutputStream()
    rows = rows.replace_schema_metadata({SCHEMA_PROPERTY: str(SCHEMA_VERSION)})
    pq.write_table(rows, sink, compression="zstd", write_page_checksum=True)
    return bytes(sink.getvalue())


def _check_published(data: bytes, unit: Unit) -> pa.Table:
    """Open a file that another attempt published, and check that it is this unit's."""
    rows = _open_published(data, unit.path)
    check_unit(rows, unit, version_of(rows.schema))
    return rows


def _open_published(data: bytes, path: str) -> pa.Table:
    try:
        return pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise StorageError(
            f"The published file {path} cannot be read ({type(error).__name__}); it is left as it "
            "is. Move it away and run again."
        ) from error


def check_unit(rows: pa.Table, unit: Unit, schema_version: int) -> None:
    """Check that `rows` are the unit's members, each once, in order, and each with an outcome.

    Args:
        rows: Of the unit.
        unit: What they have to be.
        schema_version: Whose columns they have to have: of a file, the one that it names.

    Raises:
        StorageError: They are not.
    """
    fits = rows.schema.equals(prediction_row(schema_version))
    _check_columns(_columns_of(rows), unit, fits)


_Columns = Mapping[str, list[Any]]
"""The columns `_USED` of some rows, as Python values: Arrow's calls on a table of one row, as each
loose radiograph would be, take longer than its decode."""
_USED: Final = ("member_index", "archive", "archive_version", *COUNTED)
_OUTCOMES: Final = frozenset(map(str, Outcome))


class FileRows:
    """The rows of a published file, as Python values, by the archive that they are of.

    Args:
        rows: All of the file.
    """

    def __init__(self, rows: pa.Table) -> None:
        self._fits = rows.schema.equals(prediction_row(version_of(rows.schema)))
        self._columns = _columns_of(rows)
        self._places: dict[tuple[str, str], list[int]] = defaultdict(list)
        if not self._fits:  # there may be no such columns
            return
        keys = zip(self._columns["archive"], self._columns["archive_version"], strict=True)
        for place, key in enumerate(keys):
            self._places[key].append(place)

    def reasons_of(self, unit: Unit, *, is_shared: bool) -> list[str | None]:
        """Check a unit's rows, and return their reasons.

        Args:
            unit: What they have to be.
            is_shared: The file may hold rows of other archives, too.

        Raises:
            StorageError: They are not.
        """
        columns = self._columns
        if is_shared:
            places = self._places.get((unit.archive, unit.version), [])
            columns = {name: [values[p] for p in places] for name, values in columns.items()}
        _check_columns(columns, unit, self._fits)
        return columns["reason"]


def _columns_of(rows: pa.Table) -> _Columns:
    present = [name for name in _USED if name in rows.schema.names]
    return cast(_Columns, rows.select(present).to_pydict())


def _check_columns(columns: _Columns, unit: Unit, fits: bool) -> None:
    """Do what `check_unit` does; `fits` states whether the rows have the right schema."""
    expected = list(range(unit.first_member, unit.first_member + unit.members))
    whole = (
        fits
        and columns["member_index"] == expected
        and set(columns["archive"]) == {unit.archive}
        and set(columns["archive_version"]) == {unit.version}
        and _OUTCOMES.issuperset(columns["outcome"])
    )
    if not whole:
        raise StorageError(
            f"The rows of {unit.path} are not the members {expected[0]} to {expected[-1]} of "
            f"{unit.archive!r}, each once; the unit is not published."
        )
