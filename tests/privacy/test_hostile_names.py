"""Names that others chose: they forge no line of a log, drive no terminal and run no formula."""

import csv
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from implant_model.errors import ArchiveReason, ArchiveStatus
from implant_model.storage import ObjectInfo
from jobs.entry.command import shown
from jobs.pipeline.plan import Plan
from jobs.pipeline.summary import summarise
from jobs.tables.receipts import Counts
from jobs.tables.records import ArchiveResult, PlannedArchive
from jobs.tables.state.record_index import Done, Records
from tests.privacy.conftest import Tell
from tests.support.paths import ROOT
from training.data.labelled import Excluded, write_excluded

NAMES = (
    "a.tar\nclassify: exit code 0",
    "a\r\x1b[2K\x1b[1A.tar",
    "a\b\b\b.tar",
    "\x1b]0;title\x07.tar",
    "a\u202egnp.exe",
    "a\u2028b.tar",
    "a\x85b.tar",
    "a\x9b31m.tar",
    "surrogate-\udc80.tar",
    "nul\0.tar",
)


CONTROLS = [
    *map(chr, [*range(0x20), *range(0x7F, 0xA0)]),  # C0, DEL and C1
    *map(chr, [0x61C, 0x200B, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)]),
    *map(chr, [0xAD, 0xFEFF, 0xFFF9, 0xFFFA, 0xFFFB, 0xE0001, 0xE0041, 0xD800, 0xDFFF, 0xFFFF]),
]


def test_names_are_one_printable_line_each(tell: Tell) -> None:
    hostile = [*NAMES, *(f"a{control}b.tar\nclassify: exit code 0" for control in CONTROLS)]
    assert len(hostile) > 90
    lines = {name: shown(f"{name}: failed (corrupt), 0 members.") for name in hostile}
    wrong = [name for name, line in lines.items() if not line.isprintable() or "\n" in line]
    tell("hostile names that reach a terminal or forge a line", len(hostile), len(wrong))
    assert wrong == []
    assert all(line.endswith(": failed (corrupt), 0 members.") for line in lines.values())


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_summary_has_one_line_for_each_archive(name: str) -> None:
    now = datetime(2026, 1, 31, tzinfo=UTC)
    archive = PlannedArchive(name, ObjectInfo(f"s3://b/{name}", 1, "v"))
    message = f"s3://b/{name} cannot be read."
    failed = ArchiveStatus.FAILED, ArchiveReason.CORRUPT, message, (), Counts(), now, now
    lines = summarise(
        Plan((archive,), Done(Records.of(), [])), [ArchiveResult(archive, *failed)], "file:///out"
    )
    (line,) = (line for line in lines.split("\n") if "failed (corrupt)" in line)
    assert line.isprintable()
    assert not any(each == "classify: exit code 0" for each in lines.split("\n"))


def run(program: str, encoding: str = "utf-8") -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PYTHONIOENCODING": encoding, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=False,
    )


def test_error_is_one_printable_line() -> None:
    done = run(
        "from jobs.entry.command import run_command\n"
        "from implant_model.errors import UsageError\n"
        "def work(): raise UsageError('No archive a\\n\\x1b[31mclassify: exit code 0')\n"
        "run_command('classify', work)"
    )
    first, last = done.stderr.decode().splitlines()
    assert first == r"classify: No archive a\n\x1b[31mclassify: exit code 0"
    assert (last, done.returncode) == ("classify: exit code 2", 2)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_output_of_another_encoding_does_not_end_a_run(encoding: str) -> None:
    done = run(
        "from jobs.entry.command import run_command\n"
        "def work():\n    print('R\\u00f6ntgen \\u4e2d \\udc80')\n    return 0\n"
        "run_command('classify', work)",
        encoding,
    )
    assert done.returncode == 0, done.stderr
    assert rb"\u4e2d \udc80" in done.stdout
    assert b"Traceback" not in done.stderr


def test_list_of_what_was_left_out_runs_no_formula(tmp_path: Path) -> None:
    hostile = ("=cmd|' /C calc'!A0", "+1+cmd", "-2+3", "@SUM(A1)", "\t=1", "a,=b")
    excluded = tuple(Excluded(name, name, "corrupt") for name in hostile)

    class Held:
        def __init__(self) -> None:
            self.excluded = excluded

    write_excluded(Held(), tmp_path / "excluded.csv")
    with (tmp_path / "excluded.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = [*csv.DictReader(file)]
    assert [row["reason"] for row in rows] == ["corrupt"] * len(hostile)
    for row, name in zip(rows, hostile, strict=True):
        for cell in (row["archive"], row["member"]):
            assert cell.lstrip("'") != cell or not cell.startswith(("=", "+", "-", "@", "\t")), name
            assert cell.replace("'", "") == name.replace("'", "")
