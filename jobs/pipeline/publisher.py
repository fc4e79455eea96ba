"""The publishing stage: blocks of classified rows into files of units, and their receipts.

Archives that a block holds whole share one file: a radiograph that lies alone is one row, and a
file for each would be slow to write, to list and to read.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import accumulate, chain
from typing import Final

import pyarrow as pa

from implant_model.storage.local_files import OWNER_ALONE
from jobs.pipeline.blocks import read_block
from jobs.tables.receipts import End, Piece, Receipt, Unit, dump_receipts
from jobs.tables.unit_files import publish_bundle, publish_unit

UNITS_AT_ONCE: Final = 8
"""Of one block that a publisher puts at a time: a unit waits for the store, and small archives are
many units."""
RECEIPT: Final = pa.schema([pa.field("receipts", pa.string())])


class PublishBlock:
    """A publisher actor: puts the units of blocks, each once, and answers with receipts.

    An actor and not a task: Ray ends workers that are idle for a second, and between two blocks a
    publisher is. Each new one would import Ray Data, 4 s of CPU.

    Args:
        output: Normalised URI of the output.
        private: Let nobody but this account read what is written to a disk.
        units_at_once: Units of a block that are put at a time.
    """

    def __init__(
        self, output: str, private: bool = False, units_at_once: int = UNITS_AT_ONCE
    ) -> None:
        if private:
            os.umask(OWNER_ALONE)
        self._output = output
        self._pool = ThreadPoolExecutor(units_at_once)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Publish one block, its rows classified; return one row of schema `RECEIPT`."""
        pieces, rows, _ = read_block(table, 1)
        units = chain.from_iterable(self._pool.map(_call, _files(pieces, rows, self._output)))
        others = [piece for piece in pieces if not isinstance(piece, Unit)]
        return pa.table({"receipts": [dump_receipts([*units, *others])]}, schema=RECEIPT)


Publish = Callable[[], Sequence[Receipt]]
"""Puts a file, and answers with the receipts of what it holds."""


def _call(publish: Publish) -> Sequence[Receipt]:
    return publish()


def _files(pieces: Sequence[Piece], rows: pa.Table, output: str) -> list[Publish]:
    """Deal the units of a block to files: one for all archives that it holds whole."""
    ends = {piece.position: piece for piece in pieces if isinstance(piece, End)}
    starts = accumulate((_rows_of(piece) for piece in pieces), initial=0)
    whole: list[tuple[Unit, pa.Table]] = []
    files: list[Publish] = []
    for piece, start in zip(pieces, starts, strict=False):
        if not isinstance(piece, Unit):
            continue
        part = rows.slice(start, _rows_of(piece))
        if _is_whole(piece, ends.get(piece.position)):
            whole.append((piece, part))
        else:
            files.append(partial(_publish_one, piece, part, output))
    if len(whole) == 1:
        files.insert(0, partial(_publish_one, *whole[0], output))
    elif whole:
        units, parts = zip(*whole, strict=True)
        files.insert(0, partial(publish_bundle, units, pa.concat_tables(parts), output))
    return files


def _is_whole(unit: Unit, end: End | None) -> bool:
    """Whether a unit is all that its archive has."""
    is_all = end is not None and end.status.is_readable and end.members == unit.members
    return is_all and not unit.adopted


def _rows_of(piece: Piece) -> int:
    return piece.members if isinstance(piece, Unit) and not piece.adopted else 0


def _publish_one(unit: Unit, rows: pa.Table, output: str) -> Sequence[Receipt]:
    return [publish_unit(unit, rows, output)]
