"""The decisions of readers: an append-only Delta table beside the audit, one commit a decision.

A decision is in the table whole or not at all, whatever happens to the server that writes it. Two
servers may write at once: each works its commit out again on the newest state. Nothing is changed
afterwards: who undoes a decision adds a row that undoes it. A decision has a random id that the
page gave it, so that one that is sent again, or merged again, counts once.
"""

import hashlib
import json
import math
import re
import threading
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from implant_model import storage
from implant_model.errors import StorageError, UsageError
from implant_model.storage.local_files import whole_file
from implant_model.storage.spreadsheets import write_csv
from jobs.tables import delta

DECISIONS: Final = "decisions"
MAX_TEXT: Final = 2000
"""Characters of a note, a name or an implant."""
MAX_FILES: Final = 200
"""Files of the table from which they are put together when it is opened."""
MAX_NAME: Final = 100
"""Characters of a reader's name."""
_ID: Final = re.compile("[0-9a-f]{32}")


class Judgement(StrEnum):
    """What a reader finds of a record and its radiographs; column `judgement`. Closed."""

    RECORD_WRONG = "record_wrong"
    RECORD_RIGHT = "record_right"
    BAD_IMAGE = "bad_image"
    OTHER_OPERATION = "other_operation"
    CANNOT_TELL = "cannot_tell"


class Queue(StrEnum):
    """From where cases are served; column `queue`. Closed."""

    WORKLIST = "worklist"
    SAMPLE = "sample"
    SECOND = "second"
    ARBITRATION = "arbitration"


class Kind(StrEnum):
    """What a row of the table is; column `kind`. Closed."""

    READING = "reading"
    ARBITRATION = "arbitration"
    UNDO = "undo"


_IMAGE: Final = pa.struct(
    [
        ("archive", pa.string()),
        ("archive_version", pa.string()),
        ("member_index", pa.int64()),
        ("shown", pa.bool_()),
    ]
)
ROW: Final = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("case", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("record", pa.string()),
        pa.field("claimed", pa.string()),
        pa.field("queue", pa.string(), nullable=False),
        pa.field("reader", pa.string(), nullable=False),
        pa.field("judgement", pa.string()),
        pa.field("implant", pa.string()),
        pa.field("note", pa.string()),
        pa.field("undoes", pa.string()),
        pa.field("begun_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("decided_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("images", pa.list_(_IMAGE)),
        pa.field("software", pa.string(), nullable=False),
        pa.field("audit", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
    ]
)
"""One row of the table; `model` is its partition."""


@dataclass(frozen=True)
class SeenImage:
    """A radiograph as it was there when the decision was made.

    Attributes:
        archive: As the tables name it.
        archive_version: The version that was predicted and shown.
        member_index: Its position.
        shown: Whether it could be shown; False where it was replaced, gone or damaged.
    """

    archive: str
    archive_version: str
    member_index: int
    shown: bool


@dataclass(frozen=True)
class Decision:
    """One row of the table.

    Attributes:
        id: 32 hex digits at random.
        kind: What it is.
        case: See `cases.Case`.
        row: Of the registry's file.
        record: The registry's number; None where the file has none.
        claimed: What the record meant when it was looked at.
        queue: Where it was served.
        reader: Who decided.
        judgement: None for an undoing.
        implant: What was implanted instead, where the record is wrong and the reader can tell.
        note: Free text.
        undoes: Id of the decision that this one undoes.
        begun_at: When the case was first shown, UTC.
        decided_at: UTC.
        seconds: For how long the case was on a page that was being looked at.
        images: Which version of which radiograph.
        software: Version of this software.
        audit: When the audit was made.
        model: `name@hash`.
    """

    id: str
    kind: Kind
    case: str
    row: int
    record: str | None
    claimed: str | None
    queue: str
    reader: str
    judgement: Judgement | None
    implant: str | None
    note: str | None
    undoes: str | None
    begun_at: datetime
    decided_at: datetime
    seconds: float
    images: tuple[SeenImage, ...]
    software: str
    audit: str
    model: str

    def to_row(self) -> dict[str, Any]:
        """Return the row of the table."""
        row = {field.name: getattr(self, field.name) for field in fields(self)}
        return row | {"images": [vars(image) for image in self.images]}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Self:
        """Read a row; ValueError, KeyError or TypeError for one that is not of this form."""
        judgement = row["judgement"]
        return cls(
            **{
                **{field.name: row[field.name] for field in fields(cls)},
                "kind": Kind(row["kind"]),
                "judgement": None if judgement is None else Judgement(judgement),
                "images": tuple(SeenImage(**image) for image in row["images"] or ()),
            }
        )


def case_id(record: str | None, key: str | None, row: int) -> str:
    """Return the id of a record: of its number and key, or of its row where it has neither."""
    identity = [record, key] if record is not None or key is not None else [row]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def is_id(text: str) -> bool:
    """Whether this is a decision's id: 32 hex digits."""
    return _ID.fullmatch(text) is not None


def is_reader(name: str) -> bool:
    """Whether this is a reader's name: 1 to `MAX_NAME` printable characters, no blank around."""
    return 0 < len(name) <= MAX_NAME and name.isprintable() and name == name.strip()


@lru_cache(1024)
def person(reader: str) -> str:
    """Return who a reader is: letters' case, blanks and the form of accents make no difference.

    Who writes `Ann` today and `ann` tomorrow is one reader, and no second one for cases of her own.
    """
    return " ".join(unicodedata.normalize("NFKC", reader).casefold().split())


def written(text: str) -> str | None:
    """Return a text as it is kept; None for nothing.

    What no file of text can hold gives way: halves of a surrogate pair, as a page sends of a
    character that was cut in two, and control characters but the line end and the tab.
    """
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    kept = (c for c in whole if c in "\n\t" or unicodedata.category(c) != "Cc")
    return "".join(kept).strip() or None


class DecisionTable:
    """The table of one audit; its methods may be called by several threads.

    Args:
        folder: The audit's.

    Raises:
        StorageError: It cannot be made or read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / DECISIONS
        self._uri = storage.normalise(str(self._folder))
        self._lock = threading.Lock()
        self._read: set[str] = set()
        self._version = -1
        self._found: dict[str, Decision] = {}
        self._ordered: tuple[Decision, ...] = ()
        delta.create_table(self._uri, ROW)
        self._put_together()

    def all(self) -> Sequence[Decision]:
        """Return all decisions, those of other servers too, in the order of their time.

        The same object, as long as there is no new one.
        """
        with self._lock:
            self._refresh()
            if len(self._ordered) != len(self._found):
                self._ordered = tuple(
                    sorted(self._found.values(), key=lambda d: (d.decided_at, d.id))
                )
            return self._ordered

    def append(self, decision: Decision) -> bool:
        """Add a decision; return False where the table has it already.

        Raises:
            StorageError: It could not be written; then it is not in the table.
        """
        return self.merge([decision]) == 1

    def merge(self, decisions: Iterable[Decision]) -> int:
        """Add those decisions that the table does not have, in one commit; return how many.

        Raises:
            StorageError: They could not be written; then none of them is in the table.
        """
        given = {decision.id: decision for decision in decisions}
        with self._lock:
            self._refresh()
            new = [decision for key, decision in given.items() if key not in self._found]
            if new:
                rows = pa.Table.from_pylist([d.to_row() for d in new], ROW)
                delta.commit(self._uri, lambda table: delta.write_rows(table, rows))
                self._found |= {decision.id: decision for decision in new}
            return len(new)

    def _refresh(self) -> None:
        """Read the files that the log names and that were not read before."""
        table = delta.open_table(self._uri)
        if table is None:
            raise StorageError(f"The decisions {self._folder} are not there any more.")
        if table.version() == self._version:
            return
        version = table.version()
        paths = {unquote(file["path"]) for file in delta.active_files(table)}
        for path in sorted(paths - self._read):
            for decision in _read_file(self._folder / path, path):
                self._found.setdefault(decision.id, decision)
        self._read |= paths
        self._version = version

    def _put_together(self) -> None:
        """Compact a table of many small files, as each decision is one."""
        table = delta.open_table(self._uri)
        if table is not None and len(delta.active_files(table)) > MAX_FILES:
            delta.commit(
                self._uri,
                lambda table: table.optimize.compact(post_commithook_properties=delta.HOOKS),
            )


def _read_file(file: Path, path: str) -> list[Decision]:
    model = path.partition("=")[2].partition("/")[0]
    try:
        rows = pq.read_table(file, partitioning=None).to_pylist()
        return [Decision.from_row({**row, "model": row.get("model", unquote(model))})
                for row in rows]  # fmt: skip
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise StorageError(
            f"The decisions in {file} cannot be read ({type(error).__name__}): the file is "
            "damaged. Put it back from a copy, or merge the other reader's decisions again."
        ) from error


def as_table(decisions: Sequence[Decision]) -> pa.Table:
    """Return decisions as rows with all columns."""
    return pa.Table.from_pylist([decision.to_row() for decision in decisions], ROW)


def export_csv(path: Path, decisions: Sequence[Decision]) -> None:
    """Write CSV for people; the radiographs of a decision in one cell."""
    table = as_table(decisions)
    images = [
        "; ".join(f"{i.archive} {i.member_index} ({i.archive_version})" for i in decision.images)
        for decision in decisions
    ]
    at = table.schema.get_field_index("images")
    write_csv(path, table.set_column(at, "images", pa.array(images, pa.string())))


def export_parquet(path: Path, decisions: Sequence[Decision]) -> None:
    """Write the file that `--merge` takes on another computer."""
    with whole_file(path) as file:
        pq.write_table(as_table(decisions), file)


def read_export(text: str) -> list[Decision]:
    """Read decisions of another computer.

    Args:
        text: A Parquet file that was exported there, or the folder of an audit.

    Nothing is written there: it may be a stick that cannot be written to.

    Raises:
        UsageError: It is neither, is not there, or holds what no workbench writes.
        StorageError: A table that is damaged.
    """
    path = Path(text)
    try:
        found = _in_folder(path)
        if found is None:
            rows = pq.read_table(path, partitioning=None).select(ROW.names).cast(ROW)
            found = [Decision.from_row(row) for row in rows.to_pylist()]
        for decision in found:
            _check(decision)
    except FileNotFoundError as error:
        raise UsageError(f"--merge {text} is not there.") from error
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"--merge {text} is no file of decisions: name the Parquet file that the workbench "
            "exports, or the folder of the audit on the other computer."
        ) from error
    return found


def _in_folder(path: Path) -> list[Decision] | None:
    """Read the table of an audit's folder, or that is this folder; None where there is none."""
    for folder in (path / DECISIONS, path):
        table = delta.open_table(storage.normalise(str(folder))) if folder.is_dir() else None
        if table is not None:
            files = sorted(unquote(file["path"]) for file in delta.active_files(table))
            return [found for file in files for found in _read_file(folder / file, file)]
    return None


def _check(decision: Decision) -> None:
    """Raise ValueError for a decision that no workbench makes."""
    is_undo = decision.kind is Kind.UNDO
    is_whole = (
        is_id(decision.id)
        and is_reader(decision.reader)
        and decision.queue in set(Queue)
        and is_undo is (decision.judgement is None)
        and is_undo is (decision.undoes is not None)
        and 0 <= decision.seconds < math.inf
        and decision.decided_at.year < datetime.max.year
    )
    if not is_whole:
        raise ValueError("A row is no decision.")
