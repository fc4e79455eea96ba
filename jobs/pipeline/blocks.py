"""What the stages hand to each other: units and ends of archives, with their rows and pictures.

A *parcel* is one row of a Ray Data block, so that nothing can split it: `pieces` (JSON) says which
units and ends of archives it holds, `rows` (an Arrow stream) has the prediction rows of its units
in order, `images` the uint8 pictures of those rows that the classifier has still to see, in order.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa

from implant_model.errors import ArchiveReason, ArchiveStatus
from jobs.tables.schema import PREDICTION_ROW

PARCEL: Final = pa.schema(
    [
        pa.field("pieces", pa.string()),
        pa.field("rows", pa.large_binary()),
        pa.field("images", pa.large_binary()),
    ]
)


@dataclass(frozen=True, slots=True)
class Unit:
    """A run of members of one archive version.

    Attributes:
        position: The archive's place in the plan.
        archive: Its name.
        version: Its version.
        first_member: Index of the unit's first member.
        members: How many members were read.
        num_bytes: Their size in the archive, expanded.
        path: The unit's file, below the predictions table.
        adopted: The output has that file already; the parcel has no rows of this unit.
    """

    position: int
    archive: str
    version: str
    first_member: int
    members: int
    num_bytes: int
    path: str
    adopted: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """The end of an archive, reached once however the reading went.

    Attributes:
        position: The archive's place in the plan.
        members: Members that were read.
        status: What became of the archive.
        reason: Why it is not complete.
        message: The same for a person; holds no value of the archive's members.
        started_at: When its reading began, seconds since 1970.
    """

    position: int
    members: int
    status: ArchiveStatus
    reason: ArchiveReason | None
    message: str
    started_at: float


@dataclass(frozen=True, slots=True)
class Fault:
    """What keeps the model from giving an answer; it ends the run, and is no archive's.

    Attributes:
        fault: One sentence for the user.
        at_start: Whether no archive has been answered with this model.
    """

    fault: str
    at_start: bool


Piece = Unit | End | Fault


@dataclass
class Parcel:
    """A parcel while it is open.

    Attributes:
        pieces: Units and ends, in the order in which they were read.
        rows: Prediction rows of the units that are not adopted.
        images_HW: Pictures of the rows without an outcome, uint8, all of one size.
    """

    pieces: list[Piece] = field(default_factory=list)
    rows: pa.Table = field(default_factory=PREDICTION_ROW.empty_table)
    images_HW: list[np.ndarray] = field(default_factory=list)

    @property
    def num_members(self) -> int:
        """Members of all units, adopted ones too."""
        return sum(piece.members for piece in self.pieces if isinstance(piece, Unit))

    def add(self, piece: Piece, rows: pa.Table, images_HW: Iterable[np.ndarray]) -> None:
        """Appends a piece with its rows and pictures."""
        self.pieces.append(piece)
        self.rows = pa.concat_tables([self.rows, rows])
        self.images_HW.extend(images_HW)

    def to_table(self) -> pa.Table:
        """The parcel as a table of one row, schema `PARCEL`."""
        return parcel_table(self.pieces, self.rows, b"".join(i.tobytes() for i in self.images_HW))


def parcel_table(pieces: Iterable[Piece], rows: pa.Table, images: bytes = b"") -> pa.Table:
    """A parcel as a table of one row, schema `PARCEL`."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    columns = [[dump_pieces(pieces)], [sink.getvalue().to_pybytes()], [images]]
    return pa.table(dict(zip(PARCEL.names, columns, strict=True)), schema=PARCEL)


def read_parcel(table: pa.Table, size_px: int) -> tuple[list[Piece], pa.Table, np.ndarray]:
    """Opens a parcel without copying its pictures.

    Args:
        table: One row of schema `PARCEL`.
        size_px: Side of its pictures, in pixels.

    Returns:
        The pieces, their rows, and the pictures as a read-only uint8 array (N, size_px, size_px).
    """
    pieces = load_pieces(table["pieces"][0].as_py())
    rows = pa.ipc.open_stream(table["rows"][0].as_buffer()).read_all()
    pixels = np.frombuffer(table["images"][0].as_buffer(), np.uint8)
    return pieces, rows, pixels.reshape(-1, size_px, size_px)


def dump_pieces(pieces: Iterable[Piece]) -> str:
    """Units and ends as JSON."""
    return json.dumps([[type(piece).__name__, asdict(piece)] for piece in pieces])


def load_pieces(text: str) -> list[Piece]:
    """The inverse of `dump_pieces`."""
    pieces: list[Piece] = []
    for kind, values in json.loads(text):
        if kind == "Unit":
            pieces.append(Unit(**values))
        elif kind == "Fault":
            pieces.append(Fault(**values))
        else:
            reason = values.pop("reason")
            status = ArchiveStatus(values.pop("status"))
            reason = None if reason is None else ArchiveReason(reason)
            pieces.append(End(status=status, reason=reason, **values))
    return pieces
