"""Which radiographs to explain: named one by one, or by a table of the tables' own columns."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from implant_model import storage
from implant_model.errors import NotFoundError, UsageError
from jobs.tables.loose_names import find_files, is_loose

COLUMNS = ("archive", "member_index")


@dataclass(frozen=True)
class Target:
    """One radiograph.

    Attributes:
        number: Its place in the call, from 1.
        uri: Normalised, of the file that is the radiograph or holds it.
        member: Its position in an archive, from 0; None: the file holds one radiograph.
    """

    number: int
    uri: str
    member: int | None


def find_targets(
    words: Sequence[str], table: str | None, inputs: Sequence[str], predictions: str | None
) -> list[Target]:
    """Return what a call names one by one, of which each is there, or else what its table does.

    Args:
        words: See `named_targets`.
        table: See `listed_targets`, as the others.
        inputs: Of a table.
        predictions: Of a table.

    Raises:
        UsageError: The table cannot be read, or a radiograph is not there.
    """
    if table:
        return listed_targets(table, inputs, predictions)
    targets = named_targets(words)
    for target in targets:
        try:
            storage.stat(target.uri)
        except NotFoundError as error:
            what = "IMAGE" if target.member is None else f"The archive of No. {target.number}"
            raise UsageError(f"{what} cannot be read: {error}") from error
    return targets


def named_targets(words: Sequence[str]) -> list[Target]:
    """Read `IMAGE ...` and `ARCHIVE MEMBER_INDEX ...`, in any order.

    Raises:
        UsageError: A number follows no archive.
    """
    found: list[Target] = []
    for word in words:
        if not (word.isascii() and word.isdigit()):
            found.append(Target(len(found) + 1, storage.normalise(word), None))
        elif found and found[-1].member is None:
            found[-1] = Target(len(found), found[-1].uri, int(word))
        else:
            raise UsageError(
                f"The number {word} follows no archive; a file of that name is ./{word}."
            )
    return found


def listed_targets(table: str, inputs: Sequence[str], predictions: str | None) -> list[Target]:
    """Read a table with the columns `archive` and `member_index`.

    Args:
        table: URI of CSV or Parquet, such as an audit's worklist.
        inputs: The INPUTs of classify, which names of archives are relative to; none: they are
            paths or URIs.
        predictions: The --output of classify, which knows the files of keyed names; without it
            these are left out.

    Raises:
        UsageError: It cannot be read, lacks a column, names an archive that is not there, or has
            keyed names alone and nothing that knows them.
    """
    roots = [storage.normalise(root) for root in inputs]
    rows = _read(table)
    numbered = dict(enumerate(rows, start=1))
    keyed = {number for number, row in numbered.items() if is_loose(row["archive"])}
    loose: Mapping[str, str] = {}
    if keyed and predictions is not None and roots:
        output = storage.normalise(predictions)
        loose = {name: planned.info.uri for name, planned in find_files(output, roots)}
    elif keyed:
        _leave_out(table, len(keyed), len(rows))
        numbered = {number: row for number, row in numbered.items() if number not in keyed}
    return [
        Target(number, _place(row["archive"], number, roots, loose), row["member_index"])
        for number, row in numbered.items()
    ]


def _leave_out(table: str, num_keyed: int, num_rows: int) -> None:
    """Print how many loose radiographs are left out; where all are, refuse."""
    needed = "give --predictions OUTPUT and --images INPUT, which know their files."
    if num_keyed == num_rows:
        raise UsageError(f"--table {table} has keyed names of loose radiographs alone: {needed}")
    print(
        f"{num_keyed:,} of {num_rows:,} rows of --table are loose radiographs under keyed names, "
        f"and are left out: {needed}",
        flush=True,
    )


def by_file(targets: Sequence[Target]) -> Iterator[tuple[str, list[Target]]]:
    """Yield each file once, in the order of the call, with the radiographs wanted of it."""
    files: dict[str, list[Target]] = {}
    for target in targets:
        files.setdefault(target.uri, []).append(target)
    yield from files.items()


def _place(name: str, number: int, roots: Sequence[str], loose: Mapping[str, str]) -> str:
    if name in loose:
        return loose[name]
    if not roots:
        return storage.normalise(name)
    for root in roots:
        below = storage.join(root, name)
        if storage.exists(below) is not None:
            return below
        if root.rpartition("/")[2] == name and storage.exists(root) is not None:
            return root
    raise UsageError(f"Row {number} of --table names an archive that is not below --images.")


def _read(table: str) -> list[dict[str, Any]]:
    try:
        data = storage.read_bytes(storage.normalise(table))
        if data[:4] == b"PAR1":
            read = pq.read_table(pa.BufferReader(data), partitioning=None)
        else:
            read = pa_csv.read_csv(io.BytesIO(data))
        rows = read.select(list(COLUMNS)).cast(
            pa.schema([("archive", pa.string()), ("member_index", pa.int64())])
        )
    except NotFoundError as error:
        raise UsageError(f"--table {table} is not there.") from error
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise UsageError(
            f"--table {table} is no CSV or Parquet with the columns archive and member_index."
        ) from error
    if rows["archive"].null_count or rows["member_index"].null_count or not rows.num_rows:
        raise UsageError(f"--table {table} has no row, or one without archive and member_index.")
    found: list[dict[str, Any]] = rows.to_pylist()
    return found
