from collections import Counter
from dataclasses import replace

from implant_model.errors import ArchiveReason, ArchiveStatus
from implant_model.storage.uri import ObjectInfo
from jobs.pipeline.ledger import Ledger
from jobs.tables.receipts import (
    ArchiveReceipt,
    Counts,
    End,
    Failure,
    Fault,
    Published,
    Receipt,
    UnitFile,
    dump_receipts,
    load_receipts,
)
from jobs.tables.records import PlannedArchive

ARCHIVES = [PlannedArchive(name, ObjectInfo(f"file:///{name}", 10, "v")) for name in "ab"]


def unit(first: int, members: int, position: int = 0) -> Published:
    counts = Counts(
        Counter({"identified": members - 1, "rejected": 1}),
        Counter({"empty": 1}),
        Counter({"stem-a": members - 1}),
        Counter({"31": members - 1}),
    )
    return Published(
        position, UnitFile(f"{position}-{first}", first, members, 9, "0" * 64), 10, counts
    )


def end(members: int, position: int = 0, status: str = "complete") -> End:
    reason = None if status == "complete" else ArchiveReason.TRUNCATED
    return End(position, members, ArchiveStatus(status), reason, "", 0.0)


def test_archive_is_finished_by_whichever_receipt_comes_last() -> None:
    orders: list[list[ArchiveReceipt]] = [
        [unit(0, 3), unit(3, 2), end(5)],
        [end(5), unit(3, 2), unit(0, 3)],
    ]
    for receipts in orders:
        ledger = Ledger(ARCHIVES)
        *before, last = receipts
        assert [ledger.add(receipt) for receipt in before] == [None, None]
        result = ledger.add(last)
        assert result is not None
        assert (result.status, result.members) == (ArchiveStatus.COMPLETE, 5)
        assert result.outcomes == {"identified": 3, "rejected": 2}
        assert result.counts.reasons == {"empty": 2}
        assert result.counts.implants == {"stem-a": 3}
        assert result.counts.novelty == {"31": 3}


def test_receipt_that_comes_twice_counts_once() -> None:
    ledger = Ledger(ARCHIVES)
    ledger.add(unit(0, 3))
    ledger.add(unit(0, 3))
    assert ledger.add(end(6)) is None
    result = ledger.add(unit(3, 3))
    assert result is not None
    assert result.members == 6
    assert ledger.add(end(6)) is None


def test_archive_without_its_end_is_failed_and_has_no_rows() -> None:
    ledger = Ledger(ARCHIVES)
    ledger.add(unit(0, 3))
    results = {result.archive.name: result for result in ledger.close()}
    assert {r.status for r in results.values()} == {ArchiveStatus.FAILED}
    assert {r.reason for r in results.values()} == {ArchiveReason.STORAGE_ERROR}
    assert results["a"].members == 0
    assert results["a"].outcomes == {}


def test_unit_that_could_not_be_published_fails_its_archive() -> None:
    ledger = Ledger(ARCHIVES)
    ledger.add(unit(0, 3))
    result = ledger.add(Failure(0, "The disk is full."))
    assert result is not None
    assert (result.status, result.message, result.members) == ("failed", "The disk is full.", 0)
    assert ledger.add(end(3)) is None
    assert ledger.num_finished == 1


def test_salvaged_archive_keeps_what_was_read() -> None:
    ledger = Ledger(ARCHIVES)
    ledger.add(unit(0, 3, position=1))
    result = ledger.add(end(3, position=1, status="salvaged"))
    assert result is not None
    assert (result.archive.name, result.reason, result.members) == ("b", "truncated", 3)


def test_receipts_survive_their_json_and_share_what_they_have_in_common() -> None:
    file = UnitFile("bundle", 0, 1, 9, "0" * 64, '{"numRecords": 2}')
    stem = Counts(Counter({"identified": 1}), implants=Counter({'"ü': 1}))
    cup = Counts(Counter({"rejected": 1}), Counter({"empty": 1}))
    written: list[Receipt] = [
        Published(0, file, 10, stem),
        Published(1, replace(file), 10, Counts(Counter(stem.outcomes), implants=stem.implants)),
        Published(2, replace(file, path="other"), 10, cup),
        Failure(3, "The disk is full."),
        end(1),
        Fault("It does not answer.", at_start=True),
    ]
    read = load_receipts(dump_receipts(written))
    assert read == written
    first, second, third = (receipt for receipt in read if isinstance(receipt, Published))
    assert first.file is second.file
    assert first.counts is second.counts
    assert third.file is not first.file
    ledger = Ledger([*ARCHIVES, ARCHIVES[0]])
    for receipt in (first, second, end(1), end(1, position=1)):
        result = ledger.add(receipt)
    assert result is not None
    assert result.counts is first.counts
    assert first.counts == stem
