"""The rows of `archives` by name, as they are on disk."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from jobs.tables import delta
from jobs.tables.schema import ARCHIVE_ROW
from jobs.tables.state.archive_index import ArchiveIndex

NOW = datetime(2026, 1, 31, tzinfo=UTC)
MODEL, OTHER = "small@0123456789ab", "other@0123456789ab"


def row(archive: str, version: str, status: str, key_id: str | None, model: str = MODEL) -> object:
    values = {field.name: None if field.nullable else 0 for field in ARCHIVE_ROW}
    texts = {"archive": archive, "archive_version": version, "source": f"s3://b/{archive}"}
    texts |= {"status": status, "run": "r", "software_version": "1", "configuration_hash": "c"}
    moments = {"started_at": NOW, "finished_at": NOW}
    return values | texts | moments | {"key_id": key_id, "model": model}


@pytest.fixture
def index(tmp_path: Path) -> ArchiveIndex:
    rows = [
        row("a.tar", "v1", "complete", None),
        row("a.tar", "v2", "salvaged", "k1"),
        row("b.tar", "v1", "complete", "k2"),
        row("c.tar", "v1", "failed", "k3", OTHER),
    ]
    table = pa.Table.from_pylist(rows, ARCHIVE_ROW)
    write_deltalake(str(tmp_path), table, partition_by=["model"])
    opened = delta.open_table(str(tmp_path))
    assert opened is not None
    return ArchiveIndex(opened, MODEL)


def test_an_archive_is_found_in_each_version(index: ArchiveIndex) -> None:
    found = index.row("a.tar", "v2")
    assert found is not None
    assert (found["status"], found["source"], found["finished_at"]) == (
        "salvaged",
        "s3://b/a.tar",
        NOW,
    )
    assert (index.row("a.tar") or {})["archive_version"] == "v1"
    assert index.row("a.tar", "v3") is None
    assert index.row("c.tar", "v1") is None  # of another model
    assert index.row("d.tar") is None


def test_rows_are_counted(index: ArchiveIndex) -> None:
    assert (len(index), index.num_incomplete) == (3, 1)
    assert index.key_ids == {"k1", "k2"}


def test_of_a_model_without_rows_nothing_is_known(tmp_path: Path, index: ArchiveIndex) -> None:
    opened = delta.open_table(str(tmp_path))
    assert opened is not None
    none = ArchiveIndex(opened, "third@0123456789ab")
    assert (len(none), none.num_incomplete, none.key_ids) == (0, 0, frozenset())
    assert none.row("a.tar") is None
