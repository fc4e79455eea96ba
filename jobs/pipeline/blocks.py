"""What the stages hand to each other: units and ends of archives, with their rows and pictures.

A *block* is a table of one row, so that nothing can split it: `pieces` (JSON) names the units and
ends of archives that it holds, `rows` (one list of structs) has the prediction rows of its units in
order, `images` the uint8 pictures of those rows that the classifier has still to see, in order.
Rows become Arrow when a block is closed, since a table for each loose radiograph would take longer
than its picture, and stay so: in a block they are a view, not a copy.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa

from jobs.tables.receipts import Piece, Unit, dump_pieces, load_pieces
from jobs.tables.schema import PREDICTION_ROW

# An outcome is null until the classifier has seen the picture, so here any value may be.
_ROW: Final = [row.with_nullable(True) for row in PREDICTION_ROW]
BLOCK: Final = pa.schema(
    [
        pa.field("pieces", pa.string()),
        pa.field("rows", pa.list_(pa.struct(_ROW))),
        pa.field("images", pa.large_binary()),
    ]
)


@dataclass
class Block:
    """A block while it is open.

    Attributes:
        pieces: Units and ends, in the order in which they were read.
        rows: Prediction rows of the units that are not adopted.
        images: Pictures of the rows without an outcome, uint8, all of one size, end to end.
        members: Of all units, adopted ones too.
        num_bytes: Size of these members in their archives, expanded.
    """

    pieces: list[Piece] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    images: bytearray = field(default_factory=bytearray)
    members: int = 0
    num_bytes: int = 0

    def add(
        self, piece: Piece, rows: Iterable[dict[str, Any]], images_HW: Iterable[np.ndarray]
    ) -> None:
        """Append a piece with its rows and pictures."""
        self.pieces.append(piece)
        self.rows.extend(rows)
        for image_HW in images_HW:
            self.images += np.ascontiguousarray(image_HW).data.cast("B")
        if isinstance(piece, Unit):
            self.members += piece.members
            self.num_bytes += piece.num_bytes

    def to_table(self) -> pa.Table:
        """Return the block as a table of one row, schema `BLOCK`; its pictures are not copied."""
        rows = pa.Table.from_pylist(self.rows, schema=PREDICTION_ROW)
        return block_table(self.pieces, rows, self.images)


def block_table(
    pieces: Iterable[Piece], rows: pa.Table, images: bytes | bytearray = b""
) -> pa.Table:
    """Return a block as a table of one row, schema `BLOCK`, which refers to the pictures."""
    structs = pa.StructArray.from_arrays(
        [column.combine_chunks() for column in rows.columns], fields=_ROW
    )
    offsets = pa.array([0, len(structs)], pa.int32())
    columns = [
        pa.array([dump_pieces(pieces)], pa.string()),
        pa.ListArray.from_arrays(offsets, structs, type=BLOCK.field("rows").type),
        pa.Array.from_buffers(
            pa.large_binary(),
            1,
            [None, pa.py_buffer(np.array([0, len(images)], np.int64)), pa.py_buffer(images)],
        ),
    ]
    return pa.table(columns, schema=BLOCK)


def read_block(table: pa.Table, size_px: int) -> tuple[list[Piece], pa.Table, np.ndarray]:
    """Open a block without copying its rows or pictures.

    Args:
        table: One row of schema `BLOCK`.
        size_px: Side of its pictures, in pixels.

    Returns:
        The pieces, their rows, and the pictures as a read-only uint8 array (N, size_px, size_px).
    """
    pieces = load_pieces(table["pieces"][0].as_py())
    structs = table["rows"].combine_chunks().flatten()
    rows = pa.Table.from_arrays(structs.flatten(), schema=PREDICTION_ROW)
    pixels = np.frombuffer(table["images"][0].as_buffer(), np.uint8)
    return pieces, rows, pixels.reshape(-1, size_px, size_px)
