"""Small archives of a bucket are on their way before their turn, and read as without that."""

import time
from pathlib import Path

import pytest

from implant_model import storage
from implant_model.decode.sandbox import DecodeProcess
from implant_model.errors import ArchiveReason, ArchiveStatus
from jobs.pipeline import read_ahead as module
from jobs.pipeline.read_ahead import AHEAD, read_ahead
from jobs.pipeline.source import read_group
from jobs.tables.receipts import End, load_pieces
from jobs.tables.records import PlannedArchive
from tests.pipeline.test_units import recipe
from tests.support.fault_proxy import FaultProxy
from tests.support.object_store import ObjectStore
from tests.support.pictures import noise_png

COUNT = AHEAD + 8


@pytest.fixture
def group(bucket: str, fault_proxy: FaultProxy) -> list[tuple[int, PlannedArchive]]:
    """Loose radiographs in a bucket, planned."""
    for number in range(COUNT):
        storage.put_if_absent(f"s3://{bucket}/in/{number:02}.png", noise_png(number))
    planned = [
        (number, PlannedArchive(f"{number:02}.png", info))
        for number, info in enumerate(storage.list_objects(f"s3://{bucket}/in/"))
    ]
    fault_proxy.reset()
    return planned


def test_rows_are_those_of_one_after_the_other(
    group: list[tuple[int, PlannedArchive]],
    decoder: DecodeProcess,
    fault_proxy: FaultProxy,
    tmp_path: Path,
) -> None:
    how = recipe(tmp_path)
    ahead, alone = (list(read_group(group, how, decoder.prepare, ahead=n)) for n in (AHEAD, 0))
    for column in ("images", "rows"):
        assert ahead[0][column].equals(alone[0][column])
    assert len(fault_proxy.sent("GET", "/in/")) == 2 * COUNT  # one request for each


def test_the_next_are_under_way_and_no_more_than_that(
    group: list[tuple[int, PlannedArchive]], fault_proxy: FaultProxy, tmp_path: Path
) -> None:
    turns = read_ahead(group, recipe(tmp_path))
    _, _, get = next(turns)
    get()
    deadline = time.monotonic() + 20
    while len(fault_proxy.sent("GET", "/in/")) < AHEAD + 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    assert len(fault_proxy.sent("GET", "/in/")) == AHEAD + 1
    assert [position for position, _, _ in turns] == list(range(1, COUNT))


def test_they_hold_no_more_bytes_than_they_may(
    group: list[tuple[int, PlannedArchive]],
    fault_proxy: FaultProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = max(archive.info.size for _, archive in group)
    monkeypatch.setattr(module, "MAX_UNDER_WAY_BYTES", 3 * size)
    turns = read_ahead(group, recipe(tmp_path))
    assert [position for position, _, _ in turns] == list(range(COUNT))
    fault_proxy.reset()
    turns = read_ahead(group, recipe(tmp_path))
    next(turns)[2]()
    time.sleep(0.5)
    assert len(fault_proxy.sent("GET", "/in/")) <= 5


def test_what_is_large_or_not_to_be_had_waits_for_its_turn(
    group: list[tuple[int, PlannedArchive]],
    fault_proxy: FaultProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_AHEAD_BYTES", 10)
    assert len(list(read_ahead(group, recipe(tmp_path)))) == COUNT
    assert fault_proxy.sent("GET", "/in/") == []


def test_an_archive_that_changed_or_went_costs_no_other(
    group: list[tuple[int, PlannedArchive]],
    decoder: DecodeProcess,
    object_store: ObjectStore,
    bucket: str,
    tmp_path: Path,
) -> None:
    object_store.client().put_object(Bucket=bucket, Key="in/03.png", Body=noise_png(99))
    object_store.client().delete_object(Bucket=bucket, Key="in/07.png")
    (table,) = read_group(group, recipe(tmp_path), decoder.prepare)
    ends = [p for p in load_pieces(table["pieces"][0].as_py()) if isinstance(p, End)]
    found = {end.position: (end.status, end.reason) for end in ends}
    assert found.pop(3) == (ArchiveStatus.CHANGED, ArchiveReason.CHANGED)
    assert found.pop(7) == (ArchiveStatus.FAILED, ArchiveReason.NOT_FOUND)
    assert set(found.values()) == {(ArchiveStatus.COMPLETE, None)}
    assert len(found) == COUNT - 2
