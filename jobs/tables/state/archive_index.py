"""Rows of `archives` by name, for who looks some of millions up: columns, and 16 bytes for each."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from implant_model.errors import ArchiveStatus
from jobs.tables import delta
from jobs.tables.state.hash_index import HashIndex, hash_column, hash_names

COLUMNS: Final = ["archive", "archive_version", "source", "status", "finished_at", "key_id"]


class ArchiveIndex:
    """The rows of one model.

    Args:
        table: `archives`.
        model: Name of a partition.

    Raises:
        StorageError: A data file is damaged or gone, or the store does not answer.
    """

    def __init__(self, table: delta.Table, model: str) -> None:
        known = {field.name for field in table.schema().fields}
        columns = [name for name in COLUMNS if name in known]  # the first version lacks the key
        batches = list(delta.row_batches(table, columns, model=model))
        self._rows = pa.Table.from_batches(batches) if batches else None

    def __len__(self) -> int:
        return 0 if self._rows is None else int(self._rows.num_rows)

    @property
    def num_incomplete(self) -> int:
        """Return archives that were not read to their ends."""
        if self._rows is None:
            return 0
        return int(pc.sum(pc.not_equal(self._rows["status"], ArchiveStatus.COMPLETE)).as_py() or 0)

    @property
    def key_ids(self) -> frozenset[str]:
        """Return the keys whose pseudonyms the rows of predictions have, where that is recorded."""
        if self._rows is None or "key_id" not in self._rows.column_names:
            return frozenset()
        return frozenset(pc.unique(self._rows["key_id"]).drop_null().to_pylist())

    def row(self, archive: str, version: str | None = None) -> Mapping[str, Any] | None:
        """Return the row of an archive in one version, or in the one that is there."""
        if self._rows is None:
            return None
        _, places = self._by_name.find(hash_names([archive]))
        for place in places.tolist():
            found: dict[str, Any] = self._rows.slice(place, 1).to_pylist()[0]
            if found["archive"] == archive and version in (None, found["archive_version"]):
                return found
        return None

    @cached_property
    def _by_name(self) -> HashIndex:
        index = HashIndex()
        if self._rows is not None:
            index.add(hash_column(self._rows["archive"]), np.arange(len(self)))
        return index
