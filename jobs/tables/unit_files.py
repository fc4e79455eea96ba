"""A unit's file: made whole, checked against the members that were read, put once.

The name of a unit's file is the same in every run, so 'already there' means that another attempt
has published it: it is read, checked and adopted, never overwritten.
"""

import hashlib
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from implant_model import storage
from implant_model.errors import ImplantError, Outcome, StorageError
from jobs.pipeline.blocks import Piece, Unit, dump_pieces, read_parcel
from jobs.pipeline.drift import novelty_bin
from jobs.tables.schema import PREDICTION_ROW, PREDICTIONS

UNITS_AT_ONCE: Final = 8  # of one parcel: a unit waits for the store, small archives are many units
RECEIPT: Final = pa.schema([pa.field("receipts", pa.string())])


class PublishParcel:
    """A publisher actor: puts the units of parcels, each once, and reports what stands.

    An actor and not a task: Ray ends workers that are idle for a second, and between two parcels a
    publisher is. Each new one would import Ray Data, 4 s of CPU.

    Args:
        output: Normalised URI of the output.
        units_at_once: Units of a parcel that are put at a time.
    """

    def __init__(self, output: str, units_at_once: int = UNITS_AT_ONCE) -> None:
        self._output = output
        self._pool = ThreadPoolExecutor(units_at_once)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Publishes one parcel.

        A receipt is a JSON object: of a unit `position`, `unit` (path, first_member, members,
        bytes, sha256), `read_bytes` and the counts `outcomes`, `reasons`, `implants` (best
        candidates) and `novelty` (by `novelty_bin`); of an archive's end the fields of `End`; of a
        unit that could not be published `position` and `error`; of a model that gives no answers
        the fields of `Fault`.

        Args:
            table: One parcel, its rows classified.

        Returns:
            One row of schema `RECEIPT`.
        """
        pieces, rows, _ = read_parcel(table, 1)
        starts = accumulate((_rows_of(piece) for piece in pieces), initial=0)
        receipts = self._pool.map(
            lambda piece, start: _receipt_of(piece, rows, start, self._output), pieces, starts
        )
        return pa.table({"receipts": [json.dumps(list(receipts))]}, schema=RECEIPT)


def _rows_of(piece: Piece) -> int:
    return piece.members if isinstance(piece, Unit) and not piece.adopted else 0


def _receipt_of(piece: Piece, rows: pa.Table, start: int, output: str) -> dict[str, Any]:
    if isinstance(piece, Unit):
        return publish_unit(piece, rows.slice(start, _rows_of(piece)), output)
    said: dict[str, Any] = json.loads(dump_pieces([piece]))[0][1]
    return said


def publish_unit(unit: Unit, rows: pa.Table, output: str) -> dict[str, Any]:
    """Puts one unit's file, or adopts the one that is there.

    Args:
        unit: What was read; its rows are not needed where it is adopted.
        rows: Schema `PREDICTION_ROW`, one for each member.
        output: Normalised URI of the output.

    Returns:
        The receipt, see `PublishParcel`.
    """
    uri = storage.join(output, PREDICTIONS, unit.path)
    try:
        if unit.adopted:
            data = storage.read_bytes(uri)
            rows = _check_published(data, unit)
        else:
            check_unit(rows, unit)
            data = encode(rows)
            if not storage.put_if_absent(uri, data):
                data = storage.read_bytes(uri)
                rows = _check_published(data, unit)
    except ImplantError as error:
        return {"position": unit.position, "error": str(error)}
    return _receipt(unit, rows, data)


def _receipt(unit: Unit, rows: pa.Table, data: bytes) -> dict[str, Any]:
    return {
        "position": unit.position,
        "unit": {
            "path": unit.path,
            "first_member": unit.first_member,
            "members": unit.members,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        },
        "read_bytes": unit.num_bytes,
        "outcomes": Counter(rows["outcome"].to_pylist()),
        "reasons": Counter(rows["reason"].drop_null().to_pylist()),
        "implants": Counter(rows["implant"].drop_null().to_pylist()),
        "novelty": Counter(map(novelty_bin, rows["novelty"].drop_null().to_pylist())),
    }


def encode(rows: pa.Table) -> bytes:
    """A unit's Parquet file; the same rows give the same bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd", write_page_checksum=True)
    return bytes(sink.getvalue())


def _check_published(data: bytes, unit: Unit) -> pa.Table:
    """Opens a file that another attempt published, and checks that it is this unit's."""
    try:
        rows = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise StorageError(
            f"The published file {unit.path} cannot be read ({type(error).__name__}); it is left "
            "as it is. Move it away and run again."
        ) from error
    check_unit(rows, unit)
    return rows


def check_unit(rows: pa.Table, unit: Unit) -> None:
    """Checks that `rows` are the unit's members, each once, in order, and each with an outcome.

    Raises:
        StorageError: They are not.
    """
    expected = list(range(unit.first_member, unit.first_member + unit.members))
    outcomes = set(rows["outcome"].to_pylist())
    whole = (
        rows.schema.equals(PREDICTION_ROW)
        and rows["member_index"].to_pylist() == expected
        and set(rows["archive"].to_pylist()) == {unit.archive}
        and set(rows["archive_version"].to_pylist()) == {unit.version}
        and outcomes <= set(map(str, Outcome))
    )
    if not whole:
        raise StorageError(
            f"The rows of {unit.path} are not the members {expected[0]} to {expected[-1]} of "
            f"{unit.archive!r}, each once; the unit is not published."
        )
