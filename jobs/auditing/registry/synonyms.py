"""What the user says that texts of the registry mean: `unmatched.csv`, filled in and given back.

A row has the text, the field that it is in, and in `means` a name of the catalogue, a joint or a
side; `y` takes the row's own proposal, and `none` states that the text is nothing of the catalogue.
A file without a column `field` speaks of every field.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from implant_model import storage
from implant_model.errors import NotFoundError, UsageError

ANY: Final = ""
"""Field of a meaning that holds wherever the text occurs."""
NOTHING: Final = "none"
"""What a text means that is nothing of the catalogue, and of which the user knows that."""
_ACCEPTED: Final = frozenset(("y", "yes", "x", "j", "ja", "oui", "ok"))
_DELIMITERS: Final = (",", ";", "\t")


@dataclass(frozen=True)
class Meanings:
    """Texts and what they mean.

    Attributes:
        by_field: Means by text by field; `ANY` is that of a file without fields.
        uri: Of the file; None without one.
    """

    by_field: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    uri: str | None = None

    def of(self, name: str) -> dict[str, str]:
        """Return the texts of a field and what they mean there."""
        return {**self.by_field.get(ANY, {}), **self.by_field.get(name, {})}

    def __iter__(self) -> Iterator[tuple[str, str, str]]:
        """Yield field, text and meaning of each."""
        for name, texts in self.by_field.items():
            for text, means in texts.items():
                yield name, text, means


def read_synonyms(uri: str | None) -> Meanings:
    """Read a table of `text` and `means`; rows without a meaning are passed over.

    Raises:
        UsageError: It is not there, no CSV in UTF-8 or cp1252, lacks one of the columns, or gives
            one text two meanings.
    """
    if uri is None:
        return Meanings()
    found: dict[str, dict[str, str]] = {}
    try:
        for row in read_rows(uri):
            name, text, means = (row.get("field") or ANY).strip(), bare(row["text"]), _means(row)
            if not means:
                continue
            before = found.setdefault(name, {}).setdefault(text, means)
            if before != means:
                raise UsageError(
                    f"The synonyms file {uri} gives {text[:80]!r} two meanings, {before[:80]!r} "
                    f"and {means[:80]!r}; leave one."
                )
    except NotFoundError as error:
        raise UsageError(f"--synonyms cannot be read: {error}") from error
    except (KeyError, AttributeError) as error:
        raise _no_table(uri) from error
    return Meanings(found, uri)


def read_rows(uri: str) -> list[dict[str, str]]:
    """Read the rows of a table of synonyms, as a spreadsheet may have saved it.

    Raises:
        UsageError: No CSV in UTF-8 or cp1252, or a row has more values than the header has columns.
        NotFoundError: It is not there.
    """
    try:
        text = _decoded(storage.read_bytes(uri))
        if text[:4].lower() == "sep=":
            text = text.partition("\n")[2]
        delimiter = max(_DELIMITERS, key=text.partition("\n")[0].count)
        lines = io.StringIO(text, newline="")
        rows = list(csv.DictReader(lines, delimiter=delimiter, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise _no_table(uri) from error
    for number, row in enumerate(rows, 1):
        if any(row.pop(None, ())):  # the key of what is over
            raise UsageError(
                f"Row {number} of the synonyms file {uri} has more values than the header has "
                f"columns; a value that holds {delimiter!r} needs quotation marks."
            )
    return rows


def _no_table(uri: str) -> UsageError:
    return UsageError(
        f"The synonyms file {uri} is no CSV in UTF-8 or cp1252 with the columns text and means."
    )


def _means(row: Mapping[str, str]) -> str:
    """Return what a row means: its proposal, if that is what the user accepted."""
    means, proposal = row["means"].strip(), (row.get("proposal") or "").strip()
    return bare(proposal) if proposal and means.casefold() in _ACCEPTED else bare(means)


def _decoded(data: bytes) -> str:
    """Return text of other encodings is hardly ever UTF-8 by chance."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252")


def bare(text: str) -> str:
    """Return a text without the apostrophe that keeps a spreadsheet from running it."""
    return text[1:] if text[:2] in ("'=", "'+", "'-", "'@") else text
