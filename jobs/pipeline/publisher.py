"""The publishing stage: blocks of classified rows into unit files, and their receipts."""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import Final

import pyarrow as pa

from implant_model.storage.local_files import OWNER_ALONE
from jobs.pipeline.blocks import read_block
from jobs.tables.receipts import Piece, Receipt, Unit, dump
from jobs.tables.unit_files import publish_unit

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
        starts = accumulate((_rows_of(piece) for piece in pieces), initial=0)
        receipts = self._pool.map(
            lambda piece, start: _receipt(piece, rows, start, self._output), pieces, starts
        )
        return pa.table({"receipts": [dump(receipts)]}, schema=RECEIPT)


def _rows_of(piece: Piece) -> int:
    return piece.members if isinstance(piece, Unit) and not piece.adopted else 0


def _receipt(piece: Piece, rows: pa.Table, start: int, output: str) -> Receipt:
    if isinstance(piece, Unit):
        return publish_unit(piece, rows.slice(start, _rows_of(piece)), output)
    return piece
