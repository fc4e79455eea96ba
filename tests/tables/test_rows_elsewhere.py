"""Rows in files that no archive names: each is claimed once, and what is left is known."""

import pyarrow as pa

from jobs.tables.state.rows_elsewhere import Members, RowsElsewhere

MODEL = "small@0123456789ab"


def rows(*members: tuple[str, int]) -> pa.Table:
    archives, indices = zip(*members, strict=True)
    versions = ["v1"] * len(members)
    return pa.table({"archive": archives, "archive_version": versions, "member_index": indices})


def unit(archive: str, first: int, number: int, version: str = "v1", model: str = MODEL) -> Members:
    return Members(model, archive, version, first, number)


def test_rows_are_claimed_wherever_they_lie_and_once() -> None:
    found = RowsElsewhere()
    found.add("one", MODEL, rows(("a", 0), ("b", 0), ("a", 2)))
    found.add("two", MODEL, rows(("a", 1), ("c", 0)))
    assert len(found) == 5
    assert found.untaken() == ["one", "two"]
    assert found.take([unit("a", 0, 2), unit("a", 2, 1)]).tolist() == [True, True]
    assert found.take([unit("b", 0, 1)]).tolist() == [True]
    assert found.untaken() == ["two"]
    assert found.take([unit("b", 0, 1), unit("c", 0, 1)]).tolist() == [False, True]
    assert found.untaken() == []


def test_a_member_that_is_missing_doubled_or_another_ones_is_seen() -> None:
    found = RowsElsewhere()
    found.add("one", MODEL, rows(("a", 0), ("a", 1), ("b", 0), ("b", 1)))
    found.add("two", MODEL, rows(("b", 1)))
    wanted = [unit("a", 0, 3), unit("b", 0, 2)]
    assert found.take(wanted).tolist() == [False, False]
    assert found.untaken() == []
    others = [unit("a", 0, 1, version="v2"), unit("a", 0, 1, model="other"), unit("d", 0, 0)]
    assert found.take(others).tolist() == [False, False, True]


def test_one_row_is_not_two_archives_units_at_a_time() -> None:
    found = RowsElsewhere()
    found.add("one", MODEL, rows(("a", 0)))
    assert sorted(found.take([unit("a", 0, 1), unit("a", 0, 1)]).tolist()) == [False, True]


def test_of_nothing_nothing_is_claimed() -> None:
    found = RowsElsewhere()
    assert found.take([]).tolist() == []
    assert found.take([unit("a", 0, 1)]).tolist() == [False]
    assert found.untaken() == []
