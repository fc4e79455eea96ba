"""Rounds over a plan, with stages that lose what the test states; real tables on disk."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from implant_model import storage
from implant_model.errors import ArchiveStatus
from jobs.pipeline import run
from jobs.pipeline.plan import make_plan
from jobs.pipeline.run import settle
from jobs.tables.archive_rows import RunIdentity
from jobs.tables.publish import Tables
from jobs.tables.receipts import ArchiveReceipt, End, Failure, Published, Unit
from jobs.tables.records import PlannedArchive
from jobs.tables.schema import PREDICTION_ROW, is_bundle, unit_id, unit_path
from jobs.tables.unit_files import publish_bundle, publish_unit

MODEL = "small@0123456789ab"
MEMBERS = 3


class Stages:
    """Publishes each archive's one unit, unless it is among those that this round loses.

    Args:
        output: Normalised URI.
        todo: The plan.
        lost: Positions lost in each round.
    """

    def __init__(
        self, output: str, todo: Sequence[PlannedArchive], *lost: set[int], breaks: bool = False
    ) -> None:
        self.calls: list[list[int] | None] = []
        self._output, self._todo, self._lost, self._breaks = output, todo, lost, breaks

    def __call__(self, positions: Sequence[int] | None = None) -> Iterator[ArchiveReceipt]:
        lost = self._lost[len(self.calls)] if len(self.calls) < len(self._lost) else set()
        self.calls.append(None if positions is None else list(positions))
        for position in range(len(self._todo)) if positions is None else positions:
            if position not in lost:
                yield self._unit(position)
                yield self._end(position)
        if self._breaks:
            raise RuntimeError("The cluster is gone.")

    def in_one_file(self) -> Iterator[ArchiveReceipt]:
        """Receipts of all archives in one file, as a publisher gives them."""
        units, tables = zip(*map(self._rows, range(len(self._todo))), strict=True)
        yield from publish_bundle(units, pa.concat_tables(tables), self._output)
        yield from map(self._end, range(len(self._todo)))

    def _unit(self, position: int) -> Published | Failure:
        return publish_unit(*self._rows(position), self._output)

    def _rows(self, position: int) -> tuple[Unit, pa.Table]:
        archive = self._todo[position]
        version = archive.info.version
        path = unit_path(MODEL, unit_id(archive.name, version, MODEL, "c0", 0, 0))
        row = {"archive": archive.name, "archive_version": version, "frame": 0}
        rows = [
            {**row, "member_index": index, "outcome": "rejected", "reason": "empty"}
            for index in range(MEMBERS)
        ]
        table = PREDICTION_ROW.empty_table().from_pylist(rows, schema=PREDICTION_ROW)
        return Unit(position, archive.name, version, 0, MEMBERS, 10, path), table

    def _end(self, position: int) -> End:
        return End(position, MEMBERS, ArchiveStatus.COMPLETE, None, "", 1.0)


@pytest.fixture
def plan(tmp_path: Path) -> tuple[str, Sequence[PlannedArchive], Tables]:
    (tmp_path / "in").mkdir()
    for name in "abc":
        (tmp_path / "in" / f"{name}.tar").write_text(name)
    output = storage.normalise(str(tmp_path / "out"))
    tables = Tables(output, RunIdentity(MODEL, "c0", "0.1.0", "run"))
    tables.create()
    todo = make_plan([storage.normalise(str(tmp_path / "in"))], tables.records()).todo
    return output, todo, tables


Planned = tuple[str, Sequence[PlannedArchive], Tables]


def test_run_without_a_loss_is_one_round(plan: Planned) -> None:
    output, todo, tables = plan
    stages = Stages(output, todo)
    results = settle(todo, stages(), tables, again=stages)
    assert stages.calls == [None]
    assert [result.status for result in results] == [ArchiveStatus.COMPLETE] * 3


def test_a_file_that_archives_share_is_committed_whole(
    plan: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that is due waits for the last end, and copies no rows."""
    output, todo, tables = plan
    monkeypatch.setattr(run, "COMMIT_EVERY_S", 0.0)
    settle(todo, Stages(output, todo).in_one_file(), tables)
    (file,) = Path(output.removeprefix("file://"), "predictions").rglob("*.parquet")
    assert is_bundle(file.name)
    assert pl.read_parquet(file).height == 3 * MEMBERS


def test_what_was_lost_is_read_once_more_alone(plan: Planned) -> None:
    output, todo, tables = plan
    stages = Stages(output, todo, {1, 2})
    results = settle(todo, stages(), tables, again=stages)
    assert stages.calls == [None, [1, 2]]
    assert {result.status for result in results} == {ArchiveStatus.COMPLETE}
    assert pl.read_delta(f"{output.removeprefix('file://')}/predictions").height == 3 * MEMBERS


def test_what_is_lost_twice_fails_and_the_rest_stands(plan: Planned) -> None:
    output, todo, tables = plan
    stages = Stages(output, todo, {1, 2}, {1})
    results = {
        result.archive.name: result for result in settle(todo, stages(), tables, again=stages)
    }
    assert len(stages.calls) == 2
    failed = results["b.tar"]
    assert (failed.status, failed.reason, failed.members) == ("failed", "storage_error", 0)
    assert "each time that it was tried" in failed.message
    rows = pl.read_delta(f"{output.removeprefix('file://')}/predictions")
    assert set(rows["archive"]) == {"a.tar", "c.tar"}
    assert not tables.records()["b.tar"][todo[1].info.version].status.is_readable


def test_what_had_arrived_is_published_when_the_stages_break(plan: Planned) -> None:
    output, todo, tables = plan
    with pytest.raises(RuntimeError, match="The cluster is gone"):
        settle(todo, Stages(output, todo, {1}, breaks=True)(), tables)
    assert set(tables.records()) == {"a.tar", "c.tar"}
