import io
from collections import Counter

from implant_model.errors import ArchiveStatus
from jobs.pipeline.progress import Progress
from jobs.tables.receipts import Counts, End, Published, UnitFile


def unit(position: int, members: int, read_bytes: int, outcome: str = "identified") -> Published:
    file = UnitFile("u", 0, members, 9, "0" * 64)
    return Published(position, file, read_bytes, Counts(Counter({outcome: members})))


def end(position: int) -> End:
    return End(position, 0, ArchiveStatus.COMPLETE, None, "", 0.0)


def test_planned_images_are_estimated_from_bytes() -> None:
    progress = Progress({0: 100, 1: 300}, io.StringIO())
    for receipt in (unit(0, 10, 90), end(0)):
        progress.add(receipt)
    line = progress.line(elapsed_s=5.0)
    assert line.startswith("10 of ~40 images  1 of 2 archives  2.0 images/s  0:15 left")
    assert line.endswith("10 identified")


def test_archive_that_is_half_read_counts_half() -> None:
    progress = Progress({0: 1000}, io.StringIO())
    progress.add(unit(0, 5, 500))
    assert progress.line(10.0).startswith("5 of ~10 images  0 of 1 archives")


def test_compressed_archive_never_counts_more_than_once() -> None:
    progress = Progress({0: 100, 1: 1}, io.StringIO())
    for receipt in (unit(0, 10, 90), end(0), unit(1, 90, 5000, "rejected")):
        progress.add(receipt)
    assert progress.line(10.0).startswith("100 of 100 images")


def test_last_line_is_written_to_a_log() -> None:
    log = io.StringIO()
    progress = Progress({0: 100}, log)
    for receipt in (unit(0, 1234, 90), end(0)):
        progress.add(receipt)
    progress.close()
    assert log.getvalue().startswith("1,234 of 1,234 images  1 of 1 archives")
    assert log.getvalue().count("\n") == 1


def test_hours_are_said_as_hours() -> None:
    progress = Progress({0: 1, 1: 9999}, io.StringIO())
    for receipt in (unit(0, 1, 1), end(0)):
        progress.add(receipt)
    assert "2:46:39 left" in progress.line(elapsed_s=1.0)
