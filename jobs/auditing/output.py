"""The output of `classify` that is audited: its tables, and the model whose rows are taken."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from implant_model.errors import UsageError
from jobs.auditing.package_facts import PackageFacts, choose_model
from jobs.entry.ticker import ticking
from jobs.tables import delta
from jobs.tables.state.archive_index import ArchiveIndex


@dataclass(frozen=True)
class Output:
    """An opened output.

    Attributes:
        uri: Normalised.
        model: Whose predictions are audited.
        dataset: The table `predictions`.
        archives: Rows of the table `archives` under that model, by name.
        version: Of the table `predictions`.
    """

    uri: str
    model: PackageFacts
    dataset: Any
    archives: ArchiveIndex
    version: int = 0

    def batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Yield the model's predictions, some thousand at a time."""
        of_model = pc.field("model") == self.model.id  # the partition: other files stay closed
        count = 0
        with ticking("Predictions read") as tick:
            for batch in self.dataset.to_batches(columns=columns, filter=of_model):
                yield batch
                tick(count := count + batch.num_rows)

    @property
    def num_incomplete(self) -> int:
        """Return archives that were not read to their ends."""
        return self.archives.num_incomplete

    def check_key(self, key_id: str) -> None:
        """Refuse a key under which no pseudonym of the output was made.

        Raises:
            UsageError: Every archive whose key is recorded was read under another one.
        """
        known = self.archives.key_ids
        if known and key_id not in known:
            raise UsageError(
                f"The pseudonyms of {self.uri} were made under the key {', '.join(sorted(known))}; "
                f"the key given has the id {key_id}, and would join nothing. Give the key of that "
                "classify run (python -m jobs.keys id FILE shows a key's id)."
            )


def open_output(uri: str, model: str | None) -> Output:
    """Open the tables and choose the model.

    Args:
        uri: Normalised URI of the --output of classify.
        model: Normalised URI of the package, or None.

    Raises:
        UsageError: There are no tables, or none of the model.
        StorageError: A table cannot be read.
    """
    predictions, archives = delta.open_tables(uri)
    models = sorted(pc.unique(delta.file_columns(predictions)["partition.model"]).to_pylist())
    dataset = delta.Rows(predictions)
    facts = choose_model(models, model, dataset)
    return Output(uri, facts, dataset, ArchiveIndex(archives, facts.id), predictions.version())
