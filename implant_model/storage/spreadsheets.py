"""CSV that a spreadsheet opens as what it is: the one writer of tables for people.

A cell that begins like a formula is shown with an apostrophe before it, in CSV only: spreadsheets
run `=`, `+`, `-`, `@`, also behind blanks, line ends and characters that are not seen (CWE-1236).
So does what follows a separator or a line end inside a cell, since a spreadsheet that splits at
another separator than the comma begins a cell there. Numbers stay numbers. A byte order mark states
that the file is UTF-8: without one spreadsheets take it for the system's old encoding.
"""

from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from implant_model.storage.local_files import whole_file

BOM: Final = b"\xef\xbb\xbf"
_SIGN: Final = r"[=+\-@\x{ff1d}\x{ff0b}\x{ff0d}\x{ff20}]"
_UNSEEN: Final = r"[\s\p{C}\p{Z}\p{M}\x{115f}\x{1160}\x{2800}\x{3164}\x{ffa0}]"
_FORMULA: Final = rf"^{_UNSEEN}*{_SIGN}|^[\t\r\n]"
_INNER: Final = rf"([,;|\t\r\n]{_UNSEEN}*)({_SIGN})"
_NUMBER: Final = r"^[+\-]?[0-9]+(\.[0-9]+)?$"


def write_csv(path: Path, table: pa.Table) -> None:
    """Write CSV in UTF-8 that spreadsheets know as such and do not take for formulas."""
    safe = pa.table({name: _safe(table[name]) for name in table.column_names})
    with whole_file(path) as file:
        file.write(BOM)
        pa_csv.write_csv(safe, file)


def _safe(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """What begins like a formula, or would once it is split, behind an apostrophe; no number."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(pa.string())
    if not pa.types.is_string(column.type):
        return column
    acts = pc.match_substring_regex(column, _FORMULA)
    is_number = pc.match_substring_regex(column, _NUMBER)
    inner = pc.replace_substring_regex(column, _INNER, r"\1'\2")
    return pc.if_else(
        pc.and_not(acts, is_number), pc.binary_join_element_wise("'", inner, ""), inner
    )
