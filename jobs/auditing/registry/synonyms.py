"""The table that says what the registry's own words mean, such as `unmatched.csv` filled in.

Spreadsheets save it as they like: with commas, semicolons or tabs, in UTF-8 or in Windows' own
encoding of western Europe, cp1252.
"""

import csv
import io
from typing import Final

from implant_model import storage
from implant_model.errors import NotFoundError, UsageError

_DELIMITERS: Final = (",", ";", "\t")


def read_synonyms(uri: str | None) -> dict[str, str]:
    """Reads a table of `text` and `means`; rows without a meaning are passed over.

    Raises:
        UsageError: It is not there, no CSV in UTF-8 or cp1252, or lacks one of the columns.
    """
    if uri is None:
        return {}
    try:
        text = _decoded(storage.read_bytes(uri))
        delimiter = max(_DELIMITERS, key=text.partition("\n")[0].count)
        lines = io.StringIO(text, newline="")
        rows = list(csv.DictReader(lines, delimiter=delimiter, strict=True))
        return {_bare(row["text"]): row["means"].strip() for row in rows if row["means"].strip()}
    except NotFoundError as error:
        raise UsageError(f"--synonyms cannot be read: {error}") from error
    except (UnicodeDecodeError, csv.Error, KeyError, AttributeError) as error:
        raise UsageError(
            f"The synonyms file {uri} is no CSV in UTF-8 or cp1252 with the columns text and means."
        ) from error


def _decoded(data: bytes) -> str:
    """Text of other encodings is hardly ever UTF-8 by chance."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252")


def _bare(text: str) -> str:
    """Without the apostrophe that keeps a spreadsheet from running it."""
    return text[1:] if text[:2] in ("'=", "'+", "'-", "'@") else text
