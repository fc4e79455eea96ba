"""Planned archives as columns are those that were planned, to the letter."""

import random

import pyarrow as pa
import pytest

from implant_model.errors import ArchiveReason
from implant_model.storage import ObjectInfo
from jobs.tables.records import PlannedArchive
from jobs.tables.state import planned
from jobs.tables.state.planned import Planning, join

ARCHIVES = [
    PlannedArchive("a.tar", ObjectInfo("file:///in/a.tar", 1, "1-1")),
    PlannedArchive("caf\udce9.tar", ObjectInfo("file:///in/caf%E9.tar", 0, "0-1"), attempt=2),
    PlannedArchive(
        "loose-0",
        ObjectInfo("file:///in/MEIER.png", 5, "5-1"),
        pseudonym=ObjectInfo("file:///in/", 8, "9f"),
    ),
    PlannedArchive(
        "z", ObjectInfo("s3://b/z", 0, ""), unreachable=ArchiveReason.ACCESS_DENIED
    ),
]  # fmt: skip


def test_archives_come_back_as_they_were_by_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planned, "AT_ONCE", 3)
    new = Planning()
    for archive in random.Random(1).sample(ARCHIVES, len(ARCHIVES)):
        new.add(archive)
    found = join([new.in_order(), Planning().in_order()])
    expected = sorted(ARCHIVES, key=lambda archive: archive.info.uri)
    assert list(found) == expected
    assert [found[0], found[-1]] == [expected[0], expected[-1]]
    assert list(found[1:3]) == expected[1:3]
    assert list(found[:0]) == list(found[9:]) == []
    with pytest.raises(IndexError):
        found[len(ARCHIVES)]


def test_inputs_keep_their_order() -> None:
    parts = []
    for archive in reversed(ARCHIVES):
        new = Planning()
        new.add(archive)
        parts.append(new.in_order())
    assert list(join(parts)) == ARCHIVES[::-1]
    assert len(join([])) == 0


def test_places_that_the_tables_know_by_another_name_are_found() -> None:
    new = Planning()
    for archive in ARCHIVES:
        new.add(archive, is_named=archive.name == "a.tar")
    sources = ["file:///in/a.tar", "file:///in/", "file:///other", "file:///in/caf%E9.tar"]
    column = pa.chunked_array([sources[:1], sources[1:]], pa.large_string())
    found = list(join([new.in_order()]).known_sources(column))
    assert found == [(ARCHIVES[2], 1), (ARCHIVES[1], 3)]
    assert list(join([]).known_sources(column)) == []
    assert list(join([new.in_order()]).known_sources(column[:0])) == []
