"""What the images of a training set are: a labels file, or the folders that they lie in.

A labels file (CSV with a header, or Parquet) has the columns `archive`, `member`, `label` and,
where known, `patient`. `archive` is the archive's path below the given --images, or its whole URI;
`member` is the name inside. Of a radiograph that lies loose, `archive` is its own path and `member`
is empty; where all lie loose, the columns `file` and `label` do, or `filenames` and `labels` as in
OrthoNet's `train.csv` and `test.csv`. Without a labels file, the label of an image is the name of
the folder that holds it directly, in an archive or not; an image in no folder may have a name as
OrthoNet's radiographs have, `##_****.png`. Where all images of a set have such names, they are its
labels: folders may be `train` and `test`.

Each of these tables may have the columns `masks` and `valid_mask`, of which `training.masks` makes
something; headings are found in any case and with spaces around them.

No message of this module quotes a patient: rows are named by their numbers.
"""

import csv
import io
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq

from implant_model import storage
from implant_model.errors import StorageError, UsageError
from implant_model.package.catalogue import ORTHONET
from training.data.label_rows import AT_ONCE, Label, LabelColumns, LabelRows, MaskRow
from training.data.set_columns import CodedTexts, TextCodes

COLUMNS = ("archive", "member", "label", "patient")
REQUIRED = ("archive", "member", "label")
LOOSE = "file"
"""Stands for `archive` and an empty `member` where all radiographs lie loose."""
_ORTHONETS = {"archive": "filenames", "label": "labels"}
"""Columns of OrthoNet's published tables, which have `masks` and `valid_mask` as well."""
MASKS = ("masks", "valid_mask")
_NO_VALUE = ("", "nan", "none", "null", "<na>")
"""Of a column of text, as pandas and databases write it."""
_NO_LABEL = ("", "nan", "null", "<na>", "#n/a")
"""`none` may be a class: no implant."""
_UNKNOWN_PATIENT = (*_NO_VALUE, "n/a", "#n/a", "unknown")
"""Taken for a patient, they would be one who has every image of an unknown one."""
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""First bytes of .xlsx and .ods, and of .xls."""
_DELIMITERS = (",", ";", "\t")
_HIDDEN = "@eaDir"
"""A folder of thumbnails that a Synology NAS keeps beside pictures."""
_SEPARATOR = re.compile(r'"?sep=[,;\t]"?\r?\n', re.IGNORECASE)
"""A spreadsheet's first line on what is between values; the header tells it, too."""
_CODES = [*(f"{code:02d}" for code in range(1, 9)), *(f"{code}" for code in range(21, 25))]
_ORTHONET = dict(zip(_CODES, ORTHONET.names, strict=True))


@dataclass(frozen=True)
class Labels:
    """All rows of a labels file, checked.

    Attributes:
        uri: Of the file; it may lie among the images and is not one of them.
        by_archive: The rows by archive and member.
        masks: What rows state of masks, unchecked; () where the file has no column of masks.
    """

    uri: str
    by_archive: LabelRows
    masks: Sequence[MaskRow] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Return the distinct labels, sorted: the order of the classes."""
        return tuple(sorted(self.by_archive.labels.names))


def read_labels(uri: str) -> Labels:
    """Read and check a labels file; one patient may have several implants.

    Raises:
        UsageError: Not readable, a column missing, an empty label, or an image that is named twice.
    """
    uri = storage.normalise(uri)
    data = storage.read_bytes(uri)
    if data.startswith(_WORKBOOKS):
        raise UsageError(
            f"The labels file {uri} is a workbook of a spreadsheet; save its sheet as CSV in UTF-8."
        )
    rows = _parquet_rows(data, uri) if data[:4] == b"PAR1" else _csv_rows(data, uri)
    return check_labels(rows, uri)


def read_table(uri: str, option: str) -> Labels:
    """Read the labels file that an option names.

    Args:
        uri: Of the file.
        option: It is named in the message.

    Raises:
        UsageError: It cannot be read, or see `read_labels`.
    """
    try:
        return read_labels(uri)
    except StorageError as error:
        raise UsageError(f"{option} cannot be read: {error}") from error


def _csv_rows(data: bytes, uri: str) -> Iterator[dict[str, str]]:
    lines = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline="")
    try:
        first = lines.readline()
        if "\0" in first:  # UTF-16 without its mark; UTF-8 has none
            raise _not_utf8(data, uri)
        if _SEPARATOR.fullmatch(first):
            first = lines.readline()
        delimiter = max(_DELIMITERS, key=first.count)
        reader = csv.DictReader(chain([first], lines), delimiter=delimiter, strict=True)
        columns = _columns(reader.fieldnames or (), uri)
        for row in reader:
            if any(row.get(None, ())):  # the key of what is over
                raise UsageError(
                    f"Line {reader.line_num} of the labels file {uri} has more values than the "
                    f"header has columns; a value that holds {delimiter!r} needs quotation marks."
                )
            yield {name: row[of] or "" for name, of in columns.items()}
    except UnicodeDecodeError as error:
        raise _not_utf8(data, uri) from error
    except csv.Error as error:
        raise UsageError(
            f"The labels file {uri} is not CSV behind its line {reader.line_num}; a quotation mark "
            "may lack its partner."
        ) from error


def _not_utf8(data: bytes, uri: str) -> UsageError:
    return UsageError(
        f"The labels file {uri} is not UTF-8 at its line {_line_of(data)}; save it as CSV in "
        "UTF-8, or as Parquet."
    )


def _line_of(data: bytes) -> int:
    """Return number of the first line that is not UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return data.count(b"\n", 0, error.start) + 1
    return 1


def _parquet_rows(data: bytes, uri: str) -> Iterator[dict[str, str]]:
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        columns = _columns(file.schema_arrow.names, uri)
        _check_types(file.schema_arrow, columns, uri)
        for batch in file.iter_batches(AT_ONCE, columns=[*columns.values()]):
            for row in batch.to_pylist():
                yield {name: _text(row[of]) for name, of in columns.items()}
    except UnicodeDecodeError as error:
        raise UsageError(
            f"The labels file {uri} holds a text that is not UTF-8; write it anew."
        ) from error
    except pa.ArrowException as error:
        raise UsageError(f"The labels file {uri} is damaged Parquet; write it anew.") from error


def _check_types(schema: pa.Schema, columns: Mapping[str, str], uri: str) -> None:
    """Refuse bytes and lists, whose texts in Python are no names."""
    for column in columns.values():
        kind = schema.field(column).type
        plain = kind.value_type if pa.types.is_dictionary(kind) else kind
        if pa.types.is_nested(plain) or pa.types.is_binary(plain) or _is_other_binary(plain):
            raise UsageError(
                f"The labels file {uri} has {kind} in its column {column!r}; text is expected."
            )


def _is_other_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _text(value: object) -> str:
    """Return a value as CSV has it: whole numbers that a gap made floats are whole again."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _columns(names: Sequence[str], uri: str) -> dict[str, str]:
    """Return the file's column for each of `COLUMNS` and `MASKS` that it has.

    Raises:
        UsageError: One that is needed is missing, or is there twice.
    """
    headings = _headings(names, uri)
    found = {name: name for name in COLUMNS if name in headings}
    if not found and all(name in headings for name in _ORTHONETS.values()):
        found = dict(_ORTHONETS)
    elif LOOSE in headings and "archive" not in headings and "member" not in headings:
        found["archive"] = LOOSE
    needed = REQUIRED if found.get("archive") == "archive" else ("archive", "label")
    missing = [name for name in needed if name not in found]
    if missing:
        raise UsageError(
            f"The labels file {uri} has no column {missing[0]!r}; it has "
            f"{', '.join(map(repr, names)) or 'none'}. Needed are archive, member and label; or, "
            "where all radiographs lie loose, file (the path below --images) and label."
        )
    found |= {name: name for name in MASKS if name in headings}
    return {name: headings[heading] for name, heading in found.items()}


def _headings(names: Sequence[str], uri: str) -> dict[str, str]:
    """Return the file's own heading of each column that is known: itself, or one that reads alike.

    Raises:
        UsageError: Two read alike and none is the heading itself, or it is there twice.
    """
    found: dict[str, str] = {}
    for known in (*COLUMNS, LOOSE, *_ORTHONETS.values(), *MASKS):
        same = [name for name in names if name == known]
        alike = same or [name for name in names if name.strip().casefold() == known]
        if len(alike) > 1:
            raise UsageError(f"The labels file {uri} has the column {known!r} twice; leave one.")
        if alike:
            found[known] = alike[0]
    return found


def check_labels(raw_rows: Iterable[dict[str, str]], uri: str) -> Labels:
    """Make labels of raw rows; errors are as of `read_labels`."""
    columns = LabelColumns()
    for row in _without_blank_end(raw_rows):
        patient = _patient(row.get("patient", ""))
        archive, label = row["archive"], row["label"].strip()
        label = "" if label.casefold() in _NO_LABEL else label
        if not archive or not label:
            _check_once(columns, uri)
            lacking = "label" if archive else "archive or file"
            raise UsageError(f"Row {len(columns) + 1} of the labels file {uri} has no {lacking}.")
        columns.add(archive, row.get("member", ""), label, patient)
        if "masks" in row:
            mask, is_valid = plain_path(row["masks"]), row.get("valid_mask")
            mask = "" if mask.casefold() in _NO_VALUE else mask
            if mask or is_valid:
                columns.add_mask(mask, is_valid)
    if not len(columns):
        raise UsageError(f"The labels file {uri} has no rows; one for each image is needed.")
    _check_once(columns, uri)
    rows = columns.rows()
    return Labels(uri, rows, columns.masks(rows))


def _without_blank_end(rows: Iterable[dict[str, str]]) -> Iterator[dict[str, str]]:
    """Leave out the rows without any value that a spreadsheet writes at the end of a table."""
    blank: list[dict[str, str]] = []
    for row in rows:
        if not any(map(str.strip, row.values())):
            blank = blank or [row]  # with another row behind it, it is refused by its number
            continue
        yield from blank
        blank = []
        yield row


def _patient(text: str) -> str | None:
    """Return whose image it is; None where a table states that it is not known."""
    plain = text.strip()
    return None if plain.casefold() in _UNKNOWN_PATIENT else plain


def _check_once(columns: LabelColumns, uri: str) -> None:
    """Refuse rows that label an image again."""
    again = columns.first_twice()
    if again is not None:
        raise UsageError(
            f"Rows {again[1]} and {again[0]} of the labels file {uri} label the same image; "
            "leave one."
        )


def plain_path(path: str) -> str:
    r"""Return a path of a table as it is here: without spaces around it, `/` for Windows' `\`."""
    return path.strip().replace("\\", "/").removeprefix("./")


class Spellings:
    r"""Finds the name in a table that a member's is, also where one has `./` before it or `\`.

    GNU tar writes `./a.png` where it packs a folder, and who labels on Windows `scans\a.png`.

    Args:
        names: Of an archive's members, as the table has them.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._plain = {plain_path(name): name for name in names if plain_path(name) != name}

    def find(self, member: str) -> str | None:
        """Return the table's name; None where it has none. One that is the same goes first."""
        if member in self._names:
            return member
        plain = plain_path(member)
        return plain if plain in self._names else self._plain.get(plain)


def match_archives(labels: Labels, names: Mapping[str, str]) -> dict[str, Mapping[str, Label]]:
    """Find the archive that each row speaks of.

    Args:
        labels: The file's rows.
        names: For each archive's URI its path below the --images that it was listed from.

    Returns:
        The rows of each archive's URI, by member.

    Raises:
        UsageError: A row's archive is not there, or its path means two.
    """
    owners: dict[str, str | None] = {uri: uri for uri in names}
    for uri, name in names.items():
        if name != uri:
            owners[name] = None if name in owners else uri
    matched: dict[str, Mapping[str, Label]] = {}
    for archive, members in labels.by_archive.items():
        spelled = archive if archive in owners else plain_path(archive)
        found = owners.get(spelled)
        if found is None:
            row = next(iter(members.values())).row
            fault = "means two of the images" if spelled in owners else "is not among the images"
            raise UsageError(
                f"The archive or file of the labels file's row {row} {fault}; its path below "
                "--images or its whole URI is expected, such as 2026/export.tar or hips/0001.png."
            )
        if found in matched:
            row = next(iter(members.values())).row
            raise UsageError(f"The labels file's row {row} names an archive in a second way.")
        matched[found] = members
    return matched


def labels_of_names(members: Iterable[str]) -> CodedTexts | None:
    """Return what the images of a set are by OrthoNet's naming; None where one has another name.

    Args:
        members: Names of the images inside their archives, or base names of loose ones.
    """
    labels = TextCodes()
    for member in members:
        label = orthonet_label(member)
        if label is None:
            return None
        labels.add(label)
    return labels.coded()


def label_of_name(name: str, member: str) -> str | None:
    """Return what an image is by where it lies: its folder's name, or its own in OrthoNet's naming.

    Of a set whose names all are OrthoNet's `labels_of_names` states more.

    Args:
        name: Path of the archive or loose image below --images.
        member: Name inside the archive; for a loose image its own base name.

    Returns:
        None where neither states anything.
    """
    return folder_label(name, member) or orthonet_label(member)


def orthonet_label(member: str) -> str | None:
    """Return the implant that a name such as `04_0306.png` states, by OrthoNet's numbers.

    Two digits for the implant, 01 to 08 of the hip and 21 to 24 of the knee, and the image's own
    number (Patel et al. 2021, code and data). None for any other name.
    """
    found = re.fullmatch(r"(\d\d)_\d+\.png", member.rsplit("/", 1)[-1], re.IGNORECASE | re.ASCII)
    return _ORTHONET.get(found.group(1)) if found else None


def folder_label(name: str, member: str) -> str | None:
    """Return the folder that directly holds an image: in the archive, or the loose image's own.

    Args:
        name: Path of the archive or loose image below --images.
        member: Name inside the archive; for a loose image its own base name.

    Returns:
        None where no folder is known, or where it is a hidden one, such as `.ipynb_checkpoints`.
    """
    inside = member.replace("\\", "/").strip("/").split("/")
    outside = name.strip("/").split("/")
    folders = inside[:-1] or (outside[:-1] if outside[-1] == inside[-1] else [])
    found = folders[-1] if folders else ""
    return None if not found or found.startswith(".") or found == _HIDDEN else found
