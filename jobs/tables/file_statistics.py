"""Statistics of a data file, as Delta's log has them: by them readers pass files over.

Of each column that has one value a row: least and greatest value, and how many are null. A reader
may take a column of which the log has none for one that holds nothing (pyarrow's dataset by
deltalake 1.6 compares with null, which is never true), so none is left out.
"""

import json
import math
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

EXACT: Final = ("archive", "archive_version")
"""Columns whose bounds are to the letter: who publishes looks archives up by them."""
MOST_CHARACTERS: Final = 64
_LAST_CHARACTER: Final = "\U0010ffff"
_MOST_FLOAT: Final = 3.4028234663852886e38


def statistics_of(rows: pa.Table) -> str:
    """Return the statistics of a file that holds `rows`, as JSON.

    A long text is cut: the least to what it begins with, the greatest to what sorts behind it.
    """
    least: dict[str, Any] = {}
    greatest: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        if pa.types.is_nested(column.type):
            continue
        nulls[name] = column.null_count
        if column.null_count < len(column):
            bounds = pc.min_max(column).as_py()
            least[name] = _cut(name, bounds["min"], is_greatest=False)
            greatest[name] = _cut(name, bounds["max"], is_greatest=True)
    found = {
        "numRecords": len(rows), "minValues": least, "maxValues": greatest, "nullCount": nulls,
    }  # fmt: skip
    return json.dumps(found, default=_text)


def _cut(name: str, value: Any, *, is_greatest: bool) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return _MOST_FLOAT if is_greatest else -_MOST_FLOAT
    if isinstance(value, str) and len(value) > MOST_CHARACTERS and name not in EXACT:
        return value[:MOST_CHARACTERS] + _LAST_CHARACTER * is_greatest
    return value


def _text(value: Any) -> str:
    return str(value.isoformat(timespec="microseconds")).replace("+00:00", "Z")
