from dataclasses import replace

import pytest

from implant_model.errors import ArchiveReason, ArchiveStatus
from jobs.tables.loose_names import PREFIX
from jobs.tables.records import ArchiveRecord
from jobs.tables.state.record_index import Done, Records

A1 = ArchiveRecord(
    "a.tar", "v1", "s3://b/a.tar", ArchiveStatus.COMPLETE, None, 0, 5,
    {"identified": 4, "ambiguous": 0, "unknown": 0, "rejected": 1, "ignored": 0}, {"empty": 1},
)  # fmt: skip
A2 = replace(A1, version="v2", attempt=3, member_reasons={}, decode_version=1)
B = replace(
    A1, archive="b.tar", status=ArchiveStatus.FAILED, reason=ArchiveReason.CORRUPT, members=0,
    outcomes=dict.fromkeys(A1.outcomes, 0), member_reasons={}, has_rows=False,
)  # fmt: skip


def test_records_come_back_as_they_were() -> None:
    records = Records.of([A1, B, A2])
    assert {name: dict(versions) for name, versions in records.items()} == {
        "a.tar": {"v1": A1, "v2": A2},
        "b.tar": {"v1": B},
    }
    assert "a.tar" in records
    assert "c.tar" not in records
    with pytest.raises(KeyError):
        records["c.tar"]


def test_versions_are_looked_up_together() -> None:
    records = Records.of([A1, B, A2])
    row_K, name_K = records.match(
        ["b.tar", "a.tar", "a.tar", "c.tar", "a.tar"], ["v1", "v2", "v3", "v1", "v1"]
    )
    assert row_K.tolist() == [1, 2, -1, -1, 0]
    assert name_K.tolist() == [1, 0, 0, -1, 0]
    assert [part.tolist() for part in Records.of().match(["a"], ["v"])] == [[-1], [-1]]


def test_names_are_compared_to_the_letter_and_not_by_their_hashes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jobs.tables.state.hash_index.hash", lambda name: 7, raising=False)
    records = Records.of([A1, B])
    assert dict(records["b.tar"]) == {"v1": B}
    assert "c.tar" not in records
    row_K, name_K = records.match(["c.tar", "b.tar", "b.tar"], ["v1", "v1", "v2"])
    assert (row_K.tolist(), name_K.tolist()) == ([-1, 1, -1], [-1, 1, 1])


def test_what_is_done_is_counted() -> None:
    records = Records.of([A1, B, A2])
    done = Done(records, [0, 2, 1])
    assert (len(done), done.members, done.rejected, done.num_incomplete) == (3, 10, 2, 1)
    assert [record.archive for record in done.incomplete(5)] == ["b.tar"]
    assert done.incomplete(0) == []
    assert done.older() == {1: 1}
    assert list(done) == [A1, A2, B]
    nothing = Done(Records.of(), [])
    assert (len(nothing), nothing.members, nothing.rejected, nothing.older()) == (0, 0, 0, {})


def test_it_is_known_whether_loose_radiographs_are_there_and_under_which_names() -> None:
    def of(*names: str) -> tuple[bool, bool]:
        records = Records.of([replace(A1, archive=name) for name in names])
        return records.any_pseudonym, records.any_named_as_it_is

    assert of() == (False, False)
    assert of("a.tar", "b.ZIP") == (False, False)
    assert of("a.tar", f"{PREFIX}{7:032x}") == (True, False)
    assert of("a.tar", "x.dcm") == (False, True)
    assert of(f"{PREFIX}{7:032x}", "x\n.dcm") == (True, True)
